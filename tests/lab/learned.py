"""Drains of the real cloud in a row: what the finished migrations teach about the next ones.

Takes some five minutes, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.learned``. All guests that it finds are deleted first.
"""
import math
import statistics

from tests.lab import base

from nbmlab import guests, shell  # noqa: E402, isort: skip

DRAINS = 4
KINDS = {"projected": ("projected_seconds", "actual_seconds"),
         "learned": ("learned_seconds", "actual_seconds"),
         "Nova's own": ("projected_nova_seconds", "actual_nova_seconds")}
BYTES = {"projected bytes": "projected_wire_bytes", "learned bytes": "learned_wire_bytes"}


class LearnedTestCase(base.LabTestCase):

    MEMBERS = (guests.Wanted("web", "learned-web"), guests.Wanted("writer-slow", "learned-slow"),
               guests.Wanted("writer-mid", "learned-mid"),
               guests.Wanted("writer-text", "learned-text"))
    RELAYS = True

    @staticmethod
    def off(servers: list[dict]) -> dict[str, float]:
        """Return by how much figures were off: the logarithm of told by happened.

        Of seconds the median of the servers, of bytes their sum: who brings common content, and who
        refers to it, is chance.
        """
        return {kind: statistics.median(math.log(each[told] / each[happened]) for each in servers)
                for kind, (told, happened) in KINDS.items()} | {
                    kind: math.log(sum(each[told] for each in servers)
                                   / sum(each["wire_bytes"] for each in servers))
                    for kind, told in BYTES.items()}

    def test_what_finished_migrations_teach_is_nearer_to_what_happens(self):
        # the first tells what streams take beside their link, the second is projected with that
        for _ in range(2):
            self.drained()
        found = [self.off(self.drained()["servers"]) for _ in range(1, DRAINS)]
        for kind in found[0]:
            shell.say(f"{kind}: off by " + ", ".join(
                f"{100 * (math.exp(off[kind]) - 1):+.0f} %" for off in found))
        # of the same drains: one drain is quicker than the next for reasons of its own
        learned, projected = (statistics.fmean(abs(off[kind]) for off in found)
                              for kind in ("learned", "projected"))
        self.assertLess(learned, projected)
