"""``openstack server batch migration start | pause | resume | abort | replan``."""

import argparse

from nova_batch_migrate.osc.v1 import base
from nova_batch_migrate.sdk.batch_migration import BatchMigration


class _Action(base.ShowBatch):
    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the argument every action has."""
        parser = super().get_parser(prog_name)
        base.add_batch_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Do it and return the batch as the API answers it."""
        return self.shown(parsed_args, self.act(base.named(parsed_args.batch), parsed_args))

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Ask the API for the action."""
        raise NotImplementedError


class _MovingAction(_Action):
    """An action after which servers move, so that one may want to watch."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --wait."""
        parser = super().get_parser(prog_name)
        base.add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Do it and return the batch; with --wait as it is at its end."""
        batch = self.act(base.named(parsed_args.batch), parsed_args)
        if parsed_args.wait:
            batch = self.follow(parsed_args, batch, started=True)
        return self.shown(parsed_args, batch)


class StartBatchMigration(_MovingAction):
    """Start a batch migration that was only planned"""

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Start it."""
        return batch.start(self.client)


class PauseBatchMigration(_Action):
    """Begin no further migrations until resume; those under way go on"""

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Pause it."""
        return batch.pause(self.client)


class ResumeBatchMigration(_MovingAction):
    """Take up a paused batch migration again"""

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Resume it."""
        return batch.resume(self.client)


class AbortBatchMigration(_Action):
    """End a batch migration; what has not moved stays where it is"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe what becomes of migrations under way."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--running", choices=("finish", "abort"), default="finish",
            help="What becomes of migrations under way (default: finish)",
        )
        parser.add_argument(
            "--wait", action="store_true",
            help="Show what is still going on until the batch migration has ended",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Abort it and return the batch; with --wait as it is at its end."""
        batch = self.act(base.named(parsed_args.batch), parsed_args)
        if parsed_args.wait:
            batch = self.watch_end(parsed_args, batch)
        return self.shown(parsed_args, batch)

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Abort it."""
        return batch.abort(self.client, running=parsed_args.running)


class ReplanBatchMigration(_Action):
    """Measure and plan again what has not moved yet"""

    def act(self, batch: BatchMigration, parsed_args: argparse.Namespace) -> BatchMigration:
        """Plan it again."""
        return batch.replan(self.client)
