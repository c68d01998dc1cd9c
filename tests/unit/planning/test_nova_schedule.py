from oslotest import base

from nova_batch_migrate.planning import nova_schedule
from nova_batch_migrate.planning.telemetry import Disk, MigrationOptions

GIB = 1024 ** 3


class TestSchedule(base.BaseTestCase):

    def test_the_example_of_novas_own_source(self):
        # nova/virt/libvirt/migration.py: 10 steps, 30 s delay, 3 GiB, 400 ms.
        options = MigrationOptions(downtime_ms=400, downtime_steps=10, downtime_delay_seconds=30)
        found = nova_schedule.schedule(options, 3)
        self.assertEqual([(90.0 * i, (40 + 36 * i) / 1000) for i in range(11)], list(found.steps))

    def test_defaults_on_a_small_guest(self):
        found = nova_schedule.schedule(MigrationOptions(), nova_schedule.data_gib(GIB // 4, []))
        self.assertEqual(0.05, found.downtime_at(0))
        self.assertEqual(0.05, found.downtime_at(149.9))
        self.assertEqual(0.095, found.downtime_at(150))
        self.assertEqual(0.5, found.downtime_at(1500))
        self.assertEqual((150.0, 300.0, None), (found.next_change(0), found.next_change(150),
                                                found.next_change(1500)))
        self.assertEqual(1600, found.timeout_seconds)

    def test_size_counts_copied_disks_and_at_least_2_gib_each(self):
        disks = [Disk("vda", 10 * GIB, 0, False), Disk("vdb", GIB, 0, False),
                 Disk("vdc", 99 * GIB, 0, True)]
        self.assertEqual(4 + 10 + 2, nova_schedule.data_gib(4 * GIB, disks))

    def test_no_timeout(self):
        options = MigrationOptions(completion_timeout_seconds_per_gib=0)
        self.assertIsNone(nova_schedule.schedule(options, 2).timeout_seconds)

    def test_post_copy_switches_auto_converge_off(self):
        options = MigrationOptions(permit_auto_converge=True, permit_post_copy=True)
        self.assertFalse(nova_schedule.schedule(options, 2).auto_converge)
