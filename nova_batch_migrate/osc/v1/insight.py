"""``openstack server batch migration plan | commonality | events``: what it knows and did."""

import argparse
from typing import Any

from osc_lib.command import command

from nova_batch_migrate.osc import tables
from nova_batch_migrate.osc.v1 import base

_EVENT = ("id", "created_at", "kind", "server_id", "message", "request_id")


class ShowPlan(base.ShowBatch):
    """Show the plan: groups, order, projected times, who stays and why

    The json and yaml formats also hold the telemetry that the plan was computed from.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the arguments."""
        parser = super().get_parser(prog_name)
        base.add_batch_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Return the plan."""
        plan = base.named(parsed_args.batch).fetch_plan(self.client)
        if parsed_args.formatter != "table":
            return _all_of(plan)
        self.say(parsed_args, tables.plan_lines(plan))
        return _some_of(plan, ("strategy", "projected_seconds", "raw_bytes", "wire_bytes"))


class ShowCommonality(base.ShowBatch):
    """Show how much memory servers have in common, for each pair"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the arguments."""
        parser = super().get_parser(prog_name)
        base.add_batch_argument(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, tuple]:
        """Return the chart of FIG. 3."""
        chart = base.named(parsed_args.batch).fetch_commonality(self.client)
        if parsed_args.formatter != "table":
            return _all_of(chart)
        self.say(parsed_args, tables.commonality_lines(chart))
        return _some_of(chart, ("exact", "background_bytes", "confirmation"))


class ListEvents(base.ApiCommand, command.Lister):
    """List what happened in a batch migration"""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Describe the arguments."""
        parser = super().get_parser(prog_name)
        base.add_batch_argument(parser)
        parser.add_argument(
            "--limit", metavar="<limit>", type=int, help="Return at most this many"
        )
        parser.add_argument("--marker", metavar="<event>", help="Begin behind this event (ID)")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[tuple, list]:
        """Return a row per event, oldest first."""
        query = {} if parsed_args.marker is None else {"marker": parsed_args.marker}
        events = base.named(parsed_args.batch).events(
            self.client, max_items=parsed_args.limit, **query
        )
        return _EVENT, [
            [base.cell(getattr(event, field), parsed_args) for field in _EVENT]
            for event in events
        ]


def _all_of(known: dict[str, Any]) -> tuple[tuple, tuple]:
    return tuple(known), tuple(known.values())


def _some_of(known: dict[str, Any], fields: tuple[str, ...]) -> tuple[tuple, tuple]:
    return fields, tuple(base.brief(known[field]) for field in fields)
