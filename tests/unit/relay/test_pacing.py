from oslotest import base

from nova_batch_migrate.relay import pacing

MIB = 1 << 20


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class TokenBucket(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.clock = Clock()

    def spent(self, bucket, sizes):
        begun = self.clock.now
        for size in sizes:
            bucket.take(size)
        return self.clock.now - begun

    def test_holds_to_the_rate_whatever_the_pieces(self):
        for piece in (1000, 64_000, 1_000_000):
            bucket = pacing.TokenBucket(10_000_000, self.clock, self.clock.sleep)
            seconds = self.spent(bucket, [piece] * (50_000_000 // piece))
            self.assertAlmostEqual(5.0, seconds, delta=0.02)

    def test_a_pause_is_not_saved_up(self):
        bucket = pacing.TokenBucket(10_000_000, self.clock, self.clock.sleep)
        self.clock.now += 60
        self.assertAlmostEqual(1.0, self.spent(bucket, [100_000] * 100), delta=0.02)

    def test_what_may_leave_ahead_is_paid_all_the_same(self):
        bucket = pacing.TokenBucket(10_000_000, self.clock, self.clock.sleep)
        begun = self.clock.now
        for _ in range(50):
            bucket.take(100_000, 0.05)
        self.assertAlmostEqual(0.45, self.clock.now - begun, delta=0.02)
        # what is not ahead waits until all of that has left
        bucket.take(100_000)
        self.assertAlmostEqual(0.51, self.clock.now - begun, delta=0.02)

    def test_without_a_cap_nothing_waits(self):
        bucket = pacing.TokenBucket(None, self.clock, self.clock.sleep)
        self.assertEqual(0, self.spent(bucket, [1 << 30] * 10))

    def test_a_new_cap_counts_from_then_on(self):
        bucket = pacing.TokenBucket(1_000_000, self.clock, self.clock.sleep)
        self.spent(bucket, [1_000_000])
        bucket.set_rate(20_000_000)
        self.assertAlmostEqual(1.0, self.spent(bucket, [200_000] * 100), delta=0.02)


class WireRate(base.BaseTestCase):
    def test_assumed_until_seen_and_never_above_the_cap(self):
        rate = pacing.WireRate(40e6)
        self.assertEqual(40e6, rate.bytes_per_second())
        self.assertEqual(10e6, rate.bytes_per_second(10e6))
        self.assertIsNone(pacing.WireRate(None).bytes_per_second())

    def test_the_best_window_counts(self):
        rate = pacing.WireRate(None)
        now = 0.0
        # 0.5 s at 40 MB/s, then half of the time there is nothing to send
        for _ in range(50):
            rate.sent(400_000, now, now + 0.01)
            now += 0.01
        for _ in range(50):
            rate.sent(200_000, now, now + 0.005)
            now += 0.01
        self.assertAlmostEqual(40e6, rate.bytes_per_second(), delta=1e6)

    def test_what_is_slow_to_make_is_not_slow_to_send(self):
        rate = pacing.WireRate(None)
        for now in range(50):
            # 400 kB leave in a millisecond, and take 50 to make
            rate.sent(400_000, 0.051 * now, 0.051 * now + 0.001)
        self.assertAlmostEqual(10e6, rate.bytes_per_second(), delta=2e6)
        self.assertAlmostEqual(400e6, rate.sending_bytes_per_second(), delta=1e6)
        self.assertEqual(40e6, rate.sending_bytes_per_second(40e6))

    def test_windows_with_little_to_send_say_nothing_of_the_link(self):
        rate = pacing.WireRate(None)
        now = 0.0
        for size, spent, count in ((400_000, 0.01, 50), (1_000, 0.0001, 1000)):
            for _ in range(count):
                rate.sent(size, now, now + spent)
                now += 0.01
        self.assertAlmostEqual(40e6, rate.bytes_per_second(), delta=1e6)
        # a link that has become slow is seen: sending waits for it
        for _ in range(300):
            rate.sent(50_000, now, now + 0.01)
            now += 0.01
        self.assertAlmostEqual(5e6, rate.bytes_per_second(), delta=1e6)

    def test_on_a_fast_link_windows_of_few_bytes_say_nothing_of_how_fast_they_leave(self):
        for is_fast, speed in ((True, 1e9), (False, 8e6)):
            rate = pacing.WireRate(None, is_fast=is_fast)
            now = 0.0
            # pages in full, then references to pages: each call takes 50 us
            for size, spent in ((1_000_000, 0.001), (400, 0.00005)):
                for _ in range(100):
                    rate.sent(size, now, now + spent)
                    now += 0.01
            self.assertAlmostEqual(speed, rate.sending_bytes_per_second(), delta=speed / 20)
        # of a link that sending waits for they do
        for _ in range(100):
            rate.sent(2_000, now, now + 0.008)
            now += 0.01
        self.assertAlmostEqual(250e3, rate.sending_bytes_per_second(), delta=3e3)

    def test_where_little_was_sent_from_the_begin_on_the_link_is_not_slow(self):
        for assumed in (None, 40e6):
            rate = pacing.WireRate(assumed)
            for moment in range(100):
                rate.sent(1_000, 0.01 * moment, 0.01 * moment + 0.0001)
            self.assertEqual(assumed, rate.bytes_per_second())


class TakingSpeed(base.BaseTestCase):
    def test_in_later_rounds_it_is_that_of_changed_content(self):
        self.assertEqual(30e6, pacing.taking_speed(None, 30e6, 0.5))

    def test_in_round_0_what_is_left_is_more_than_qemu_sends_in_the_downtime(self):
        # 300 MB left at 0.5 s: 400 MB/s, so QEMU sees 200 MB as due in the downtime
        self.assertEqual(400e6, pacing.taking_speed(300e6, 30e6, 0.5))
        self.assertEqual(30e6, pacing.taking_speed(10e6, 30e6, 0.5))

    def test_qemu_never_believes_that_the_rest_fits_while_it_is_taken_faster_than_it_leaves(self):
        remaining, downtime, true = 512e6, 0.3, 40e6
        while remaining > 0:
            speed = pacing.taking_speed(remaining, true, downtime)
            if speed > true:
                self.assertGreater(remaining, speed * downtime)
            remaining -= speed * 0.01


class Pace(base.BaseTestCase):
    def test_holds_to_the_speed_and_counts_the_time_of_sending(self):
        clock = Clock()
        pace = pacing.Pace(clock, clock.sleep)
        for _ in range(100):
            clock.now += 0.002          # sending
            pace.took(64 << 10, 10 * MIB)
        self.assertAlmostEqual(100 * (64 << 10) / (10 * MIB), clock.now - 100.0, delta=0.03)

    def test_no_speed_is_no_wait(self):
        clock = Clock()
        pacing.Pace(clock, clock.sleep).took(1 << 30, None)
        self.assertEqual(100.0, clock.now)

    def test_it_knows_how_much_of_the_time_it_waited(self):
        clock = Clock()
        pace = pacing.Pace(clock, clock.sleep)
        for _ in range(100):
            clock.now += 0.005
            pace.took(1 << 20, (1 << 20) / 0.02)
        self.assertAlmostEqual(0.75, pace.waited_share, delta=0.02)
        for _ in range(100):
            clock.now += 0.02
            pace.took(1 << 20, (1 << 20) / 0.005)
        self.assertAlmostEqual(0.0, pace.waited_share, delta=0.01)


class ChangedRatio(base.BaseTestCase):

    def test_what_later_rounds_sent_counts_once_it_is_enough_to_tell(self):
        self.assertEqual(1.0, pacing.changed_ratio(1 << 19, 1 << 10))
        self.assertEqual(0.25, pacing.changed_ratio(4 << 20, 1 << 20))
        self.assertEqual(1.0, pacing.changed_ratio(4 << 20, 5 << 20))
        self.assertGreater(pacing.changed_ratio(400 << 20, 1), 0.0)
