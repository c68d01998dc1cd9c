import dataclasses
import pathlib
import random
import shutil
import subprocess
import tempfile

from oslotest import base

from tests.unit.benchmarks import paths  # noqa: F401  (before nbmbench)

from nbmbench import codecs  # noqa: E402  isort: skip
from nova_batch_migrate.relay.settings import LogSettings  # noqa: E402  isort: skip

SETTINGS = LogSettings(dictionary_bytes=8 << 20, credit_bytes=1 << 30, window_log=20)


class TestCodecs(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.content = random.Random(7).randbytes(300_000)
        self.paths = [directory / "a", directory / "b"]
        for path in self.paths:
            path.write_bytes(self.content)

    def test_stock_sends_what_it_is_given_and_keeps_a_copy(self):
        copies = [path.with_suffix(".copy") for path in self.paths]
        sent, raw, _ = codecs.run(codecs.Raw(copies), self.paths)
        self.assertEqual(([300_000] * 2, [300_000] * 2), (sent, raw))
        self.assertEqual([self.content] * 2, [path.read_bytes() for path in copies])

    def test_the_rival_finds_the_second_guest_in_the_first(self):
        sent, _, _ = codecs.run(codecs.ZstdGroup(2), self.paths)
        self.assertGreater(sent[0], 299_000)
        self.assertLess(sent[1], 3_000)

    def test_the_command_gives_what_the_library_gives(self):
        if not shutil.which("zstd"):
            self.skipTest("the zstd command comes with lab/install lab")
        size, _ = codecs.zstd(self.paths, "-1", "--long=30")
        packed = subprocess.run(["zstd", "-q", "-c", "-1", "--long=30"], check=True,
                                input=self.content * 2, stdout=subprocess.PIPE).stdout
        self.assertEqual(len(packed), size)

    def test_a_relay_stream_is_verified_by_its_decoder(self):
        codec = codecs.Relay(SETTINGS, verify=True)
        sent, raw, _ = codecs.run(codec, self.paths)
        self.assertEqual([300_000] * 2, raw)
        self.assertGreater(sum(sent), 300_000)
        self.assertEqual(600_000, codec.statistics()["raw_bytes"])

    def test_the_level_of_a_relay_moves_with_what_is_scarce(self):
        text = memoryview(b"as it may be " * 20_000)
        for link, levels in ((1.0, {"3", "9"}), (1e15, {"3", "1"}), (None, set())):
            codec = codecs.Relay(dataclasses.replace(SETTINGS, level=3), adapts_to=link)
            for _ in range(600):
                codec.feed(0, text)
            self.assertEqual(levels, set(codec.levels))
            self.assertEqual(bool(link) * 600 * len(text), sum(codec.levels.values()))

    def test_a_relay_that_gives_other_bytes_is_found_out(self):
        codec = codecs.Relay(SETTINGS, verify=True)
        codec.feed(0, memoryview(bytes(1000)))
        codec._fed[0][5] = 1
        self.assertRaises(AssertionError, codec.end, 0)
