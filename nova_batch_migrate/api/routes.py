"""The whole API in one table, and what of a path belongs to it.

The filter asks :func:`split` for every request of nova-api, the application then :func:`match`.
"""

import re
from collections.abc import Callable

import webob.exc

from nova_batch_migrate.api.handlers import (
    actions,
    batch_migrations,
    commonality,
    events,
    plan,
    versions,
)

PREFIX = "/os-batch-evacuate"
ROUTES: tuple[tuple[str, dict[str, Callable]], ...] = (
    ("", {"GET": batch_migrations.index, "POST": batch_migrations.create}),
    ("/versions", {"GET": versions.index}),
    ("/{batch_id}", {"GET": batch_migrations.show, "DELETE": batch_migrations.delete}),
    ("/{batch_id}/plan", {"GET": plan.show}),
    ("/{batch_id}/commonality", {"GET": commonality.show}),
    ("/{batch_id}/events", {"GET": events.index}),
    ("/{batch_id}/action", {"POST": actions.create}),
)
# Nova takes the same characters for a project in its URLs
_OURS = re.compile(rf"(?:/(?P<project_id>[0-9a-f-]+))?{PREFIX}(?P<rest>/.*)?\Z", re.DOTALL)
_COMPILED = tuple(
    (re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path) + r"\Z"), methods)
    for path, methods in ROUTES)


def split(path_info: str) -> tuple[str | None, str] | None:
    """Return (project id or None, path below the prefix), or None for a path that isn't ours."""
    found = _OURS.match(path_info)
    if found is None:
        return None
    return found["project_id"], (found["rest"] or "").rstrip("/")


def match(method: str, path: str) -> tuple[Callable, dict[str, str]]:
    """Return the handler of ``path`` (below the prefix) and its arguments.

    Raises HTTPNotFound for an unknown path, HTTPMethodNotAllowed with Allow for a known one.
    """
    for pattern, methods in _COMPILED:
        found = pattern.match(path)
        if found is None:
            continue
        if method not in methods:
            allowed = ", ".join(methods)
            raise webob.exc.HTTPMethodNotAllowed(
                f"{PREFIX}{path} takes {allowed}, not {method}.", headers={"Allow": allowed})
        return methods[method], found.groupdict()
    raise webob.exc.HTTPNotFound(
        f"There is no {PREFIX}{path}. The API has {PREFIX} with "
        + ", ".join(path for path, _ in ROUTES if path) + " below it.")
