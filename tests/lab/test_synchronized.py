"""Two guests with an open TCP session on the real cloud move together, and the session lives.

Run by tools/test lab on a lab that is up with its relays; all guests that it finds are deleted
first. The session goes over the lab's guest network; both ends check every record (talk.c).
"""
import time

from tests.lab import base

from nbmlab import check, guests, layout, shell  # noqa: E402, isort: skip
from nbmlab.families import FAMILIES  # noqa: E402, isort: skip

TALK_SECONDS = 60


class TogetherTestCase(base.LabTestCase):
    """Two guests that talk to each other."""

    MEMBERS = (guests.Wanted("quick-talker", "together-a"),
               guests.Wanted("quick-talker", "together-b"))
    RELAYS = True
    LINK_MIB_PER_SECOND = 20.0

    def setUp(self):
        super().setUp()
        shell.wait_for("a session of both guests", TALK_SECONDS, lambda: all(
            talk and talk.got for talk in self.talks().values()))
        self.before = self.talks()

    def talks(self) -> dict[str, check.Talk | None]:
        """Return by server how the sessions are of those that talk."""
        return {self.ids[each.name]: check.last_talk(self.ids[each.name])
                for each in self.MEMBERS if FAMILIES[each.family].talks}

    @property
    def members(self) -> list[str]:
        return sorted(self.ids.values())

    def assert_session_alive(self):
        """The session of before goes on, in both directions, with every record as it was sent."""
        def gone_on():
            now = self.talks()
            return all(talk and talk.got > self.before[server_id].got + 40
                       for server_id, talk in now.items())
        shell.wait_for("more records on both sides", TALK_SECONDS, gone_on)
        here = self.talks()
        time.sleep(3)
        for server_id, talk in self.talks().items():
            before = self.before[server_id]
            self.assertEqual((before.session, before.sessions, 0),
                             (talk.session, talk.sessions, talk.bad), (before, talk))
            self.assertGreater(talk.got, here[server_id].got)
            self.assertGreater(talk.sent, here[server_id].sent)


class SynchronizedTestCase(TogetherTestCase):
    def test_a_session_between_both_survives(self):
        logs = [layout.LOG / f"batch-relay-{name}.log" for name in ("cmpa", "cmpb")]
        before = [len(path.read_text()) for path in logs]
        servers = self.all_moved(self.begin("--together", ",".join(self.members)))
        for server in servers.values():
            self.assertEqual(1, server["attempts"], server)
        told = "".join(path.read_text()[size:] for path, size in zip(logs, before, strict=True))
        self.assertEqual(2, told.count("was held running"), told)
        # neither guest stood still before the other was about to
        self.assertNotIn("before the others were there", told)
        self.assert_session_alive()
        for talk in self.talks().values():
            self.assertLess(talk.gap_seconds, 5, talk)
