"""``openstack server batch migration list | show | delete``."""

import argparse

from openstack import exceptions as sdk_exceptions
from osc_lib import exceptions
from osc_lib.command import command

from nova_batch_migrate.osc import tables, text, wait
from nova_batch_migrate.osc.v1 import base
from nova_batch_migrate.sdk.batch_migration import BatchMigration

_LISTED = (
    "id", "status", "hosts", "servers_requested", "created_at", "started_at", "finished_at",
)


class ListBatchMigration(base.ApiCommand, command.Lister):
    """List batch migrations, newest first"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the filters."""
        parser = super().get_parser(prog_name)
        parser.add_argument("--status", metavar="<status>", help="Only those with this status")
        parser.add_argument("--host", metavar="<host>", help="Only those that empty this host")
        parser.add_argument(
            "--limit", metavar="<limit>", type=int, help="Return at most this many"
        )
        parser.add_argument(
            "--marker", metavar="<batch>", help="Begin behind this batch migration (ID)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, list]:
        """Return a row per batch migration."""
        query = {
            key: getattr(parsed_args, key)
            for key in ("status", "host", "marker")
            if getattr(parsed_args, key) is not None
        }
        batches = BatchMigration.list(self.client, max_items=parsed_args.limit, **query)
        rows = []
        for batch in batches:
            row = [getattr(batch, field) for field in _LISTED]
            if parsed_args.formatter == "table":
                row = [base.brief(value) for value in row]
            rows.append([base.cell(value, parsed_args) for value in row])
        return _LISTED, rows


class ShowBatchMigration(base.ShowBatch):
    """Show a batch migration with all its servers"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the arguments."""
        parser = super().get_parser(prog_name)
        base.add_batch_argument(parser)
        base.add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Return the batch; with --wait follow it first, unless only a plan was asked for."""
        batch = base.named(parsed_args.batch).fetch(self.client)
        if parsed_args.wait and batch.status not in wait.FINAL:
            batch = self.follow(parsed_args, batch)
        elif parsed_args.formatter == "table":
            self.say(parsed_args, tables.report_lines(batch))
        return self.shown(parsed_args, batch)


class DeleteBatchMigration(base.ApiCommand):
    """Delete batch migrations that are not active"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the arguments."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "batches", metavar="<batch>", nargs="+", help="Batch migration(s) to delete (ID)"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Try each one; fail at the end if one of them could not be deleted."""
        failures = 0
        for batch_id in parsed_args.batches:
            try:
                base.named(batch_id).delete(self.client)
            except sdk_exceptions.HttpException as error:
                failures += 1
                self.log.error(
                    "Batch migration %s was not deleted: %s",
                    text.escape(batch_id), base.refusal(error),
                )
        if failures:
            raise exceptions.CommandError(
                f"{failures} of {len(parsed_args.batches)} batch migrations were not deleted."
            )
