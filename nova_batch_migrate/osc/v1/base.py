"""What the commands of this plug-in have in common: client, errors, where words go, waiting.

Every command class derives from one of the two below. Nothing here knows a particular command.
"""

import argparse
import sys
import time
from typing import Any, TextIO

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.command import command

from nova_batch_migrate.osc import tables, text, wait
from nova_batch_migrate.sdk.batch_migration import BatchMigration

_SUMMARY = (
    "id", "status", "hosts", "strategy", "progress", "projected_seconds", "actual_seconds",
    "projected_bytes", "wire_bytes", "error",
)
_NAMES_SHOWN = 3
# Formats that escape what they hold by themselves.
_ESCAPING_FORMATS = ("json", "yaml")


class ApiCommand(command.Command):
    """A command that turns the API's faults into one clear line."""

    @property
    def client(self) -> Any:
        """The compute adapter."""
        return self.app.client_manager.batch_migrate

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run the command; 1 if it says so or if the API refuses."""
        self.exit_status = 0
        try:
            return super().run(parsed_args) or self.exit_status
        except sdk_exceptions.HttpException as error:
            raise exceptions.CommandError(refusal(error)) from error


def brief(value: Any) -> Any:
    """Return a field as a person wants to read it in a table."""
    if isinstance(value, list):
        more = len(value) - _NAMES_SHOWN
        names = ", ".join(str(name) for name in value[:_NAMES_SHOWN])
        return f"{names} and {more} more" if more > 0 else names
    return round(value, 1) if isinstance(value, float) else value


def refusal(error: sdk_exceptions.HttpException) -> str:
    """Return the API's own words, harmless even if they quote a server, and where to look."""
    told = text.escape(error.details or error)
    request = f", {text.escape(error.request_id)}" if error.request_id else ""
    return f"{told} (HTTP {error.status_code}{request})"


def named(batch_id: str) -> BatchMigration:
    """Return a resource for the batch migration the operator named; asks nothing."""
    return BatchMigration.existing(id=batch_id)


def cell(value: Any, parsed_args: argparse.Namespace) -> Any:
    """Return text for a column of the chosen format, harmless to a terminal."""
    if isinstance(value, str) and parsed_args.formatter not in _ESCAPING_FORMATS:
        return text.escape(value)
    return value


class ShowBatch(ApiCommand, command.ShowOne):
    """A command whose result is a batch migration, perhaps after waiting for it."""

    sleep = staticmethod(time.sleep)

    def words(self, parsed_args: argparse.Namespace) -> TextIO:
        """Return where text for people goes: beside the data, never into it."""
        return self.app.stdout if parsed_args.formatter == "table" else sys.stderr

    def say(self, parsed_args: argparse.Namespace, lines: list[str]) -> None:
        """Print lines for people."""
        stream = self.words(parsed_args)
        stream.write("\n".join([*lines, "", ""]))
        stream.flush()

    def shown(
        self, parsed_args: argparse.Namespace, batch: BatchMigration, **more: Any
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """Return columns and data: a summary for people, everything for machines."""
        known = batch.to_dict(headers=False, computed=False)
        if parsed_args.formatter == "table":
            # What an answer leaves out says nothing to a person.
            known = {key: brief(known[key]) for key in _SUMMARY if known[key] is not None}
        else:
            known.pop("name")
            known |= more
        return tuple(known), tuple(cell(value, parsed_args) for value in known.values())

    def watch(self, parsed_args: argparse.Namespace) -> wait.Watch:
        """Return a look at a batch migration, shown where text for people goes."""
        return wait.Watch(self.client, wait.open_view(self.words(parsed_args)), self.sleep)

    def follow(
        self, parsed_args: argparse.Namespace, batch: BatchMigration, started: bool = False
    ) -> BatchMigration:
        """Show the plan once it is there, then every step to the end, then the report.

        A batch of which only the plan was asked for is followed to its plan, unless the caller
        has ``started`` it. The exit status becomes 1 unless all that was to move has moved. An
        interrupt ends the watching, not the batch.
        """
        watch = self.watch(parsed_args)
        try:
            batch = watch.until(batch, wait.PLANNED)
            first_plan = watch.plan(batch)
            if first_plan is not None:
                self.say(parsed_args, ["", *tables.plan_lines(first_plan)])
            if batch.plan_only and batch.status == "planned" and not started:
                self.say(parsed_args, how_to_run(batch.id))
                return batch
            batch = watch.until(batch, wait.FINAL)
            left = wait.unmoved(batch, first_plan, watch.plan(batch))
        except KeyboardInterrupt:
            return self._stopped_watching(parsed_args, batch)
        self.say(parsed_args, ["", *tables.report_lines(batch)])
        if batch.status not in ("completed", "partial") or left:
            self.exit_status = 1
        return batch

    def watch_end(
        self, parsed_args: argparse.Namespace, batch: BatchMigration
    ) -> BatchMigration:
        """Show every step until the batch has ended, however it ends, then the report."""
        try:
            batch = self.watch(parsed_args).until(batch, wait.FINAL)
        except KeyboardInterrupt:
            return self._stopped_watching(parsed_args, batch)
        self.say(parsed_args, ["", *tables.report_lines(batch)])
        return batch

    def _stopped_watching(
        self, parsed_args: argparse.Namespace, batch: BatchMigration
    ) -> BatchMigration:
        self.say(parsed_args, goes_on(batch.id))
        self.exit_status = 1
        return batch


def how_to_run(batch_id: str) -> list[str]:
    """Return what can be done with a batch migration that is only planned."""
    return [
        f"Run it: openstack server batch migration start --wait {batch_id}",
        f"Drop it: openstack server batch migration delete {batch_id}",
    ]


def goes_on(batch_id: str) -> list[str]:
    """Return what an operator must know who stops watching."""
    return [
        "",
        f"Stopped watching. Batch migration {batch_id} goes on without you.",
        f"  watch again: openstack server batch migration show --wait {batch_id}",
        f"  abort it:    openstack server batch migration abort {batch_id}",
    ]


def add_batch_argument(parser: argparse.ArgumentParser) -> None:
    """Add the positional argument that names a batch migration."""
    parser.add_argument("batch", metavar="<batch>", help="Batch migration (ID)")


def add_wait_option(parser: argparse.ArgumentParser) -> None:
    """Add --wait."""
    parser.add_argument(
        "--wait",
        action="store_true",
        help="Show the plan and the progress until the batch is finished; exit status 0 only if "
        "all servers that were to move have moved",
    )
