import ddt
from oslotest import base

from nova_batch_migrate.relay import source, values


@ddt.ddt
class ZstdLevel(base.BaseTestCase):
    @ddt.data((None, 37.5e6, 3), (None, 125e6, 1), (None, 1.25e9, None), (None, None, 1),
              (0, 1e6, None), (9, 1.25e9, 9), (-2, 37.5e6, -2))
    @ddt.unpack
    def test_the_slower_the_wire_the_higher_unless_the_operator_says(self, option, rate, level):
        self.assertEqual(level, source.zstd_level(option, rate))


@ddt.ddt
class WindowLog(base.BaseTestCase):
    @ddt.data((29, 512 << 20, 29), (27, 512 << 20, 27), (27, 96 << 20, 26), (20, 512 << 20, 20),
              (29, 4 << 20, 22))
    @ddt.unpack
    def test_no_further_back_than_the_dictionary_is_large(self, option, dictionary_bytes, log):
        self.assertEqual(log, source.window_log(option, dictionary_bytes))

    @ddt.data(1, 2, 3, 7, 40, 128)
    def test_the_windows_of_all_logs_take_no_more_than_their_dictionaries(self, logs):
        """One project each: a relay's memory does not grow with their number."""
        server = "0f6c4ba5-1b52-4d0f-8e25-6a2d3a2c{:04d}".format
        made = source.SourceGroup(values.Group.from_dict({
            "id": "g", "role": "source", "token": "ab" * 32, "source": "cmpa",
            "destination": "cmpb", "peer_address": "127.0.0.1", "peer_port": 1,
            "dictionary_bytes": 512 << 20, "members": [
                {"server_id": server(i), "order": i, "scope": f"project{i}"}
                for i in range(logs)]}), source.Settings(mark=1), None, {})
        agreed = [made.log(f"project{i}").settings for i in range(logs)]
        self.assertLessEqual(sum(each.dictionary_bytes for each in agreed), 512 << 20)
        self.assertLessEqual(sum(1 << each.window_log for each in agreed), 512 << 20)
