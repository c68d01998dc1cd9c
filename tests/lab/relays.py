"""Guests that go to and fro between two hosts with relays: what the tests of relays share."""
import os
import signal
import subprocess

from tests.lab import base

from nbmlab import daemon, drain, guests, host, layout, shell  # noqa: E402, isort: skip

BATCH_SECONDS = base.BATCH_SECONDS
#: Of the relays.
PORT = 49300
#: Bytes of a stream whose QEMU is to be struck in the middle.
WELL_ON_ITS_WAY = 4 << 20
_TABLE = "nbm_faults"


class RelayTestCase(base.LabTestCase):

    # Two alike that the scan shows to be so, and one that writes all the time.
    MEMBERS = (guests.Wanted("quick-web", "lab-web1"), guests.Wanted("quick-web", "lab-web2"),
               guests.Wanted("quick-writer-slow", "lab-slow"))
    RELAYS = True
    #: On this one streams are surely under way when something is done to them.
    SLOW_LINK_MIB_PER_SECOND = 2.0

    def setUp(self):
        super().setUp()
        self.addCleanup(self.mend)

    def caught(self) -> str:
        """Begin a batch of the whole host; return its id when the first bytes have been seen."""
        self.link_at(self.SLOW_LINK_MIB_PER_SECOND)
        batch_id = self.begin()
        self.wait_for_stream(batch_id)
        return batch_id

    def begin(self, *servers: str) -> str:
        """Begin a batch of the whole host, or of some servers of it; return its id."""
        if not servers:
            return self.request()
        return self.ask(*(word for name in servers for word in ("--server", self.ids[name])))

    def kill_relay(self, name: str) -> None:
        """Kill a host's relay; what goes the plain way from now on need not take long."""
        os.kill(daemon.record(f"batch-relay-{name}").pid, signal.SIGKILL)
        shell.wait_for("the end of the relay", 60,
                       lambda: daemon.record(f"batch-relay-{name}") is None)
        self.link_at(0)

    def kill_relay_with_its_words(self, name: str) -> None:
        """Kill a host's relay as if with its host: what it has said and nobody heard is lost."""
        self.silence(f"batch-relay-{name}", name, f"sport = :{PORT}")
        self.kill_relay(name)

    @staticmethod
    def silence(process: str, name: str, connections: str) -> None:
        """Stop a daemon of a host and end connections of it, with what nobody has heard.

        The kernel would go on saying that for a process that is gone.
        """
        os.kill(daemon.record(process).pid, signal.SIGSTOP)
        shell.run(*host.inside(layout.host_named(name)), "ss", "--kill", "state", "established",
                  f"( {connections} )")

    def finished(self, batch_id: str) -> dict:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        return self.all_moved(batch_id)

    def strike_first(self, what: signal.Signals) -> tuple[str, int]:
        """Send a signal to the first QEMU at the destination whose stream is well on its way.

        Returns whose it is and its pid.
        """
        found = []

        def under_way() -> list:
            found.extend((server_id, pid) for server_id in self.ids.values()
                         if self.sent(server_id) > WELL_ON_ITS_WAY
                         and (pid := self.arriving(server_id)) is not None)
            return found
        shell.wait_for("a stream", BATCH_SECONDS, under_way, every_seconds=0.1)
        os.kill(found[0][1], what)
        return found[0]

    def assert_gone_plain(self, batch_id: str, server: dict) -> None:
        """A server's first attempt broke off, the second one went past the relays."""
        self.assertEqual((2, None), (server["attempts"], server["relay"]), server)
        self.assertEqual(server["raw_bytes"], server["wire_bytes"], server)
        told = [event["message"] for event in drain.events(batch_id)
                if event["server_id"] == server["id"] and event["kind"] == "retry"]
        self.assertTrue(any("it goes the plain way now" in message for message in told), told)

    def assert_broken_gone_plain(self, batch_id: str, servers: dict[str, dict]) -> None:
        """Some servers' first attempts broke off, and those have gone past the relays."""
        broken = [server for server in servers.values() if server["attempts"] > 1]
        self.assertTrue(broken, servers)
        for server in broken:
            self.assert_gone_plain(batch_id, server)

    def told_of_stream(self, server_id: str, since: int = 0) -> list[str]:
        """Return what the source's relay has logged of the streams of a server that have ended."""
        return [line for line in self.told_by_relay(since)
                if f"stream of server {server_id} (" in line]

    def tables(self, name: str) -> str:
        return shell.run(*host.inside(layout.host_named(name)), "nft", "list", "tables")

    # -- faults of the link -----------------------------------------------------------------

    def break_link(self, *rules: str, at: str | None = None) -> None:
        """Let both hosts, or one of them, drop what arrives at them by these rules."""
        text = f"add table inet {_TABLE}; add chain inet {_TABLE} input " \
               "{ type filter hook input priority 0; }; " \
               + "; ".join(f"add rule inet {_TABLE} input {rule}" for rule in rules)
        for each in layout.load_options().host_list:
            if at in (None, each.name):
                shell.run(*host.inside(each), "nft", text)

    @staticmethod
    def mend() -> None:
        for each in layout.load_options().host_list:
            subprocess.run([*host.inside(each), "nft", "delete", "table", "inet", _TABLE],
                           capture_output=True)

    def wait_for_redirect(self) -> None:
        shell.wait_for("the redirect", BATCH_SECONDS,
                       lambda: "nova_batch_relay" in self.tables(self.source),
                       every_seconds=0.1)
