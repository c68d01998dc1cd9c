import pathlib
import subprocess
import sys

import ddt
import fixtures
from oslotest import base

ROOT = pathlib.Path(__file__).resolve().parents[3]
ETC = ROOT / "etc" / "nova-batch-migrate"


@ddt.ddt
class Samples(base.BaseTestCase):
    """The committed samples are what the generators make of the options and rules of today."""

    @ddt.data(("oslo-config-generator", "config-generator.conf", "nova-batch-migrate.conf.sample"),
              ("oslopolicy-sample-generator", "policy-generator.conf", "policy.yaml.sample"))
    @ddt.unpack
    def test_is_what_the_generator_makes(self, generator, options, sample):
        made = pathlib.Path(self.useFixture(fixtures.TempDir()).join(sample))
        subprocess.run(
            [pathlib.Path(sys.executable).parent / generator, "--config-file", ETC / options,
             "--output-file", made],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertEqual((ETC / sample).read_text(), made.read_text(),
                         f"run: {generator} --config-file etc/nova-batch-migrate/{options}")
