"""Drains of the real cloud in a row: what the finished migrations teach about the next ones.

Takes some four minutes, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.learned``. All guests that it finds are deleted first.
"""
import math
import statistics

from nova_batch_migrate.planning import learning
from tests.lab import base

from nbmlab import drain, guests, shell  # noqa: E402, isort: skip

DRAINS = 4
#: As projected at first, with what was learned of streams, and what of it is Nova's own.
KINDS = {"whole": ("projected_seconds", "actual_seconds"),
         "learned": ("learned_seconds", "actual_seconds"),
         "nova": ("projected_nova_seconds", "actual_nova_seconds"),
         "wire": ("projected_wire_bytes", "wire_bytes"),
         "learned wire": ("learned_wire_bytes", "wire_bytes")}


class LearnedTestCase(base.LabTestCase):

    MEMBERS = (guests.Wanted("web", "learned-web"), guests.Wanted("writer-slow", "learned-slow"),
               guests.Wanted("writer-mid", "learned-mid"),
               guests.Wanted("writer-text", "learned-text"))
    RELAYS = True

    def drained(self) -> list[dict]:
        """Empty the host that the guests are on; return its servers. The other one is next."""
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        batch_id = self.begin()
        self.all_moved(batch_id)
        self.source, self.destination = self.destination, self.source
        return drain.batch(batch_id)["servers"]

    def test_what_finished_migrations_teach_is_nearer_to_what_happens(self):
        off: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for number in range(DRAINS):
            servers = self.drained()
            if number:
                # of the drain before there are enough
                self.assertGreaterEqual(len(servers), learning.LEAST_MIGRATIONS)
            for kind, (told, happened) in KINDS.items():
                if number or not kind.startswith("learned"):
                    off[kind].append(statistics.median(
                        math.log(each[told] / each[happened]) for each in servers))
            for each in servers:
                # the stream's projection is as it was made; what was learned stands beside it
                self.assertEqual(each["projected_seconds"], each["current_projected_seconds"])
        for kind, found in off.items():
            shell.say(f"{kind}: off by " + ", ".join(
                f"{100 * (math.exp(value) - 1):+.0f} %" for value in found))
        # the last projection knows three drains of the same guests, the first none
        self.assertLess(abs(off["nova"][-1]), max(0.1, abs(off["nova"][0])))
        self.assertLess(*(statistics.fmean(abs(value) for value in found) for found in (
            off["learned wire"], off["wire"][1:])))
