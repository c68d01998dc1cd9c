import pathlib

import fixtures
from oslotest import base

from nova_batch_migrate.agent import nova_options
from nova_batch_migrate.planning.telemetry import MigrationOptions


class TestRead(base.BaseTestCase):

    def file(self, name, text):
        path = pathlib.Path(self.useFixture(fixtures.TempDir()).join(name))
        path.write_text(text, encoding="utf-8")
        return str(path)

    def test_later_files_win_and_the_rest_are_novas_defaults(self):
        found = nova_options.read([
            self.file("nova.conf", "[DEFAULT]\nmy_ip = 10.0.0.5\n"
                      "max_concurrent_live_migrations = 2\n"
                      "[libvirt]\nlive_migration_inbound_addr = $my_ip\n"),
            "/nowhere/nova-other.conf",
            self.file("nova-cpu.conf", "[DEFAULT]\nmax_concurrent_live_migrations = 4\n"
                      "[libvirt]\nlive_migration_permit_post_copy = true\n")])
        self.assertEqual((4, "10.0.0.5", True, 500), (
            found["max_concurrent_live_migrations"], found["live_migration_inbound_addr"],
            found["live_migration_permit_post_copy"], found["live_migration_downtime"]))
        self.assertEqual((), MigrationOptions.from_nova(found).assumed)

    def test_the_environment_decides_nothing(self):
        self.useFixture(fixtures.EnvironmentVariable(
            "OS_LIBVIRT__LIVE_MIGRATION_DOWNTIME", "7000"))
        found = nova_options.read([self.file("nova.conf", "[DEFAULT]\nmy_ip = 10.0.0.5\n")])
        self.assertEqual(500, found["live_migration_downtime"])

    def test_no_file_is_unknown(self):
        found = nova_options.read(["/nowhere/nova.conf"])
        self.assertEqual({"unknown"}, set(found.values()))

    def test_a_broken_file_is_unknown(self):
        found = nova_options.read([self.file("nova.conf", "no section\n")])
        self.assertEqual({"unknown"}, set(found.values()))

    def test_a_bad_value_is_unknown_and_the_others_are_not(self):
        found = nova_options.read([self.file(
            "nova.conf", "[libvirt]\nlive_migration_downtime = soon\n"
            "live_migration_timeout_action = hope\nlive_migration_downtime_steps = 20\n")])
        self.assertEqual("unknown", found["live_migration_timeout_action"])
        self.assertEqual(("unknown", 20), (found["live_migration_downtime"],
                                           found["live_migration_downtime_steps"]))
