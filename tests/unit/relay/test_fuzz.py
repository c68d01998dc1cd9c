from unittest import mock

from oslotest import base

from tests.fuzz import run


class TestFuzz(base.BaseTestCase):
    """A short run of tests/fuzz; the long one is by command."""

    def test_mutated_streams_come_out_equal_or_end_cleanly(self):
        with mock.patch.object(run, "held_bytes", side_effect=run.held_bytes) as looks:
            report = run.run(2000, seed=20)
        self.assertEqual(4, looks.call_count)
        self.assertEqual(2000, report.streams)
        self.assertEqual(2000, report.equal + report.clean_errors + report.survived)
        # it reaches what it is for
        for what in ("page", "zero", "mem size", "eos", "section 02", "section 03", "section 07",
                     "section 08", "section 7e", "xbzrle", "compressed", "multifd page",
                     "given up"):
            self.assertGreater(report.hits[what], 10, what)
        self.assertGreater(report.bytes_past_ram_header, report.bytes_fed // 4)

    def test_memory_that_grows_from_one_look_to_the_next_is_a_finding(self):
        held = [1 << 30, (1 << 30) + run.GROWTH_BYTES]
        with mock.patch.object(run, "MEASURED_STREAMS", 5), \
                mock.patch.object(run, "held_bytes", side_effect=held):
            self.assertRaisesRegex(AssertionError, "memory grew", run.run, 10, seed=20)

    def test_seeds_are_small_and_followed(self):
        seeds = run.load_seeds()
        self.assertLess(sum(map(len, seeds)), 1 << 20)
        self.assertGreater(len(seeds), 8)
