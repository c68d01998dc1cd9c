"""Nova, a host or an agent fails in the middle: what is healed, retried and reported."""

from nova import exception as nova_exception
from nova.virt.libvirt import driver

from tests.functional import base, cloud


class FailedMigrations(base.BatchTestCase):
    def assert_active_on(self, host, server_id):
        server = self.server(server_id)
        self.assertEqual(("ACTIVE", host), (server["status"], server["OS-EXT-SRV-ATTR:host"]))

    def test_a_broken_stream_is_healed_and_tried_again(self):
        broken, fine = self.boot("broken", "fine")
        self.hypervisors.fail(broken, times=1)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "completed")
        self.assert_active_on("cmpb", broken)
        self.assert_active_on("cmpb", fine)
        server = self.servers_of(batch_id)[broken]
        self.assertEqual((2, True), (server["attempts"], server["healed"]))
        self.assertEqual(2, self.hypervisors.stream_count(broken))
        kinds = self.kinds_of_events(batch_id)
        self.assertLess(kinds.index("healed"), kinds.index("retry"))

    def test_attempts_are_bounded_and_the_others_move(self):
        self.config.set("conductor", max_attempts=2)
        broken, fine = self.boot("broken", "fine")
        self.hypervisors.fail(broken, times=99)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "partial")
        self.assert_active_on("cmpa", broken)
        self.assert_active_on("cmpb", fine)
        server = self.servers_of(batch_id)[broken]
        self.assertEqual(("failed", 2), (server["status"], server["attempts"]))
        self.assertEqual(2, self.hypervisors.stream_count(broken))
        self.assertIn("openstack server migrate", server["command"])

    def test_nothing_is_healed_while_a_domain_is_left_at_the_destination(self):
        broken, = self.boot("broken")
        self.hypervisors.fail(broken, times=1, leave_domain=True)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "partial", "failed")
        server = self.servers_of(batch_id)[broken]
        self.assertEqual(("failed", False), (server["status"], server["healed"]))
        self.assertIn("cmpb", server["reason"])
        self.assertEqual("ERROR", self.server(broken)["status"])
        self.assertEqual(1, self.hypervisors.stream_count(broken))


    def test_what_a_destination_refuses_is_reported_in_novas_words_and_not_repeated(self):
        refused, fine = self.boot("refused", "fine")
        accept = driver.LibvirtDriver.check_can_live_migrate_destination

        def check(virt, context, instance, *args, **kwargs):
            if instance.uuid == refused:
                raise nova_exception.MigrationPreCheckError(reason="its CPU is unlike ours")
            return accept(virt, context, instance, *args, **kwargs)

        self.stub_out("nova.virt.libvirt.driver.LibvirtDriver.check_can_live_migrate_destination",
                      check)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "partial")
        self.assert_active_on("cmpa", refused)
        self.assert_active_on("cmpb", fine)
        server = self.servers_of(batch_id)[refused]
        self.assertEqual(("failed", 1), (server["status"], server["attempts"]))
        self.assertIn("its CPU is unlike ours", server["reason"])
        self.assertEqual(0, self.hypervisors.stream_count(refused))


class Agents(base.BatchTestCase):
    def test_the_measurement_waits_for_an_agent_that_comes_back(self):
        server_id, = self.boot("a")
        self.agents["cmpa"].stop()
        self.config.set("conductor", agent_timeout_seconds=1)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "measuring")
        self.assertEqual([], self.hypervisors.streams)
        self.agents["cmpa"].start()
        self.wait_for_batch(batch_id, "completed")
        self.assertEqual("cmpb", self.host_of(server_id))

    def test_without_an_agent_the_batch_fails_with_what_to_do_and_enables_the_host_again(self):
        self.boot("a")
        self.agents["cmpa"].stop()
        self.config.set("conductor", agent_timeout_seconds=1, measure_timeout_seconds=10)
        batch_id = self.drain()["id"]
        batch = self.wait_for_batch(batch_id, "failed")
        self.assertIn("nova-batch-agent of host cmpa", batch["error"])
        self.assertEqual("enabled", self.compute_service("cmpa")["status"])
        self.assertEqual([], self.hypervisors.streams)


class Figures(base.BatchTestCase):
    def test_who_could_not_be_measured_goes_last_without_a_discount_and_is_named(self):
        good, other, below_zero, no_number, absurd = self.boot(
            "good", "other", "below", "nan", "absurd")
        self.guests.spoil(below_zero, present_pages=-5)
        self.guests.spoil(no_number, windows=[
            {"seconds": seconds, "changed_pages": 3.0} for seconds in (float("nan"), 2.0)])
        self.guests.spoil(absurd, zero_pages=1 << 40)
        batch_id = self.drain(plan_only=True)["id"]
        self.wait_for_batch(batch_id, "planned")
        groups = self.call("GET", f"/{batch_id}/plan").body["plan"]["groups"]
        self.assertEqual({good, other}, {m["server_id"] for m in groups[0]["members"]})
        said = {m["server_id"]: m["reason"] for group in groups[1:] for m in group["members"]}
        self.assertEqual({below_zero, no_number, absurd}, set(said))
        for reason in said.values():
            self.assertIn("could not be measured (its figures cannot be true", reason)
        self.assertIn("present_pages must be a whole number not below 0, not -5", said[below_zero])
        self.assertEqual([0, 0, 0], [group["common_pages_bytes"] for group in groups[1:]])
        self.act(batch_id, "start")
        self.wait_for_batch(batch_id, "completed")


class NoDestination(base.BatchTestCase):
    HOSTS = ("cmpa",)

    def test_servers_stay_and_the_plan_says_why(self):
        server_id, = self.boot("a")
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "partial")
        self.assertEqual("skipped", self.servers_of(batch_id)[server_id]["status"])
        self.assertTrue(self.servers_of(batch_id)[server_id]["reason"])
        self.assertEqual([], self.hypervisors.streams)


class TooSmallDestination(base.BatchTestCase):
    def test_what_has_no_room_stays_and_the_rest_moves(self):
        self.boot("sitting", host="cmpb", memory_mib=cloud.HOST_MEMORY_MIB - 4096)
        large, = self.boot("large", memory_mib=cloud.HOST_MEMORY_MIB - 4096)
        small, = self.boot("small", memory_mib=512)
        batch_id = self.drain()["id"]
        self.wait_for_batch(batch_id, "partial")
        self.assertEqual("cmpb", self.host_of(small))
        self.assertEqual("cmpa", self.host_of(large))
        self.assertEqual("skipped", self.servers_of(batch_id)[large]["status"])
        self.assertEqual([small], self.hypervisors.moved_order())
