import json

import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.planning import plan, telemetry
from nova_batch_migrate.planning.request import Destination
from tests.unit.planning import builders


@ddt.ddt
class TestValues(base.BaseTestCase):

    def test_request_survives_json(self):
        busy = telemetry.DirtyModel(500.0, 1000.0, 0.1, "content-diff")
        request = builders.plan_request(builders.host(
            [builders.server("a", dirty=busy, touched=busy, windows=(
                telemetry.DirtyWindow(0.5, 200.0, "content-diff"),), disks=(
                telemetry.Disk("vda", 1024, 10.0, False),)),
             builders.server("b")],
            builders.classes(("a b", 7), background=telemetry.Background(2, 3))))
        data = json.loads(json.dumps(request.to_dict()))
        self.assertEqual(request, plan.PlanRequest.from_dict(data))

    def test_unknown_keys_of_a_newer_sender_are_ignored(self):
        data = {**builders.bandwidth().to_dict(), "duplex": "full"}
        self.assertEqual(builders.bandwidth(), telemetry.Bandwidth.from_dict(data))

    @ddt.data(
        ({"interface": None}, "Bandwidth.interface must be a text"),
        ({"other_bytes_per_second": -1}, "Bandwidth.other_bytes_per_second must be a number not"),
        ({"other_bytes_per_second": float("nan")}, "Bandwidth.other_bytes_per_second"),
        ({"other_bytes_per_second": True}, "Bandwidth.other_bytes_per_second"),
        ({"source": "guess"}, "one of option, tc, ethtool, unknown"),
    )
    @ddt.unpack
    def test_wrong_types_are_named(self, wrong, words):
        data = {**builders.bandwidth().to_dict(), **wrong}
        error = self.assertRaises(exception.PlanningError, telemetry.Bandwidth.from_dict, data)
        self.assertIn(words, str(error))

    def test_missing_fields_are_named(self):
        error = self.assertRaises(exception.PlanningError, telemetry.PageClasses.from_dict, {})
        self.assertIn("PageClasses.exact is missing", str(error))

    def test_fractions_are_no_counts(self):
        data = {"servers": ["a"], "pages": 1.5}
        error = self.assertRaises(exception.PlanningError, telemetry.PageClass.from_dict, data)
        self.assertIn("PageClass.pages must be a whole number", str(error))

    def test_an_overcommitted_destination_is_no_error(self):
        data = {**builders.destination().to_dict(), "free_memory_bytes": -5}
        self.assertEqual(-5, Destination.from_dict(data).free_memory_bytes)


class TestMigrationOptions(base.BaseTestCase):

    def test_unknown_options_are_novas_defaults_and_named(self):
        options = telemetry.MigrationOptions.from_nova(
            {"live_migration_downtime": 300, "max_concurrent_live_migrations": "unknown"})
        self.assertEqual((300, 10, 1), (options.downtime_ms, options.downtime_steps,
                                        options.max_concurrent))
        self.assertIn("max_concurrent_live_migrations", options.assumed)
        self.assertNotIn("live_migration_downtime", options.assumed)

    def test_what_is_no_value_of_an_option_is_unknown(self):
        options = telemetry.MigrationOptions.from_nova({
            "live_migration_timeout_action": "hope", "live_migration_downtime": -3,
            "live_migration_downtime_steps": float("nan"), "live_migration_downtime_delay": 9})
        self.assertEqual(("abort", 500, 10, 9), (options.timeout_action, options.downtime_ms,
                                                 options.downtime_steps,
                                                 options.downtime_delay_seconds))
        self.assertLess({"live_migration_timeout_action", "live_migration_downtime",
                         "live_migration_downtime_steps"}, set(options.assumed))

    def test_no_limit_of_migrations_is_five(self):
        options = telemetry.MigrationOptions.from_nova({"max_concurrent_live_migrations": 0})
        self.assertEqual(5, options.max_concurrent)


class TestServerTelemetry(base.BaseTestCase):

    def test_an_unmeasured_server_needs_its_id_only(self):
        found = telemetry.ServerTelemetry.from_dict({"id": "x", "error": "domain is gone"})
        self.assertEqual(("domain is gone", 0), (found.error, found.content_pages))

    def test_rounds_are_made_by_touched_pages_where_known(self):
        touched, changed = telemetry.DirtyModel(9.0, 9.0), telemetry.DirtyModel(3.0, 3.0)
        self.assertEqual(changed, builders.server("a", dirty=changed).round_model)
        self.assertEqual(touched, builders.server("a", dirty=changed, touched=touched).round_model)
