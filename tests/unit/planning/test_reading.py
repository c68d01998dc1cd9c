import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.planning import plan, reading
from nova_batch_migrate.planning.telemetry import HostTelemetry, MigrationOptions
from tests.unit.planning import builders

NAN = float("nan")


def sent(**fields):
    """What an agent sends of a host, in JSON types."""
    host = builders.host([builders.server("a"), builders.server("b"), builders.server("c")],
                         builders.classes(("a b", 9000), ("b c", 9000)))
    return {**host.to_dict(), **fields}


@ddt.ddt
class TestServer(base.BaseTestCase):

    def test_what_is_a_figure_is_left_as_it_is(self):
        server = builders.server("a")
        self.assertEqual(server, reading.server(server.to_dict(), "elsewhere", "other"))

    @ddt.data(({"present_pages": -5}, "present_pages must be a whole number not below 0, not -5"),
              ({"memory_bytes": NAN}, "memory_bytes"),
              ({"compress_changed": float("inf")}, "compress_changed"),
              ({"windows": [{"seconds": 2.0}]}, "changed_pages is missing"))
    @ddt.unpack
    def test_what_is_none_is_no_figure_of_that_server(self, wrong, words):
        found = reading.server({**builders.server("a").to_dict(), **wrong}, "cmpa", "web")
        self.assertEqual(("id-a", "a", "cmpa", 0), (found.id, found.name, found.host,
                                                    found.distinct_pages))
        self.assertIn("its figures cannot be true", found.error)
        self.assertIn(words, found.error)

    def test_what_is_known_without_reading_memory_is_kept(self):
        given = {**builders.server("a", memory_mib=512).to_dict(), "zero_pages": NAN, "disks": [
            {"device": "vda", "allocated_bytes": 5, "write_bytes_per_second": 1.0,
             "shared": False}]}
        found = reading.server(given, "cmpa")
        self.assertEqual((512 << 20, 5), (found.memory_bytes, found.disks[0].allocated_bytes))
        self.assertEqual(0, reading.server({**given, "memory_bytes": -1}, "cmpa").memory_bytes)

    def test_one_without_a_name_is_refused(self):
        for given in (None, 3, {"present_pages": 5}, {"id": 7}):
            self.assertRaises(exception.PlanningError, reading.server, given)


@ddt.ddt
class TestHost(base.BaseTestCase):

    def planned(self, host: HostTelemetry):
        return plan.make_plan(builders.plan_request(host, relay=True))

    def test_all_that_is_right_is_read(self):
        self.assertEqual(HostTelemetry.from_dict(sent()), reading.host(sent()))

    def test_one_wrong_server_spoils_no_other(self):
        given = sent()
        given["servers"][0]["changed"]["rate_pages_per_second"] = NAN
        found = self.planned(reading.host(given))
        self.assertEqual({"a", "b", "c"}, {m.name for g in found.groups for m in g.members})
        last = found.groups[-1]
        self.assertEqual(["a"], [member.name for member in last.members])
        self.assertIn("rate_pages_per_second must be a number not below 0, not nan",
                      last.members[0].reason)
        self.assertEqual(0, last.common_pages_bytes)
        self.assertGreaterEqual(last.wire_bytes, 256 << 20)

    @ddt.data(("page_classes", {"exact": True, "theta": NAN}, "nothing is known to be in common:"),
              ("mapped_classes", {"exact": True, "theta": -1.0}, "mapped by two servers"),
              ("portions", {"block_bytes": "x", "theta": 1.0}, "no blocks"),
              ("confirmation", {"pairs": -1, "held": 0}, "compared byte by byte"),
              ("sketch", {"key_id": "k"}, "in common with other hosts"))
    @ddt.unpack
    def test_what_is_unreadable_in_common_is_left_out_and_told_in_the_plan(self, field, wrong,
                                                                          words):
        host = reading.host(sent(**{field: wrong}))
        self.assertIsNone(getattr(host, field))
        note, = [note for note in self.planned(host).notes if words in note]
        self.assertIn(f"{field}.", note)
        self.assertIn("Measure the host again", note)
        # and again where the plan is made anew from its own JSON
        self.assertEqual(host, HostTelemetry.from_dict(host.to_dict()))

    def test_a_link_that_is_none_is_unknown(self):
        for wrong in (None, {"interface": "eth0"},
                      {**sent()["bandwidth"], "link_bytes_per_second": NAN}):
            found = self.planned(reading.host(sent(bandwidth=wrong)))
            self.assertTrue(any("nothing is known of the migration link" in note
                                for note in found.notes))
            self.assertTrue(any("112 MiB/s are assumed" in note for note in found.notes))

    def test_options_of_nova_that_are_none_are_its_defaults_and_named(self):
        given = sent()
        given["options"] |= {"downtime_ms": NAN, "max_concurrent": 7, "timeout_action": "hope"}
        options = reading.host(given).options
        self.assertEqual((500, 7, "abort"), (options.downtime_ms, options.max_concurrent,
                                             options.timeout_action))
        self.assertEqual(("live_migration_downtime", "live_migration_timeout_action"),
                         options.assumed)
        self.assertEqual(MigrationOptions(), reading.host(sent(options=None)).options)

    def test_without_servers_it_is_refused_with_the_place(self):
        for wrong in (None, 3):
            error = self.assertRaises(exception.PlanningError, reading.host,
                                      sent(servers=wrong), "PlanRequest.hosts[0]")
            self.assertIn("PlanRequest.hosts[0].servers must be a list", str(error))


class TestRequest(base.BaseTestCase):

    def test_the_same_as_all_is_read(self):
        request = builders.plan_request(builders.host([builders.server("a")]))
        self.assertEqual(request, reading.plan_request(request.to_dict()))

    def test_what_is_no_telemetry_is_refused_with_the_place(self):
        request = builders.plan_request(builders.host([builders.server("a")])).to_dict()
        request["movable"][0]["vcpus"] = NAN
        error = self.assertRaises(exception.PlanningError, reading.plan_request, request)
        self.assertIn("PlanRequest.movable[0].vcpus must be a whole number", str(error))
