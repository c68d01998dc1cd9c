"""Two drains of the same guests of the real cloud: what the first teaches stands in the second.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first. How near it
comes to what happens is told by tests.lab.learned, which takes longer.
"""
import math
import statistics

from tests.lab import base, test_drain

from nbmlab import drain, shell  # noqa: E402, isort: skip

#: Of logarithms: what was off by less teaches little; so little moves what is known all the same,
#: because the latest migrations are others, and all are older.
_CLEAR, _LITTLE = 0.15, 0.1


class LearningTestCase(base.LabTestCase):

    MEMBERS = test_drain.DrainTestCase.MEMBERS
    LINK_MIB_PER_SECOND = 20.0

    def pace(self, batch: dict) -> float:
        """Return Nova's seconds for each of three migrations at once, as the plan took them."""
        request = self.admin.get("nova-api", f"{drain.BATCHES}/{batch['id']}/plan"
                                 )["plan"]["request"]
        learned = request["learned_nova"]
        seconds, sharing = (learned["seconds"], learned["sharing"]) if learned else (
            request["nova_seconds"], request["nova_sharing"])
        return seconds * (1 + 2 * sharing)

    def test_a_drain_teaches_the_next_and_its_own_projection_stays(self):
        first, second = self.drained(), self.drained()
        longer = statistics.median(math.log(
            server["actual_nova_seconds"] / server["projected_nova_seconds"])
            for server in first["servers"])
        moved = math.log(self.pace(second) / self.pace(first))
        shell.say(f"Nova's own part was {100 * (math.exp(longer) - 1):+.0f} % off what was "
                  f"projected; the next drain's plan has {100 * (math.exp(moved) - 1):+.0f} %")
        self.assertLess(-_LITTLE, moved * math.copysign(1.0, longer))
        self.assertLess(abs(moved), abs(longer) + _LITTLE)
        if abs(longer) > _CLEAR:
            self.assertGreater(moved * longer, 0.0)
        for server in second["servers"]:
            low, high = server["learned_interval_seconds"]
            self.assertTrue(low < server["learned_seconds"] < high, server)
            # of the streams; only what relays carry has bytes that could be learned
            self.assertEqual(server["relay"] is not None,
                             server["learned_wire_bytes"] is not None, server)
            self.assertEqual(server["projected_seconds"], server["current_projected_seconds"])
        for server, since in zip(first["servers"], drain.batch(first["id"])["servers"],
                                 strict=True):
            for field in ("projected_seconds", "projected_stream_seconds", "learned_seconds",
                          "projected_wire_bytes", "projected_interval_seconds"):
                self.assertEqual(server[field], since[field], field)
