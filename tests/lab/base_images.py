"""The first guest of its family on the real cloud: its relays know Nova's base images already.

Takes a minute and a half, so tools/test leaves it out; on a lab that is up with its relays:
``python -m testtools.run tests.lab.base_images``. All guests that it finds are deleted first.
"""
from tests.lab import relays

from nbmlab import guests, shell  # noqa: E402, isort: skip

MIB = 1 << 20


class FirstGuestCase(relays.RelayTestCase):
    """A guest with a file system of its own, whose image Nova keeps; no other one is there."""

    MEMBERS = (guests.Wanted("redis", "first-redis"),)

    def carried(self) -> dict:
        """Move the guest; return what the relay has counted of it."""
        server, = self.finished(self.begin()).values()
        shell.say(f"{server['raw_bytes'] / MIB:.1f} MiB crossed as "
                  f"{server['wire_bytes'] / MIB:.1f}, in common "
                  f"{server['relay']['cross_server_bytes'] / MIB:.1f}, as differences "
                  f"{server['relay']['delta_bytes'] / MIB:.1f}")
        return server["relay"]


class FirstGuestTest(FirstGuestCase):
    def test_it_refers_to_the_base_images(self):
        self.assertGreater(self.carried()["cross_server_bytes"], 4 * MIB)


class WithoutBaseImagesTest(FirstGuestCase):
    @classmethod
    def setUpClass(cls):
        cls.start_relays_with("base_images_mib = 0")
        super().setUpClass()

    def test_it_has_nothing_to_refer_to(self):
        self.assertEqual(0, self.carried()["cross_server_bytes"])
