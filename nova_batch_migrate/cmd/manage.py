"""nova-batch-manage: an operator's tool for the database; works without a running conductor.

    nova-batch-manage db sync                   create or upgrade the tables
    nova-batch-manage db version                print the revision the tables are at
    nova-batch-manage db purge --before DATE    remove batches that finished before (UTC)
"""

import argparse
import datetime
import sys

from oslo_db import exception as db_exc
from oslo_log import log
from oslo_utils import timeutils
from sqlalchemy import exc as sa_exc

from nova_batch_migrate import conf
from nova_batch_migrate.db import api, migration


def sync(_arguments) -> None:
    """Bring the tables to what this version needs."""
    migration.upgrade()
    print(f"The database is at revision {migration.version()}.")


def print_version(_arguments) -> None:
    """Print the revision of the tables, and what this version of the code needs."""
    print(f"{migration.version() or 'none'} (needed: {migration.head()})")


def purge(arguments) -> None:
    """Remove the batches that finished before a time."""
    print(f"{api.purge(arguments.before)} batch migrations removed.")


def utc_time(text: str) -> datetime.datetime:
    """Return an ISO 8601 date or time as naive UTC; without a zone it is UTC already."""
    try:
        return timeutils.normalize_time(datetime.datetime.fromisoformat(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no date; write 2026-11-30 or 2026-11-30T12:00:00Z") from error


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="nova-batch-manage", description=__doc__.split("\n")[0])
    top.add_argument("--config-file", action="append", default=[], metavar="PATH",
                     help=f"default: {conf.DEFAULT_FILE}; later files win")
    top.add_argument("--debug", action="store_true", help="log what is done")
    subjects = top.add_subparsers(required=True, metavar="db", title="subjects")
    verbs = subjects.add_parser("db", help="the database").add_subparsers(
        required=True, title="commands")
    for name, function in (("sync", sync), ("version", print_version), ("purge", purge)):
        verb = verbs.add_parser(name, help=function.__doc__.split(".")[0])
        verb.set_defaults(function=function)
        if function is purge:
            verb.add_argument("--before", required=True, type=utc_time, metavar="DATE",
                              help="ISO 8601, UTC unless it names a zone")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit status."""
    arguments = parser().parse_args(sys.argv[1:] if argv is None else argv)
    conf.parse(conf.CONF, ["--debug"] if arguments.debug else [], arguments.config_file or None)
    log.setup(conf.CONF, "nova-batch-manage")
    try:
        arguments.function(arguments)
    except (db_exc.DBError, sa_exc.SQLAlchemyError, OSError) as error:
        print(f"The database did not do it: {error}\nCheck [database] connection, and that "
              "'nova-batch-manage db sync' has been run.", file=sys.stderr)
        return 1
    return 0
