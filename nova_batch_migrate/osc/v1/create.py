"""``openstack server batch-migrate``: empty hosts, or move servers, in one operation."""

import argparse
import datetime
from typing import Any

from nova_batch_migrate.osc import tables, wait
from nova_batch_migrate.osc.v1 import base
from nova_batch_migrate.sdk.batch_migration import BatchMigration


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value} is not 1 or more")
    return number


def _moment(value: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{value} is no time; use for instance 2026-11-23T22:00 (local time) or "
            "2026-11-23T22:00+00:00"
        ) from error
    # A time without a zone is the operator's own.
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class BatchMigrate(base.ShowBatch):
    """Move all servers of some hosts, or some servers, to other hosts while they run

    Measures every server, plans groups, order and times, then migrates by the plan. What cannot
    move is named before anything moves, with the reason and the command that would move it.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the options; none means what the API does by default."""
        parser = super().get_parser(prog_name)
        subject = parser.add_mutually_exclusive_group(required=True)
        subject.add_argument(
            "--host", dest="hosts", metavar="<host>", action="append",
            help="Compute host to empty (repeat option for several hosts)",
        )
        subject.add_argument(
            "--server", dest="servers", metavar="<server>", action="append",
            help="Server to move, name or ID (repeat option for several servers)",
        )
        parser.add_argument(
            "--target-host", dest="target_hosts", metavar="<host>", action="append",
            help="Host that servers may go to (repeat option; default: any other host)",
        )
        parser.add_argument(
            "--exclude-host", dest="exclude_hosts", metavar="<host>", action="append",
            help="Host that no server may go to (repeat option)",
        )
        parser.add_argument(
            "--strategy", choices=("group", "pair", "none"),
            help="How servers are grouped by the memory they have in common (default: group)",
        )
        parser.add_argument(
            "--dedup-scope", choices=("project", "host", "off"),
            help="Between which servers identical memory may be sent once (default: project)",
        )
        parser.add_argument(
            "--fallback", choices=("plain", "refuse"),
            help="What becomes of a server that relays were to carry and could not: it goes "
                 "without them (default), or it stays",
        )
        parser.add_argument(
            "--max-parallel", metavar="<number>", type=_positive,
            help="Migrations under way at once from one host (default: as the plan finds best)",
        )
        parser.add_argument(
            "--max-bandwidth", dest="max_bandwidth_mib_s", metavar="<MiB/s>", type=_positive,
            help="Upper limit of the whole batch on the wire",
        )
        parser.add_argument(
            "--on-non-convergence", choices=("skip", "pause", "post-copy", "auto-converge"),
            help="What becomes of a server whose migration would not converge: it stays (default), "
            "or Nova pauses it or uses post-copy once its memory has crossed, where the options of "
            "its host permit that",
        )
        parser.add_argument(
            "--together", dest="synchronized", metavar="<server,server...|server-groups>",
            action="append",
            help="Servers that move together, names or IDs (repeat option for several sets), or "
            "the word server-groups; needs a relay on every host",
        )
        parser.add_argument(
            "--include-locked", action="store_true", default=None, help="Move locked servers too",
        )
        afterwards = parser.add_mutually_exclusive_group()
        afterwards.add_argument(
            "--leave-disabled", dest="leave_disabled", action="store_true", default=None,
            help="Leave the emptied host's compute service disabled (default)",
        )
        afterwards.add_argument(
            "--enable-after", dest="leave_disabled", action="store_false", default=None,
            help="Enable the emptied host's compute service again",
        )
        parser.add_argument(
            "--not-before", metavar="<time>", type=_moment,
            help="Earliest start, ISO 8601, local time unless it names a zone",
        )
        parser.add_argument(
            "--deadline", metavar="<time>", type=_moment,
            help="When it should be done, ISO 8601 as --not-before; the plan says whether it can",
        )
        parser.add_argument(
            "--max-wait", dest="max_wait_seconds", metavar="<seconds>", type=_positive,
            help="How long a server whose memory is written in a rhythm may wait for its quiet "
                 "moment when its turn has come (default: not at all)",
        )
        parser.add_argument(
            "--urgent", action="store_true", default=None,
            help="Start at once on the last hour's history of each server instead of measuring "
                 "first, as from a host that is about to fail; the rest is measured meanwhile",
        )
        parser.add_argument(
            "--plan-only", action="store_true", default=None,
            help="Measure, show the plan and stop there; 'server batch migration start' runs it",
        )
        base.add_wait_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Send the request; then show the plan (--plan-only) or all of it (--wait)."""
        batch = BatchMigration.new(**_asked(parsed_args)).create(self.client)
        if parsed_args.plan_only:
            return self._plan_only(parsed_args, batch)
        if parsed_args.wait:
            batch = self.follow(parsed_args, batch)
        return self.shown(parsed_args, batch)

    def _plan_only(
        self, parsed_args: argparse.Namespace, batch: BatchMigration
    ) -> tuple[tuple, tuple]:
        watch = self.watch(parsed_args)
        try:
            batch = watch.until(batch, wait.PLANNED)
            plan = watch.plan(batch, whole=parsed_args.formatter != "table")
        except KeyboardInterrupt:
            self.say(parsed_args, [
                "", "Stopped watching. The plan is still being made; see it with:",
                f"  openstack server batch migration plan {batch.id}",
            ])
            self.exit_status = 1
            return self.shown(parsed_args, batch)
        if batch.status in ("failed", "aborted"):
            self.exit_status = 1
        if plan is not None:
            self.say(parsed_args, ["", *tables.plan_lines(plan)])
        if batch.status == "planned":
            self.say(parsed_args, base.how_to_run(batch.id))
        return self.shown(parsed_args, batch, plan=plan)


def _asked(parsed_args: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the request that the operator set."""
    fields = (
        "hosts", "servers", "target_hosts", "exclude_hosts", "strategy", "dedup_scope",
        "fallback", "max_parallel", "max_bandwidth_mib_s", "on_non_convergence", "include_locked",
        "leave_disabled", "not_before", "deadline", "max_wait_seconds", "urgent", "plan_only",
    )
    asked = {field: getattr(parsed_args, field) for field in fields}
    together = parsed_args.synchronized
    if together:
        asked["synchronized"] = "server-groups" if together == ["server-groups"] else [
            names.split(",") for names in together]
    return {field: value for field, value in asked.items() if value is not None}
