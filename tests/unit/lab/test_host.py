"""What libvirtd and QEMUs of a host are told: where migrations come to is what the options say."""
import pathlib
import sys

import ddt
import fixtures
from oslotest import base

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "lab"))

from nbmlab import host, layout  # noqa: E402


@ddt.ddt
class TestFiles(base.BaseTestCase):
    @ddt.data((False, layout.ALL_HOSTS[0].address), (True, layout.ALL_HOSTS[0].address6))
    @ddt.unpack
    def test_libvirt_listens_at_the_address_of_the_options(self, ipv6, address):
        root = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        self.useFixture(fixtures.MonkeyPatch("nbmlab.layout.VAR", root))
        here = layout.ALL_HOSTS[0]
        # it would be copied from the machine's
        (here.directory / "etc/qemu").mkdir(parents=True)
        host._files(here, layout.Options(ipv6=ipv6).migration_address(here))
        self.assertIn(f'listen_addr = "{address}"\n',
                      (here.directory / "etc/libvirtd.conf").read_text())
