import datetime

from oslotest import base

from nova_batch_migrate.agent import keys

MORNING = datetime.datetime(2026, 11, 23, 1, tzinfo=datetime.UTC)


class TestKeySource(base.BaseTestCase):

    def test_hosts_with_one_secret_agree_for_a_day(self):
        here, there = keys.KeySource("secret"), keys.KeySource("secret")
        evening = MORNING + datetime.timedelta(hours=22)
        self.assertEqual(here.current(MORNING), there.current(evening))
        self.assertEqual("2026-11-23", here.current(MORNING).epoch)

    def test_the_day_is_utc(self):
        tokyo = datetime.timezone(datetime.timedelta(hours=9))
        source = keys.KeySource("secret")
        self.assertEqual(source.current(MORNING), source.current(MORNING.astimezone(tokyo)))

    def test_another_day_and_another_secret_give_another_seed(self):
        seed = keys.KeySource("secret").current(MORNING).seed
        tomorrow = MORNING + datetime.timedelta(days=1)
        self.assertNotEqual(seed, keys.KeySource("secret").current(tomorrow).seed)
        self.assertNotEqual(seed, keys.KeySource("other").current(MORNING).seed)

    def test_without_a_secret_each_process_has_its_own(self):
        self.assertNotEqual(keys.KeySource(None).current(MORNING),
                            keys.KeySource("").current(MORNING))

    def test_the_key_of_sketches_is_another_and_its_name_tells_the_secret_apart(self):
        one, other = keys.KeySource("secret").current(MORNING), keys.KeySource("other").current(
            MORNING)
        self.assertEqual(64, len(one.sketch_key))
        self.assertNotEqual(one.sketch_key, other.sketch_key)
        self.assertNotEqual(one.key_id, other.key_id)
        self.assertTrue(one.key_id.startswith("2026-11-23/"))
        self.assertNotIn(one.sketch_key, repr(one))

    def test_without_a_secret_there_is_nothing_to_compare_sketches_by(self):
        self.assertEqual("", keys.KeySource(None).current(MORNING).sketch_key)

    def test_the_seed_is_not_shown(self):
        key = keys.KeySource("secret").current(MORNING)
        self.assertNotIn(str(key.seed), repr(key))
