"""One batch with guests of two projects on the real cloud, and streams that its relay splices.

What projects have in common crosses once for each of them; who is nobody's, and who goes the plain
way after all, passes by the dictionaries of a group that is open.

Takes some three minutes, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.projects``. All guests that it finds are deleted first.
"""
import signal

from tests.lab import relays

from nbmlab import guests  # noqa: E402, isort: skip

#: Of a guest's stream: much of what alike guests have in common.
_MUCH = 0.5
_SLOW_LINK_MIB_PER_SECOND = 5.0


class ProjectsTest(relays.RelayTestCase):

    MEMBERS = tuple(guests.Wanted("quick-web", f"{project}-{number}", project=project)
                    for project in ("admin", "demo") for number in (1, 2))

    def test_what_projects_have_in_common_crosses_once_for_each(self):
        batch_id = self.request(dedup_scope="project")
        servers = self.finished(batch_id)
        self.assertEqual(2, len({server["project_id"] for server in servers.values()}))
        for project in ("admin", "demo"):
            first, second = sorted(
                server["relay"]["cross_server_bytes"] / server["raw_bytes"]
                for name, server in servers.items() if name.startswith(project))
            self.assertLess(first, 1 - _MUCH, servers)
            self.assertGreater(second, _MUCH, servers)

    def test_with_one_dictionary_for_the_host_it_crosses_once(self):
        batch_id = self.request(dedup_scope="host")
        first, *others = sorted(server["relay"]["cross_server_bytes"] / server["raw_bytes"]
                                for server in self.finished(batch_id).values())
        self.assertLess(first, 1 - _MUCH)
        for other in others:
            self.assertGreater(other, _MUCH)

    def test_streams_that_are_spliced_beside_an_open_group(self):
        outsider, = [guest for guest in guests.listed() if guest.name == "demo-2"]
        spliced_before = self.statistics()["spliced_bytes"]
        told_before = self.relay_log_bytes()
        self.link_at(_SLOW_LINK_MIB_PER_SECOND)
        batch_id = self.begin("admin-1", "admin-2", "demo-1")
        victim, _ = self.strike_first(signal.SIGKILL)
        guests.migrate(outsider, self.destination)
        # a group to its destination has been open all the time
        self.assertTrue(self.statistics()["groups"])
        self.assertEqual([], self.told_of_stream(outsider.id, told_before))
        self.link_at(0)
        servers = {server["id"]: server for server in self.ended(batch_id)["servers"]}
        plain = servers.pop(victim)
        self.assert_gone_plain(batch_id, plain)
        # two streams, of alike guests
        self.assertGreater(self.statistics()["spliced_bytes"] - spliced_before,
                           1.8 * plain["raw_bytes"])
        for server in servers.values():
            self.assertEqual(1, server["attempts"], server)
            self.assertIsNotNone(server["relay"], server)
        self.assert_all_at(self.destination)
