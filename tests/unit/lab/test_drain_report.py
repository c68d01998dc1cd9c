import dataclasses
import pathlib
import sys

import fixtures
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import drain_report  # noqa: E402
from nbmlab.check import GuestVerdict  # noqa: E402
from nbmlab.guests import Guest  # noqa: E402

WELL = GuestVerdict(True, True, "")
FAST = Guest("s1", "demo-writer-fast", "writer-fast", "cmpa", "ACTIVE", False, 192)
WEB = Guest("s2", "demo-web", "web", "cmpa", "ACTIVE", False, 128)
LOCKED = Guest("s3", "demo-cache", "cache", "cmpa", "ACTIVE", True, 128)
BEFORE = (FAST, WEB, LOCKED)
AFTER = [dataclasses.replace(FAST, host="cmpb"), dataclasses.replace(WEB, host="cmpb"), LOCKED]


def moved(guest, **fields):
    return {
        "id": guest.id, "name": guest.name, "status": "completed", "reason": None,
        "source": "cmpa", "destination": "cmpb", "projected_seconds": 22.0, "actual_seconds": 20.0,
        "actual_stream_seconds": 16.5, "projected_bytes": 2 ** 20, "raw_bytes": 2 ** 21,
        "wire_bytes": 2 ** 21, "downtime_seconds": 0.05, **fields,
    }


def stayed(guest, **fields):
    return moved(guest, status="skipped", reason="it is locked", destination=None,
                 actual_seconds=None, actual_stream_seconds=None, **fields)


class DrainReportTest(base.BaseTestCase):
    def problems(self, fast=None, verdicts=None, after=AFTER, status="partial",
                 service="disabled", servers=None):
        """Return what is wrong with a drain that is fine but for what is given."""
        self.useFixture(fixtures.MonkeyPatch("nbmlab.guests.listed", lambda: after))
        self.useFixture(fixtures.MonkeyPatch("nbmlab.drain.compute_services", lambda: [
            {"host": "cmpa", "status": service}, {"host": "cmpb", "status": "enabled"}]))
        batch = {"status": status, "servers": servers if servers is not None else [
            fast or moved(FAST), moved(WEB), stayed(LOCKED)]}
        told = drain_report.report(
            batch, BEFORE, {guest.id: WELL for guest in BEFORE} | (verdicts or {}))
        return drain_report.problems(told, BEFORE)

    def test_a_drain_as_it_should_be(self):
        self.assertEqual([], self.problems())

    def test_whatever_is_not_so_is_named(self):
        for wanted, given in (
            ("demo-writer-fast: not moved: failed (No valid host)",
             {"fast": moved(FAST, status="failed", reason="No valid host")}),
            ("demo-writer-fast: projected_seconds is missing",
             {"fast": moved(FAST, projected_seconds=None)}),
            ("demo-writer-fast: downtime_seconds is missing",
             {"fast": moved(FAST, downtime_seconds=None)}),
            ("demo-writer-fast: its stream took 9.9 s, not 10 or more",
             {"fast": moved(FAST, actual_stream_seconds=9.9)}),
            ("demo-writer-fast: to go to cmpb, but Nova says: ACTIVE on cmpa",
             {"after": [FAST, *AFTER[1:]]}),
            ("demo-writer-fast: to go to cmpb, but Nova says: there is no such server",
             {"after": AFTER[1:]}),
            ("demo-web: the guest does not go on living",
             {"verdicts": {"s2": GuestVerdict(False, True, "")}}),
            ("demo-cache: the guest's memory is not shown to be whole",
             {"verdicts": {"s3": GuestVerdict(True, False, "")}}),
            ("demo-cache: locked, but Nova says: ACTIVE on cmpb",
             {"after": [*AFTER[:2], dataclasses.replace(LOCKED, host="cmpb")]}),
            ("demo-cache: locked, but the batch calls it completed (None)",
             {"servers": [moved(FAST), moved(WEB), moved(LOCKED)]}),
            ("the batch migration is aborted, not partial", {"status": "aborted"}),
            ("nova-compute of cmpa is enabled", {"service": "enabled"}),
        ):
            self.assertIn(wanted, self.problems(**given))

    def test_a_server_the_batch_does_not_know_is_not_moved(self):
        found = self.problems(servers=[moved(WEB), stayed(LOCKED)])

        self.assertIn("demo-writer-fast: not moved: None (None)", found)

    def test_the_report_has_the_agreed_fields_alone(self):
        told = drain_report.report(
            {"servers": [moved(FAST)]}, [FAST], {"s1": GuestVerdict(True, False, "")})

        self.assertEqual({
            "id": "s1", "name": "demo-writer-fast", "family": "writer-fast",
            "status": "completed", "reason": None, "source": "cmpa", "destination": "cmpb",
            "projected_seconds": 22.0, "actual_seconds": 20.0, "projected_bytes": 2 ** 20,
            "raw_bytes": 2 ** 21, "wire_bytes": 2 ** 21, "downtime_seconds": 0.05,
            "guest_alive": True, "guest_memory_intact": False,
        }, told["servers"][0])

    def test_the_table_counts_errors_of_writing_guests_only(self):
        told = drain_report.report(
            {"servers": [moved(FAST), moved(WEB, actual_seconds=2.0), stayed(LOCKED)]},
            BEFORE, {guest.id: WELL for guest in BEFORE})

        lines = drain_report.lines(told)

        self.assertIn("+10.0 %", lines[1])
        self.assertIn("demo-cache stayed: it is locked", lines)
        self.assertEqual(
            "projected beside actual seconds, 1 writing guests: 10.0 % at the median", lines[-1])
