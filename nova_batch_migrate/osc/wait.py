"""Follow a batch migration over HTTP until it is where the operator wants to see it.

Used by every command with --wait. It changes nothing: the batch goes on whether it is watched or
not. A lost connection is waited out, since the cloud that is being worked on may well hiccup.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, TextIO, TypeVar

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions

from nova_batch_migrate.osc import view
from nova_batch_migrate.sdk import batch_migration

FINAL = frozenset({"completed", "partial", "aborted", "failed"})
#: From these on there is a plan, unless there was nothing to move.
PLANNED = FINAL | {"planned", "running", "paused", "aborting"}

_FIRST_DELAY_SECONDS = 1.0
_LONGEST_DELAY_SECONDS = 30.0
_T = TypeVar("_T")


def open_view(stream: TextIO) -> view.LiveView | view.PlainView:
    """Return the view that suits ``stream``: live on a terminal, else plain lines."""
    return view.LiveView(stream) if stream.isatty() else view.PlainView(stream)


class Watch:
    """One operator's look at one batch migration."""

    def __init__(self, session: Any, watcher: Any, sleep: Callable[[float], None]):
        self._session = session
        self._view = watcher
        self._sleep = sleep

    def until(
        self, batch: batch_migration.BatchMigration, statuses: Collection[str]
    ) -> batch_migration.BatchMigration:
        """Show ``batch`` until its status is one of ``statuses``; return it as it is then."""
        try:
            while True:
                batch = self._patiently(batch.fetch)
                self._view.show(batch)
                if batch.status in statuses:
                    return batch
                self._sleep(self._view.interval_seconds(batch))
        finally:
            self._view.close()

    def plan(
        self, batch: batch_migration.BatchMigration, whole: bool = False
    ) -> dict[str, Any] | None:
        """Return the current plan, or None for a batch that ended without one.

        ``whole``: with the telemetry behind it, for machines.
        """
        try:
            return self._patiently(functools.partial(batch.fetch_plan, whole=whole))
        except sdk_exceptions.NotFoundException:
            return None

    def _patiently(self, ask: Callable[[Any], _T]) -> _T:
        delay_seconds = _FIRST_DELAY_SECONDS
        while True:
            try:
                return ask(self._session)
            except (
                ksa_exceptions.ConnectFailure,
                ksa_exceptions.RetriableConnectionFailure,
                ksa_exceptions.HttpServerError,
                sdk_exceptions.HttpException,
            ) as error:
                if not _passes(error):
                    raise
                self._view.notice(
                    f"No answer from the API ({_brief(error)}); the batch migration goes on. "
                    f"Asking again in {delay_seconds:.0f} s."
                )
            self._sleep(delay_seconds)
            delay_seconds = min(delay_seconds * 2, _LONGEST_DELAY_SECONDS)


def _passes(error: Exception) -> bool:
    if isinstance(error, sdk_exceptions.HttpException):
        return error.status_code is None or error.status_code >= 500 or error.status_code == 429
    return True


def _brief(error: Exception) -> str:
    if isinstance(error, sdk_exceptions.HttpException):
        return str(error.details or error.status_code)
    return str(error)


def unmoved(
    batch: batch_migration.BatchMigration,
    first_plan: dict[str, Any] | None,
    last_plan: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    """Return the servers that were to move and have not.

    A server does not count when a plan named it as staying, unless the plan that was shown before
    the start had promised to move it.
    """
    promised = {
        member["server_id"]
        for group in (first_plan or {"groups": []})["groups"]
        for member in group["members"]
    }
    named = {
        server["server_id"]
        for plan in (first_plan, last_plan)
        if plan is not None
        for server in plan["staying"]
    }
    return [
        server
        for server in batch.servers or []
        if server["status"] != "completed"
        and not (
            server["status"] == "skipped"
            and server["id"] in named
            and server["id"] not in promised
        )
    ]
