"""A host is emptied: what moves, in which order, what stays, and what Nova says of the host."""

import datetime
import json
import time

from nova_batch_migrate.cmd import plan as command
from tests.functional import base


class Drain(base.BatchTestCase):
    def plan_order(self, batch_id):
        """Return the server ids in the order in which the plan issues them."""
        plan = self.call("GET", f"/{batch_id}/plan").body["plan"]
        return [member["server_id"] for group in plan["groups"]
                for member in sorted(group["members"], key=lambda member: member["order"])]

    def test_all_move_in_the_order_of_the_plan(self):
        large, = self.boot("large", memory_mib=2048)
        small, = self.boot("small", memory_mib=256)
        middle, = self.boot("middle", memory_mib=1024)
        batch = self.drain(max_parallel=1, strategy="none")
        batch = self.wait_for_batch(batch["id"], "completed")
        self.assertEqual([small, middle, large], self.hypervisors.moved_order())
        self.assertEqual([], self.hypervisors.domains_of("cmpa"))
        self.assertEqual(1, max(self.hypervisors.overlaps))
        for server in batch["servers"]:
            self.assertEqual("cmpb", self.host_of(server["id"]))
            self.assertEqual(("completed", "cmpa", "cmpb"),
                             (server["status"], server["source"], server["destination"]))
            self.assertEqual(1, self.hypervisors.stream_count(server["id"]))
        self.assertEqual(100, batch["progress"])

    def test_after_a_group_the_rest_is_measured_and_planned_again(self):
        first, = self.boot("first", memory_mib=256)
        second, = self.boot("second", memory_mib=1024)
        batch = self.drain(max_parallel=1, strategy="none")
        batch = self.wait_for_batch(batch["id"], "completed")
        told = [(event["kind"], event["server_id"])
                for event in self.events_of(batch["id"])]
        again = told.index(("replanned", None))
        self.assertLess(told.index(("completed", first)), again)
        self.assertLess(again, told.index(("issued", second)))
        kinds = [kind for kind, _ in told]
        self.assertEqual((2, 1), (kinds.count("measured"), kinds.count("replanned")))
        self.assertEqual((2, 2), (kinds.count("group-started"), kinds.count("group-ended")))
        moved = {server["id"]: server for server in batch["servers"]}[second]
        self.assertIsNotNone(moved["projected_seconds"], "the first projection is kept")
        plan = self.call("GET", f"/{batch['id']}/plan").body["plan"]
        self.assertEqual([second], [member["server_id"] for group in plan["groups"]
                                    for member in group["members"]])
        self.assertEqual(2, len(plan["first"]["groups"]))

    def test_a_deadline_that_cannot_be_met_is_said_and_stops_nothing(self):
        server, = self.boot("a", memory_mib=2048)
        self.hypervisors.hold()
        deadline = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
        batch = self.drain(deadline=deadline.isoformat(), plan_only=True)
        batch = self.wait_for_batch(batch["id"], "planned")
        self.assertIs(False, batch["deadline_met"])
        self.assertIn("cannot be met", " ".join(batch["notes"]))
        self.assertIs(False, self.call("GET", f"/{batch['id']}/plan").body["plan"]["deadline_met"])
        self.act(batch["id"], "start")
        self.wait_for_stream(server)
        self.wait(lambda: datetime.datetime.now(datetime.UTC) > deadline, "the deadline to pass")
        self.hypervisors.release()
        self.assertIs(False, self.wait_for_batch(batch["id"], "completed")["deadline_met"])

    def test_a_plan_of_an_empty_host_is_found_by_its_host(self):
        batch = self.drain(plan_only=True)
        found = self.call("GET", "?host=cmpa").body["batch_migrations"]
        self.assertEqual([batch["id"]], [one["id"] for one in found])

    def test_an_arrival_of_another_batch_is_left_to_it(self):
        first, = self.boot("first")
        self.hypervisors.hold()
        batch = self.drain()
        self.wait_for_stream(first)
        self.api.put_service(self.compute_service("cmpa")["id"], {"status": "enabled"})
        late, = self.boot("late")
        self.guests.hold_measures()
        other = self.drain(servers=[late])
        self.wait_for_batch(other["id"], "measuring")
        self.hypervisors.release()
        self.wait(lambda: "completed" in self.kinds_of_events(batch["id"]), "the first to move")
        # long enough for a look at what is left on the host
        time.sleep(5)
        self.assertEqual("running", self.batch(batch["id"])["status"])
        self.guests.release_measures()
        self.wait_for_batch(other["id"], "completed")
        self.wait_for_batch(batch["id"], "completed")
        kinds = self.kinds_of_events(batch["id"])
        self.assertEqual((0, 0), (kinds.count("arrived"), kinds.count("warning")))

    def test_the_plan_that_is_shown_is_the_plan_that_is_carried_out(self):
        self.boot("a", memory_mib=1024)
        self.boot("b", memory_mib=256)
        self.boot("c", memory_mib=512, dirty_pages_per_second=2000, working_set_pages=4000)
        batch = self.drain(plan_only=True)
        self.wait_for_batch(batch["id"], "planned")
        planned = self.plan_order(batch["id"])
        self.act(batch["id"], "start")
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual(planned, self.hypervisors.moved_order())

    def test_nova_batch_plan_makes_the_very_plan_of_the_conductor(self):
        """From the API's answer, and from the telemetry in it with the same limits."""
        self.boot("a", memory_mib=1024)
        self.boot("b", dirty_pages_per_second=2000, working_set_pages=4000)
        locked, = self.boot("locked")
        self.api.post_server_action(locked, {"lock": {}})
        batch = self.drain(plan_only=True)
        self.wait_for_batch(batch["id"], "planned")
        answer = self.call("GET", f"/{batch['id']}/plan").body
        made = json.loads(json.dumps(command.planned(json.dumps(answer)).to_dict()))
        self.assertEqual({field: answer["plan"][field] for field in made}, made)
        self.assertEqual((2, 1), (sum(len(g["members"]) for g in made["groups"]),
                                  len(made["staying"])))
        host, = answer["plan"]["request"]["hosts"]
        alone = command.planned(json.dumps(host))
        self.assertEqual({"a", "b"}, {m.name for g in alone.groups for m in g.members})

    def test_projected_and_actual_seconds_have_the_same_three_parts(self):
        server_id, = self.boot("a")
        batch = self.wait_for_batch(self.drain()["id"], "completed")
        server, = batch["servers"]
        self.assertEqual(server_id, server["id"])
        for kind in ("projected", "actual"):
            parts = [server[f"{kind}_{part}_seconds"] for part in ("stream", "queue", "nova")]
            self.assertAlmostEqual(server[f"{kind}_seconds"], sum(parts), places=1)
        self.assertEqual({"stream", "queue", "nova"}, set(server["actual_sources"]))
        self.assertEqual(self.guests.arrived_job["downtime"] / 1000, server["downtime_seconds"])
        self.assertEqual(self.guests.arrived_job["memory_processed"], server["raw_bytes"])

    def test_a_locked_server_stays_and_the_answer_says_why_and_what_moves_it(self):
        locked, free = self.boot("locked", "free")
        self.api.post_server_action(locked, {"lock": {"locked_reason": "do not touch"}})
        batch = self.wait_for_batch(self.drain()["id"], "partial")
        self.assertEqual("cmpa", self.host_of(locked))
        self.assertEqual("cmpb", self.host_of(free))
        stayed = {server["id"]: server for server in batch["servers"]}[locked]
        self.assertEqual(("skipped", "certain"), (stayed["status"], stayed["certainty"]))
        self.assertIn("locked", stayed["reason"])
        self.assertEqual(f"openstack server unlock {locked}", stayed["command"])
        plan = self.call("GET", f"/{batch['id']}/plan").body["plan"]
        self.assertEqual([locked], [staying["server_id"] for staying in plan["staying"]])

    def test_include_locked_moves_it(self):
        locked, = self.boot("locked")
        self.api.post_server_action(locked, {"lock": None})
        self.wait_for_batch(self.drain(include_locked=True)["id"], "completed")
        self.assertEqual("cmpb", self.host_of(locked))

    def test_a_stopped_server_stays(self):
        stopped, = self.boot("stopped")
        self.api.post_server_action(stopped, {"os-stop": None})
        self.wait(lambda: self.server(stopped)["status"] == "SHUTOFF", "the server to stop")
        batch = self.wait_for_batch(self.drain()["id"], "partial")
        self.assertIn("stopped", batch["servers"][0]["reason"])
        self.assertEqual([], self.hypervisors.streams)

    def test_the_source_is_disabled_at_the_start_and_stays_so(self):
        self.boot("a")
        self.hypervisors.hold()
        batch = self.drain()
        self.wait(self.hypervisors.running, "the stream to begin")
        service = self.compute_service("cmpa")
        self.assertEqual("disabled", service["status"])
        self.assertIn(batch["id"], service["disabled_reason"])
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual("disabled", self.compute_service("cmpa")["status"])
        self.assertEqual("enabled", self.compute_service("cmpb")["status"])

    def test_the_source_is_enabled_again_where_that_is_asked_for(self):
        self.boot("a")
        self.wait_for_batch(self.drain(leave_disabled=False)["id"], "completed")
        self.assertEqual("enabled", self.compute_service("cmpa")["status"])

    def test_plan_only_touches_nothing_until_it_is_started(self):
        server_id, = self.boot("a")
        batch = self.drain(plan_only=True)
        self.wait_for_batch(batch["id"], "planned")
        self.assertEqual([server_id], self.plan_order(batch["id"]))
        self.assertEqual("enabled", self.compute_service("cmpa")["status"])
        self.assertEqual([], self.hypervisors.streams)
        self.assertEqual(202, self.act(batch["id"], "start").status)
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual("cmpb", self.host_of(server_id))
        self.assertEqual("disabled", self.compute_service("cmpa")["status"])

    def test_a_host_without_servers_is_completed(self):
        batch = self.wait_for_batch(self.drain()["id"], "completed")
        self.assertEqual([], batch["servers"])
        self.assertEqual(100, batch["progress"])

    def test_single_servers_move_without_disabling_their_host(self):
        chosen, other = self.boot("chosen", "other")
        batch = self.drain(servers=[chosen])
        self.hypervisors.hold()
        self.wait_for_batch(batch["id"], "measuring", "running", "completed")
        self.assertEqual("enabled", self.compute_service("cmpa")["status"])
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual("cmpb", self.host_of(chosen))
        self.assertEqual("cmpa", self.host_of(other))
        self.assertEqual("enabled", self.compute_service("cmpa")["status"])

    def test_a_server_that_arrives_during_the_drain_moves_too(self):
        first, = self.boot("first")
        self.hypervisors.hold()
        batch = self.drain()
        self.wait_for_stream(first)
        service = self.compute_service("cmpa")
        self.api.put_service(service["id"], {"status": "enabled"})
        arrived, = self.boot("arrived")
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual([], self.hypervisors.domains_of("cmpa"))
        self.assertEqual("cmpb", self.host_of(arrived))
        self.assertIn("arrived", self.kinds_of_events(batch["id"]))

    def test_a_server_that_is_deleted_during_the_drain_does_not_hold_it_up(self):
        small, = self.boot("small", memory_mib=256)
        deleted, = self.boot("deleted", memory_mib=1024)
        self.hypervisors.hold()
        batch = self.drain(max_parallel=1)
        self.wait_for_stream(small)
        self._delete_server({"id": deleted})
        self.hypervisors.release()
        self.wait(lambda: self.batch(batch["id"])["status"] in base.ENDED, "the batch to end")
        self.assertEqual("cmpb", self.host_of(small))
        self.assertEqual("skipped", self.servers_of(batch["id"])[deleted]["status"])

    def test_as_many_streams_at_once_as_were_asked_for(self):
        self.boot("a", "b", "c", "d")
        self.hypervisors.hold()
        batch = self.drain(max_parallel=2)
        self.wait(lambda: len(self.hypervisors.running()) == 2, "two streams")
        self.wait(lambda: [server["status"] for server in self.batch(batch["id"])["servers"]]
                  .count("migrating") == 2, "two migrating servers")
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual(2, max(self.hypervisors.overlaps))

    def test_past_relays_as_many_streams_at_once_as_the_plan_has(self):
        self.boot("a", "b", "c", "d")
        self.hypervisors.hold()
        batch = self.drain()
        self.wait(lambda: self.hypervisors.running(), "a stream")
        group, = self.call("GET", f"/{batch['id']}/plan").body["plan"]["groups"]
        self.assertGreater(group["parallel"], 1)
        self.wait(lambda: len(self.hypervisors.running()) == group["parallel"], "all streams")
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual(group["parallel"], max(self.hypervisors.overlaps))

    def test_events_tell_the_story(self):
        server_id, = self.boot("a")
        batch = self.wait_for_batch(self.drain()["id"], "completed")
        kinds = self.kinds_of_events(batch["id"])
        story = ["created", "service-disabled", "measured", "planned", "issued", "completed",
                 "finished"]
        self.assertEqual(story, [kind for kind in kinds if kind in story])
        issued, = [event for event in self.events_of(batch["id"]) if event["kind"] == "issued"]
        self.assertEqual(server_id, issued["server_id"])
        self.assertTrue(issued["request_id"].startswith("req-"))

    def test_urgent_goes_without_measuring(self):
        server_id, = self.boot("a")
        self.guests.hold_measures()
        batch = self.wait_for_batch(self.drain(urgent=True)["id"], "completed")
        self.assertTrue(batch["urgent"])
        measured, = [e for e in self.events_of(batch["id"]) if e["kind"] == "measured"]
        self.assertIn("(urgent)", measured["message"])
        plan = self.call("GET", f"/{batch['id']}/plan").body["plan"]
        self.assertIn("1 of 1 servers go by their history alone", " ".join(plan["notes"]))
        member, = plan["groups"][0]["members"]
        self.assertEqual(server_id, member["server_id"])
        self.assertIn("by its history alone", member["reason"])
        self.assertLess(member["projection"]["raw_bytes"],
                        1.1 * self.guests[server_id].distinct_pages * 4096)

    def test_commonality_shows_what_two_servers_have_in_common(self):
        a, b = self.boot("a", "b", shared_pages=1000)
        batch = self.drain(plan_only=True)
        self.wait_for_batch(batch["id"], "planned")
        chart = self.call("GET", f"/{batch['id']}/commonality").body["commonality"]
        pair, = chart["pairs"]
        self.assertEqual({a, b}, {pair["a"], pair["b"]})
        self.assertEqual(1000 * 4096, pair["bytes"])


class ThreeHosts(base.BatchTestCase):
    HOSTS = ("cmpa", "cmpb", "cmpc")

    def test_only_to_the_hosts_that_were_named(self):
        servers = self.boot("a", "b", "c")
        self.wait_for_batch(self.drain(target_hosts=["cmpc"])["id"], "completed")
        self.assertEqual({"cmpc"}, {self.host_of(server_id) for server_id in servers})

    def test_never_to_an_excluded_host(self):
        servers = self.boot("a", "b", "c")
        self.wait_for_batch(self.drain(exclude_hosts=["cmpc"])["id"], "completed")
        self.assertEqual({"cmpb"}, {self.host_of(server_id) for server_id in servers})

    def test_two_sources_side_by_side(self):
        on_a = self.boot("a", host="cmpa")
        on_b = self.boot("b", host="cmpb")
        self.hypervisors.hold()
        batch = self.drain(hosts=["cmpa", "cmpb"], max_parallel=1)
        self.wait(lambda: len(self.hypervisors.running()) == 2, "a stream from each source")
        self.hypervisors.release()
        self.wait_for_batch(batch["id"], "completed")
        self.assertEqual({"cmpc"}, {self.host_of(server_id) for server_id in on_a + on_b})

    def test_the_source_of_another_batch_is_nobodys_destination(self):
        on_b, = self.boot("b", host="cmpb")
        on_a, = self.boot("a", host="cmpa")
        self.hypervisors.hold()
        first = self.drain(hosts=["cmpb"], target_hosts=["cmpc"])
        self.wait_for_stream(on_b)
        second = self.drain(hosts=["cmpa"])
        self.wait_for_stream(on_a)
        self.hypervisors.release()
        self.wait_for_batch(first["id"], "completed")
        self.wait_for_batch(second["id"], "completed")
        self.assertEqual("cmpc", self.host_of(on_a))
