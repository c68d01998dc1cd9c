"""A guest whose stream has ended, and of which libvirt has still to say who has it.

QEMU is done on both sides, the guest stands still, and libvirt's own connection is cut: the guest
goes on at exactly one side, or is reported. So is one whose source's relay is killed first or last.

Takes some five minutes, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.finish_phase``. All guests that it finds are deleted first.
"""
import os
import re
import signal
import time

from tests.lab import base, relays

from nbmlab import daemon, guests, host, layout, shell  # noqa: E402, isort: skip

_LIBVIRT, _RELAY = 16509, 49300
_CUT_LIBVIRT = f"tcp dport {_LIBVIRT} drop", f"tcp sport {_LIBVIRT} drop"
#: Hosts do not hear each other, the controller they do.
_CUT_ALL = f'iifname "eth0" ip saddr != {layout.CONTROLLER} drop'
#: libvirt gives a connection up that is silent for 30 s.
_LONGER_THAN_LIBVIRT_WAITS = 40


class FinishPhaseCase(relays.RelayTestCase):
    def setUp(self):
        super().setUp()
        self.mover = self.ids[self.MEMBERS[0].name]

    def to_finish_phase(self) -> str:
        """Begin to move a guest; return the batch's id when only libvirt's word is missing."""
        told_before = self.relay_log_bytes()
        batch_id = self.planned(servers=[self.mover])
        # so slow that its stream is surely under way when libvirt is cut off
        self.link_at(3.0)
        self.start(batch_id)
        shell.wait_for("the stream", relays.BATCH_SECONDS, self.sends, every_seconds=0.1)
        self.break_link(*_CUT_LIBVIRT)
        self.link_at(0)
        shell.wait_for("the end of the stream", 30,
                       lambda: self.told_of_stream(self.mover, told_before), every_seconds=0.2)
        self.assertEqual([], base.running_at(self.mover))
        return batch_id

    def sends(self) -> bool:
        """Tell whether QEMU at the source has sent memory of the guest that is to move."""
        told = shell.run(*host.inside(layout.host_named(self.source)), "virsh", "domjobinfo",
                         self.mover, check=False)
        found = re.search(r"^Memory processed: +([0-9.]+)", told, re.MULTILINE)
        return found is not None and float(found[1]) > 0

    def assert_at(self, name: str) -> None:
        """The guest that was to move is there and whole, and the others are where they were."""
        self.assert_all_at(name, but={*self.ids.values()} - {self.mover})


class FinishPhaseTest(FinishPhaseCase):
    def test_a_cut_of_all_that_libvirt_rides_out_is_a_longer_pause(self):
        batch_id = self.to_finish_phase()
        self.break_link(_CUT_ALL)
        time.sleep(5)
        self.assertEqual([], base.running_at(self.mover))
        self.mend()
        server, = self.ended(batch_id)["servers"]
        self.assertEqual(1, server["attempts"], server)
        self.assertIsNotNone(server["relay"])
        self.assert_at(self.destination)

    def test_a_cut_that_libvirt_gives_up_over_leaves_the_guest_at_the_source(self):
        batch_id = self.to_finish_phase()
        self.break_link(_CUT_ALL)
        time.sleep(_LONGER_THAN_LIBVIRT_WAITS)
        self.assertEqual([self.source], base.running_at(self.mover))
        self.mend()
        server, = self.ended(batch_id)["servers"]
        self.assert_gone_plain(batch_id, server)
        self.assert_at(self.destination)

    def test_the_sources_relay_killed_before_the_first_byte(self):
        batch_id = self.begin()
        self.wait_for_redirect()
        self.kill_relay(self.source)
        for server in self.finished(batch_id).values():
            self.assertIsNone(server["relay"], server)

    def test_the_sources_relay_killed_behind_the_end_of_the_memory(self):
        """All has arrived, and the source's QEMU waits to be told so."""
        batch_id = self.planned(servers=[self.mover])
        # the end takes longer than the rule
        self.link_at(3.0)
        self.start(batch_id)
        self.wait_for_standstill()
        self.break_link(f"tcp sport {_RELAY} drop")
        time.sleep(1)
        self.assertEqual([], base.running_at(self.mover))
        self.kill_relay(self.source)
        self.mend()
        server, = self.ended(batch_id)["servers"]
        self.assert_gone_plain(batch_id, server)
        self.assert_at(self.destination)


class LeftPausedTest(FinishPhaseCase):

    MEMBERS = (guests.Wanted("quick-web", "lab-left"),)

    def test_a_guest_that_libvirt_leaves_paused_is_reported_and_left_alone(self):
        batch_id = self.to_finish_phase()
        here = layout.host_named(self.source)
        name = f"libvirtd-{self.source}"
        # the other libvirtd never hears that all has arrived
        self.silence(name, self.source, f"dport = :{_LIBVIRT}")
        os.kill(daemon.record(name).pid, signal.SIGKILL)
        shell.wait_for("the end of libvirtd", 10, lambda: daemon.record(name) is None)
        # it finds a migration of which it can't tell how it ended
        host.start(here, layout.load_options().migration_address(here))
        self.mend()
        server, = self.ended(batch_id, "partial")["servers"]
        self.assertEqual(("failed", 1), (server["status"], server["attempts"]), server)
        self.assertIn(f"libvirt left its guest paused (paused on {self.source}, ",
                      server["reason"])
        time.sleep(5)
        self.assertEqual([], base.running_at(self.mover))
        # Nova has not cleaned up behind it: Placement counts it on both hosts
        self.addCleanup(self.admin.call, "nova-api", "DELETE", f"/servers/{self.mover}")
        # as the report says: look, then resume the one that is whole
        shell.run(*host.inside(here), "virsh", "resume", self.mover)
        self.admin.post("nova-api", f"/servers/{self.mover}/action",
                        {"os-resetState": {"state": "active"}})
        self.assert_at(self.source)
