"""Guests that go to and fro between two hosts with relays: what the tests of relays share."""

from tests.lab import base

from nbmlab import guests, host, layout, shell  # noqa: E402, isort: skip

BATCH_SECONDS = base.BATCH_SECONDS


class RelayTestCase(base.LabTestCase):

    # Two alike that the scan shows to be so, and one that writes all the time.
    MEMBERS = (guests.Wanted("web", "relay-web1"), guests.Wanted("web", "relay-web2"),
               guests.Wanted("writer-slow", "relay-slow"))
    RELAYS = True

    def begin(self, *servers: str) -> str:
        """Begin a batch of the whole host, or of some servers of it; return its id."""
        what = [word for name in servers for word in ("--server", self.ids[name])]
        return self.ask(*(what or ["--host", self.source]))

    def finished(self, batch_id: str) -> dict:
        """Return the batch's servers by name once all have moved, with their guests whole."""
        return self.all_moved(batch_id)

    def tables(self, name: str) -> str:
        return shell.run(*host.inside(layout.host_named(name)), "nft", "list", "tables")
