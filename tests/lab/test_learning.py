"""Two drains of the same guests of the real cloud: what the first teaches stands in the second.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first. How near it
comes to what happens is told by tests.lab.learned, which takes longer.
"""
import math
import statistics

from tests.lab import base

from nbmlab import drain, guests, shell  # noqa: E402, isort: skip

#: Of a logarithm: another drain's lessons may be lost from the latest, the others are older now.
_SLACK = 0.05


class LearningTestCase(base.LabTestCase):

    MEMBERS = (guests.Wanted("web", "lab-web1"), guests.Wanted("writer-slow", "lab-slow"),
               guests.Wanted("writer-mid", "lab-mid"))
    LINK_MIB_PER_SECOND = 20.0

    def drained(self) -> dict:
        """Empty the host that the guests are on; return the batch. The other one is next."""
        for service in drain.compute_services():
            self.admin.call("nova-api", "PUT", f"/os-services/{service['id']}",
                            {"status": "enabled"})
        batch_id = self.begin()
        self.all_moved(batch_id)
        self.source, self.destination = self.destination, self.source
        return drain.batch(batch_id)

    @staticmethod
    def median(batch: dict, field: str) -> float:
        return statistics.median(server[field] for server in batch["servers"])

    def test_a_drain_teaches_the_next_and_its_own_projection_stays(self):
        first, second = self.drained(), self.drained()
        told, happened, told_next = (
            self.median(batch, field) for batch, field in (
                (first, "projected_nova_seconds"), (first, "actual_nova_seconds"),
                (second, "projected_nova_seconds")))
        shell.say(f"Nova's own seconds: projected {told:.1f}, took {happened:.1f}; of the next "
                  f"drain projected {told_next:.1f}, took "
                  f"{self.median(second, 'actual_nova_seconds'):.1f}")
        self.assertLess(abs(math.log(told_next / happened)),
                        abs(math.log(told / happened)) + _SLACK)
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
