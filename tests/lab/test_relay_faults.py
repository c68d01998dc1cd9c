"""Faults of relays and of the link between them, on the real cloud: every guest stays whole.

Run by tools/test lab on a lab that is up with its relays. What needs no QEMU of its own
(certificates, replayed sessions, truncated streams, small dictionaries) is in
tests/unit/relay/test_faults.py.
"""
import os
import signal
import subprocess
import time

from tests.lab import relays

from nbmlab import daemon, drain, host, layout, shell  # noqa: E402, isort: skip

_PORT = 49300
_TABLE = "nbm_faults"
_CUT = f"tcp dport {_PORT} drop"
#: Of what arrives at a relay, in both directions.
_LOSS = (f"tcp dport {_PORT} numgen random mod 100 < 2 drop",
         f"tcp sport {_PORT} numgen random mod 100 < 2 drop")


class RelayFaultsTest(relays.RelayTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.mend)

    def break_link(self, *rules: str) -> None:
        """Let both hosts drop what arrives at them by these rules."""
        text = f"add table inet {_TABLE}; add chain inet {_TABLE} input " \
               "{ type filter hook input priority 0; }; " \
               + "; ".join(f"add rule inet {_TABLE} input {rule}" for rule in rules)
        for each in layout.load_options().host_list:
            shell.run(*host.inside(each), "nft", text)

    @staticmethod
    def mend() -> None:
        for each in layout.load_options().host_list:
            subprocess.run([*host.inside(each), "nft", "delete", "table", "inet", _TABLE],
                           capture_output=True)

    def kill_relay(self, name: str) -> None:
        os.kill(daemon.record(f"batch-relay-{name}").pid, signal.SIGKILL)
        shell.wait_for("the end of the relay", 10,
                       lambda: daemon.record(f"batch-relay-{name}") is None)

    def wait_for_redirect(self) -> None:
        shell.wait_for("the redirect", relays.BATCH_SECONDS,
                       lambda: "nova_batch_relay" in self.tables(self.source),
                       every_seconds=0.1)

    def wait_for_standstill(self, *names: str) -> bool:
        """Return once a guest stands still for its switchover; False if that was missed."""
        here = host.inside(layout.host_named(self.source))
        end = time.monotonic() + relays.BATCH_SECONDS
        left = {self.ids[name] for name in names}
        while left and time.monotonic() < end:
            for server_id in sorted(left):
                told = subprocess.run([*here, "virsh", "domstate", server_id],
                                      capture_output=True, text=True).stdout
                if "paused" in told:
                    return True
                if "running" not in told:
                    left.discard(server_id)
        return False

    def test_the_destinations_relay_killed_before_the_first_byte(self):
        batch_id = self.begin()
        self.wait_for_redirect()
        self.kill_relay(self.destination)
        self.finished(batch_id)

    def test_the_sources_relay_killed_while_a_guest_stands_still(self):
        batch_id = self.begin()
        self.wait_for_redirect()
        self.wait_for_standstill(*self.ids)
        self.kill_relay(self.source)
        self.finished(batch_id)

    def test_a_link_that_is_cut_in_the_stream_and_at_the_switchover(self):
        batch_id = self.begin()
        shell.wait_for("bytes of a first migration", relays.BATCH_SECONDS, lambda: any(
            server["status"] == "migrating" and server["raw_bytes"]
            for server in drain.batch(batch_id)["servers"]), every_seconds=0.3)
        self.break_link(_CUT)
        time.sleep(3)
        self.mend()
        if self.wait_for_standstill(*self.ids):
            self.break_link(_CUT)
            time.sleep(2)
            self.mend()
        servers = self.finished(batch_id)
        self.assertEqual({1}, {server["attempts"] for server in servers.values()}, servers)
        self.assertTrue(all(server["relay"] for server in servers.values()), servers)

    def test_two_batches_at_once_over_a_link_that_loses_packets(self):
        self.break_link(*_LOSS)
        batches = [self.begin("relay-web1"), self.begin("relay-web2", "relay-slow")]
        for batch_id in batches:
            told = drain.wait_for_batch(batch_id, drain.FINAL, relays.BATCH_SECONDS)
            self.assertEqual("completed", told["status"], told)
        for batch_id in batches:
            servers = self.finished(batch_id)
            self.assertEqual({1}, {server["attempts"] for server in servers.values()}, servers)
            self.assertTrue(all(server["relay"] for server in servers.values()), servers)
