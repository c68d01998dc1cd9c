"""Guests that go to and fro between two hosts with relays: what the tests of relays share."""
import os
import signal

from tests.lab import base

from nbmlab import daemon, guests, host, layout, shell  # noqa: E402, isort: skip

BATCH_SECONDS = base.BATCH_SECONDS


class RelayTestCase(base.LabTestCase):

    # Two alike that the scan shows to be so, and one that writes all the time.
    MEMBERS = (guests.Wanted("web", "lab-web1"), guests.Wanted("web", "lab-web2"),
               guests.Wanted("writer-slow", "lab-slow"))
    RELAYS = True
    #: On this one streams are surely under way when something is done to them.
    SLOW_LINK_MIB_PER_SECOND = 4.0

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
        shell.wait_for("the end of the relay", 10,
                       lambda: daemon.record(f"batch-relay-{name}") is None)
        self.link_at(0)

    def finished(self, batch_id: str) -> dict:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        return self.all_moved(batch_id)

    def tables(self, name: str) -> str:
        return shell.run(*host.inside(layout.host_named(name)), "nft", "list", "tables")
