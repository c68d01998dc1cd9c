"""Every question and change the conductor has for the database, as plain functions and dicts.

Rows come out as dictionaries by column name, times as naive UTC datetimes, JSON columns decoded;
no live object leaves this module. Each function is one transaction. What several conductors may do
at once is decided by single statements: claims by their primary key, leases and versions by UPDATE
... WHERE [0102: the state outlives the controller].
"""

import collections
import contextlib
import datetime
from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from oslo_db import api as oslo_db_api
from oslo_db import exception as db_exc
from oslo_utils import timeutils, uuidutils

from nova_batch_migrate import exception
from nova_batch_migrate.db import engine, models

# A planned batch that waits for its start is active here: the reconciler has to look at it.
ACTIVE_STATUSES = ("accepted", "measuring", "planned", "running", "paused", "aborting")
FINAL_STATUSES = ("completed", "partial", "aborted", "failed")
# Megabytes each; lists come without them.
HEAVY_COLUMNS = ("plan", "first_plan", "telemetry")
HOST = "host"
SERVER = "server"

_BATCHES = models.Batch.__table__
_HOSTS = models.BatchHost.__table__
_SERVERS = models.BatchServer.__table__
_EVENTS = models.BatchEvent.__table__
_CLAIMS = models.Claim.__table__
# Well below the number of parameters that the smallest of the databases takes in one statement.
_CHUNK = 500

# A deadlock's loser was rolled back, so repeating it is safe; a write whose connection broke may
# have been committed and is left to the caller, who reads the truth again.
_write_retry = oslo_db_api.wrap_db_retry(
    retry_interval=0.1, max_retries=10, max_retry_interval=2, retry_on_deadlock=True)
_read_retry = oslo_db_api.wrap_db_retry(
    retry_interval=0.1, max_retries=5, max_retry_interval=2, retry_on_deadlock=True,
    retry_on_disconnect=True)


@_write_retry
def create_batch(values: Mapping, servers: Iterable[Mapping] = (),
                 claims: Iterable[tuple[str, str]] = (), hosts: Iterable[str] = ()) -> dict:
    """Commit a batch with its servers and its claims, all or nothing, and return its row.

    ``values`` needs ``request`` only. ``claims`` are ``(HOST | SERVER, id)``; ``hosts`` are
    sources by which lists find the batch, whether they have servers or not. Raises BatchConflict,
    which names the batch that holds a claim.
    """
    now = timeutils.utcnow()
    row = dict.fromkeys(_BATCHES.c.keys()) | {
        "id": uuidutils.generate_uuid(), "status": "accepted", "created_at": now,
        "updated_at": now, "disabled_hosts": [], "state": {}, "version": 1,
        "control": {"started": False, "paused": False, "abort": None, "replan": False},
    } | _known(_BATCHES, values)
    claims = list(claims)
    with _retry_after_duplicate(), engine.writer() as session:
        _refuse_foreign_claims(session, row["id"], claims)
        session.execute(sa.insert(_BATCHES).values(row))
        _insert_hosts(session, row["id"],
                      [*hosts, *(name for kind, name in claims if kind == HOST)])
        _insert_claims(session, row["id"], claims)
        _insert_servers(session, row["id"], servers)
    return row


@_read_retry
def get_batch(batch_id: str, heavy: bool = True) -> dict:
    """Return one batch, with ``heavy`` its plans and telemetry too. Raises BatchNotFound."""
    with engine.reader() as session:
        row = session.execute(
            sa.select(*_batch_columns(heavy)).where(_BATCHES.c.id == batch_id)).first()
    if row is None:
        raise exception.BatchNotFound(batch_id=batch_id)
    return dict(row._mapping)


@_read_retry
def list_batches(statuses: Iterable[str] | None = None, host: str | None = None,
                 limit: int | None = None, marker: str | None = None) -> list[dict]:
    """Return batches without their heavy columns, newest first, after the batch ``marker``.

    ``host`` keeps those that empty this host or move servers away from it. Raises InvalidInput
    for a marker that is no batch.
    """
    query = sa.select(*_batch_columns(heavy=False)).order_by(
        _BATCHES.c.created_at.desc(), _BATCHES.c.id.desc())
    if statuses is not None:
        query = query.where(_BATCHES.c.status.in_(list(statuses)))
    if host is not None:
        query = query.where(sa.exists().where(
            _HOSTS.c.batch_id == _BATCHES.c.id, _HOSTS.c.host == host))
    if limit is not None:
        query = query.limit(limit)
    with engine.reader() as session:
        if marker is not None:
            last = session.execute(
                sa.select(_BATCHES.c.created_at).where(_BATCHES.c.id == marker)).first()
            if last is None:
                raise exception.InvalidInput(
                    reason=f"the marker {marker} is no batch migration. Give the id of the last "
                           "one you saw, or none to begin at the newest.")
            query = query.where(sa.or_(
                _BATCHES.c.created_at < last.created_at,
                sa.and_(_BATCHES.c.created_at == last.created_at, _BATCHES.c.id < marker)))
        return _dicts(session.execute(query))


def active_batches() -> list[dict]:
    """Return the batches a reconciler has to look at, newest first, without heavy columns."""
    return list_batches(statuses=ACTIVE_STATUSES)


@_write_retry
def update_batch(batch_id: str, values: Mapping, expected_version: int | None = None) -> bool:
    """Change a batch and count its ``version`` up; tell whether it was done.

    With ``expected_version`` nothing is done when somebody else changed the batch since it was
    read (False: read it again). Raises BatchNotFound.
    """
    changes = _known(_BATCHES, values) | {
        "updated_at": timeutils.utcnow(), "version": _BATCHES.c.version + 1}
    statement = sa.update(_BATCHES).where(_BATCHES.c.id == batch_id).values(changes)
    if expected_version is not None:
        statement = statement.where(_BATCHES.c.version == expected_version)
    with engine.writer() as session:
        if session.execute(statement).rowcount:
            return True
        if session.execute(sa.select(_BATCHES.c.id).where(_BATCHES.c.id == batch_id)).first():
            return False
    raise exception.BatchNotFound(batch_id=batch_id)


@_write_retry
def acquire_lease(batch_id: str, owner: str, seconds: float) -> bool:
    """Take or renew the lease of a batch for ``seconds``; False while another owner's runs.

    Of several conductors that ask at once one gets it. The database's clock counts, because the
    conductors' own may differ.
    """
    with engine.writer() as session:
        now = _database_now(session)
        taken = session.execute(
            sa.update(_BATCHES)
            .where(_BATCHES.c.id == batch_id,
                   sa.or_(_BATCHES.c.lease_owner.is_(None), _BATCHES.c.lease_owner == owner,
                          _BATCHES.c.lease_expires_at < now))
            .values(lease_owner=owner,
                    lease_expires_at=now + datetime.timedelta(seconds=seconds)))
        return bool(taken.rowcount)


@_write_retry
def release_lease(batch_id: str, owner: str) -> bool:
    """Give the lease back; False when it is no longer ``owner``'s."""
    with engine.writer() as session:
        released = session.execute(
            sa.update(_BATCHES)
            .where(_BATCHES.c.id == batch_id, _BATCHES.c.lease_owner == owner)
            .values(lease_owner=None, lease_expires_at=None))
        return bool(released.rowcount)


@_read_retry
def servers_of(batch_id: str) -> list[dict]:
    """Return the servers of a batch in the order in which they came to it."""
    with engine.reader() as session:
        return _dicts(session.execute(
            sa.select(*_SERVERS.c).where(_SERVERS.c.batch_id == batch_id).order_by(_SERVERS.c.id)))


@_write_retry
def add_servers(batch_id: str, rows: Iterable[Mapping],
                claims: Iterable[tuple[str, str]] = ()) -> None:
    """Add servers that were found on the host, with their claims, all or nothing.

    Servers and claims the batch has already stay as they are, so a repetition is harmless.
    Raises BatchConflict as create_batch does.
    """
    claims = list(claims)
    with _retry_after_duplicate(), engine.writer() as session:
        _refuse_foreign_claims(session, batch_id, claims)
        _insert_claims(session, batch_id, claims)
        _insert_servers(session, batch_id, rows)


@_write_retry
def update_server(batch_id: str, server_id: str, values: Mapping) -> None:
    """Change one server of a batch. Raises ServerNotFound when the batch has no such server."""
    changes = _known(_SERVERS, values)
    with engine.writer() as session:
        changed = session.execute(
            sa.update(_SERVERS)
            .where(_SERVERS.c.batch_id == batch_id, _SERVERS.c.server_id == server_id)
            .values(changes))
        if not changed.rowcount:
            raise exception.ServerNotFound(
                f"Batch migration {batch_id} has no server {server_id}.")


@_write_retry
def add_event(batch_id: str, kind: str, message: str, server_id: str | None = None,
              request_id: str | None = None) -> dict:
    """Record something that happened and return its row."""
    row = {"batch_id": batch_id, "created_at": timeutils.utcnow(), "kind": kind,
           "server_id": server_id, "message": message, "request_id": request_id}
    with engine.writer() as session:
        inserted = session.execute(sa.insert(_EVENTS).values(row))
        return {"id": inserted.inserted_primary_key.id} | row


@_read_retry
def events_of(batch_id: str, limit: int | None = None, marker: int | None = None) -> list[dict]:
    """Return the events of a batch in the order they happened, those after event ``marker``."""
    query = sa.select(*_EVENTS.c).where(_EVENTS.c.batch_id == batch_id).order_by(_EVENTS.c.id)
    if marker is not None:
        query = query.where(_EVENTS.c.id > int(marker))
    if limit is not None:
        query = query.limit(limit)
    with engine.reader() as session:
        return _dicts(session.execute(query))


@_write_retry
def finish_batch(batch_id: str, status: str, error: str | None, request_id: str | None) -> None:
    """End a batch, give back what it holds and record that, all or nothing; a repeat is harmless.

    Raises BatchNotFound.
    """
    now = timeutils.utcnow()
    with engine.writer() as session:
        session.execute(sa.delete(_CLAIMS).where(_CLAIMS.c.batch_id == batch_id))
        ended = session.execute(
            sa.update(_BATCHES)
            .where(_BATCHES.c.id == batch_id, _BATCHES.c.status.in_(ACTIVE_STATUSES))
            .values(status=status, error=error, finished_at=now, updated_at=now,
                    version=_BATCHES.c.version + 1))
        if ended.rowcount:
            session.execute(sa.insert(_EVENTS).values(
                batch_id=batch_id, created_at=now, kind="finished", server_id=None,
                message=error or status, request_id=request_id))
        elif not session.execute(
                sa.select(_BATCHES.c.id).where(_BATCHES.c.id == batch_id)).first():
            raise exception.BatchNotFound(batch_id=batch_id)


@_read_retry
def claims_of(resources: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return which batch holds each of the resources that are held: {(kind, id): batch id}."""
    with engine.reader() as session:
        return _holders(session, resources)


@_read_retry
def arriving(except_batch: str) -> dict[str, int]:
    """Return how many migrations of other active batches arrive at each host now."""
    with engine.reader() as session:
        rows = session.execute(
            sa.select(_SERVERS.c.destination, sa.func.count())
            .join(_BATCHES, _BATCHES.c.id == _SERVERS.c.batch_id)
            .where(_SERVERS.c.status == "migrating", _BATCHES.c.id != except_batch,
                   _BATCHES.c.status.in_(ACTIVE_STATUSES))
            .group_by(_SERVERS.c.destination))
        return dict(rows.tuples().all())


@_write_retry
def delete_batch(batch_id: str) -> None:
    """Remove a batch with all that belongs to it. Raises BatchNotFound.

    Whether its status allows that is the caller's to decide.
    """
    with engine.writer() as session:
        deleted = session.execute(sa.delete(_BATCHES).where(_BATCHES.c.id == batch_id))
        if not deleted.rowcount:
            raise exception.BatchNotFound(batch_id=batch_id)


@_write_retry
def purge(before: datetime.datetime) -> int:
    """Remove the batches that finished before a time (naive UTC); return how many they were."""
    with engine.writer() as session:
        purged = session.execute(sa.delete(_BATCHES).where(
            _BATCHES.c.status.in_(FINAL_STATUSES), _BATCHES.c.finished_at < before))
        return purged.rowcount


@_read_retry
def recent_migrations(limit: int, since: datetime.datetime) -> list[dict]:
    """Return the last migrations that completed since a moment, the latest last.

    Each with batch_id, source, destination, attempts, issued_at, finished_at, actual, and
    projection: that with which it was issued. Only of those that have all of these: we moved them.
    """
    columns = _SERVERS.c
    with engine.reader() as session:
        rows = session.execute(
            sa.select(columns.batch_id, columns.source, columns.destination, columns.attempts,
                      columns.issued_at, columns.finished_at, columns.actual,
                      columns.current_projection.label("projection"))
            .where(columns.status == "completed", columns.finished_at >= since,
                   columns.issued_at.is_not(None), columns.actual.is_not(None),
                   columns.current_projection.is_not(None))
            .order_by(columns.finished_at.desc(), columns.id.desc())
            .limit(limit))
        return [row for row in reversed(_dicts(rows)) if row["actual"] and row["projection"]]


def _batch_columns(heavy: bool) -> list[sa.Column]:
    return [column for column in _BATCHES.c if heavy or column.name not in HEAVY_COLUMNS]


def _dicts(result: sa.Result) -> list[dict]:
    return [dict(row) for row in result.mappings()]


def _known(table: sa.Table, values: Mapping) -> dict:
    """Return the values as a dict; a misspelt column is an error, not a lost change."""
    unknown = sorted(set(values) - set(table.c.keys()))
    if unknown:
        raise ValueError(f"{table.name} has no column {', '.join(unknown)}")
    return dict(values)


def _database_now(session) -> datetime.datetime:
    dialect = session.get_bind().dialect.name
    if dialect in ("mysql", "mariadb"):
        return session.scalar(sa.text("SELECT UTC_TIMESTAMP(6)"))
    if dialect == "postgresql":
        return session.scalar(sa.text("SELECT clock_timestamp() AT TIME ZONE 'UTC'"))
    return timeutils.utcnow()


@contextlib.contextmanager
def _retry_after_duplicate():
    """Turn a duplicate key into another try: its first statement then sees who was faster."""
    try:
        yield
    except db_exc.DBDuplicateEntry as error:
        raise db_exc.RetryRequest(error) from error


def _holders(session, resources: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    by_kind = collections.defaultdict(list)
    for kind, resource_id in resources:
        by_kind[kind].append(resource_id)
    holders = {}
    for kind, ids in by_kind.items():
        for start in range(0, len(ids), _CHUNK):
            some = ids[start:start + _CHUNK]
            rows = session.execute(sa.select(*_CLAIMS.c).where(
                _CLAIMS.c.resource_type == kind, _CLAIMS.c.resource_id.in_(some)))
            holders |= {(kind, row.resource_id): row.batch_id for row in rows}
    return holders


def _refuse_foreign_claims(session, batch_id: str, claims: list[tuple[str, str]]) -> None:
    for (kind, resource_id), holder in sorted(_holders(session, claims).items()):
        if holder != batch_id:
            raise exception.BatchConflict(
                reason=f"The {kind} {resource_id} is in batch migration {holder} already. Wait "
                       "for that one, or abort it with: openstack server batch migration abort "
                       f"{holder}")


def _insert_claims(session, batch_id: str, claims: list[tuple[str, str]]) -> None:
    own = _holders(session, claims)
    rows = [{"resource_type": kind, "resource_id": resource_id, "batch_id": batch_id}
            for kind, resource_id in dict.fromkeys(claims) if (kind, resource_id) not in own]
    if rows:
        session.execute(sa.insert(_CLAIMS), rows)


def _insert_hosts(session, batch_id: str, hosts: Iterable[str]) -> None:
    known = set(session.scalars(sa.select(_HOSTS.c.host).where(_HOSTS.c.batch_id == batch_id)))
    rows = [{"batch_id": batch_id, "host": host}
            for host in dict.fromkeys(hosts) if host not in known]
    if rows:
        session.execute(sa.insert(_HOSTS), rows)


def _insert_servers(session, batch_id: str, servers: Iterable[Mapping]) -> None:
    known = set(session.scalars(
        sa.select(_SERVERS.c.server_id).where(_SERVERS.c.batch_id == batch_id)))
    empty = {column.name: None for column in _SERVERS.c if column.name != "id"} | {
        "batch_id": batch_id, "status": "pending", "known_migrations": [], "attempts": 0,
        "healed": False}
    rows = [empty | _known(_SERVERS, server) for server in servers
            if server["server_id"] not in known]
    if rows:
        session.execute(sa.insert(_SERVERS), rows)
        _insert_hosts(session, batch_id, (row["source"] for row in rows if row["source"]))
