"""Two drains of the same guests of the real cloud: what the first teaches stands in the second.

The first one is urgent: it begins by what is known, and moves all.

Run by tools/test lab on a lab that is up; all guests that it finds are deleted first. How near it
comes to what happens is told by tests.lab.learned, which takes longer.
"""
import datetime
import math

from tests.lab import base, test_drain

from nbmlab import drain, shell  # noqa: E402, isort: skip

#: Of logarithms. So little moves what is known in any case: the latest migrations are others, and
#: all are older.
_LITTLE = 0.1


class LearningTestCase(base.LabTestCase):

    MEMBERS = test_drain.DrainTestCase.MEMBERS
    LINK_MIB_PER_SECOND = 20.0

    def learned(self, batch: dict) -> dict | None:
        """Return what the batch's plan knew of Nova's own part."""
        return drain.plan(batch["id"])["request"]["learned_nova"]

    def assert_urgent(self, batch: dict) -> None:
        """The batch's servers have not been measured first, and are all in its plan."""
        told = {event["kind"]: event for event in reversed(drain.events(batch["id"]))}
        self.assertIn("unmeasured (urgent)", told["measured"]["message"])
        asked, issued = (datetime.datetime.fromisoformat(moment) for moment in (
            batch["created_at"], told["issued"]["created_at"]))
        seconds = (issued - asked).total_seconds()
        shell.say(f"the first migration was asked for {seconds:.1f} s after the batch")
        self.assertEqual(set(self.ids.values()), {
            member["server_id"] for group in drain.plan(batch["id"])["groups"]
            for member in group["members"]})

    @staticmethod
    def seconds(learned: dict) -> float:
        """Return Nova's seconds for each of three migrations at once."""
        return learned["seconds"] * (1 + 2 * learned["sharing"])

    def test_a_drain_teaches_the_next_and_its_own_projection_stays(self):
        first = self.drained("--urgent")
        self.assert_urgent(first)
        second = self.drained()
        before, known = self.learned(first), self.learned(second)
        self.assertGreaterEqual(known["migrations"], len(first["servers"]))
        if before is not None:
            longer = [math.log(server["actual_nova_seconds"] / server["projected_nova_seconds"])
                      for server in first["servers"]]
            moved = math.log(self.seconds(known) / self.seconds(before))
            shell.say("Nova's own part was " + ", ".join(
                f"{100 * (math.exp(off) - 1):+.0f} %" for off in longer) + " off what was "
                f"projected; the next drain's plan has {100 * (math.exp(moved) - 1):+.0f} %")
            # not against what was seen, nor further than that
            self.assertLess(min(0.0, *longer) - _LITTLE, moved)
            self.assertLess(moved, max(0.0, *longer) + _LITTLE)
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
