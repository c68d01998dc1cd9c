"""Guests that go to and fro between two hosts with relays: what the tests of relays share."""
import os
import signal
import subprocess

from tests.lab import base

from nbmlab import daemon, guests, host, layout, shell  # noqa: E402, isort: skip

BATCH_SECONDS = base.BATCH_SECONDS
#: Of the relays.
PORT = 49300
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
        """Kill a host's relay as if with its host: what it has said and nobody heard is lost.

        The kernel would go on saying it for a process that is gone.
        """
        os.kill(daemon.record(f"batch-relay-{name}").pid, signal.SIGSTOP)
        shell.run(*host.inside(layout.host_named(name)), "ss", "--kill", "state", "established",
                  f"( sport = :{PORT} )")
        self.kill_relay(name)

    def finished(self, batch_id: str) -> dict:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        return self.all_moved(batch_id)

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

    def wait_for_standstill(self) -> None:
        """Return when a guest of the source stands still for its switchover.

        Told by libvirt's event: a standstill is short.
        """
        told = subprocess.Popen(
            [*host.inside(layout.host_named(self.source)), "stdbuf", "-oL", "virsh", "event",
             "--event", "lifecycle", "--loop", "--timeout", str(BATCH_SECONDS)],
            stdout=subprocess.PIPE, text=True)
        try:
            self.assertTrue(any("Suspended" in line for line in told.stdout),
                            "no guest stood still")
        finally:
            told.kill()
            told.wait()
            told.stdout.close()
