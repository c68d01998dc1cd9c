"""NovaClient against answers in Nova 34's form: what it asks, what it makes of it."""

import datetime

import ddt
import requests

from nova_batch_migrate import exception
from nova_batch_migrate.clients import nova
from tests.unit.clients import cloud
from tests.unit.clients.cloud import NOVA, SERVER_ID, fault, migration, server

AT = datetime.datetime(2026, 11, 23, 8, 27, 37)


class NovaTestCase(cloud.CloudTestCase):
    def setUp(self):
        super().setUp()
        self.client = nova.NovaClient(self.conf)


class ServersTest(NovaTestCase):
    def test_a_server_with_all_that_decides_whether_it_moves(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": server()})

        found = self.client.server(SERVER_ID)

        self.assertEqual(
            (SERVER_ID, "web", "009f", "cmpa", "cmpa.example", "active", None, "running"),
            (found.id, found.name, found.project_id, found.host, found.node, found.vm_state,
             found.task_state, found.power_state))
        self.assertEqual((True, "payroll"), (found.locked, found.locked_reason))
        # 10 GB root, 3 GB ephemeral, 1025 MiB of swap rounded up
        self.assertEqual((384 << 20, 2, 15), (found.memory_bytes, found.vcpus, found.disk_gb))
        self.assertEqual((False, ("vol-1",)), (found.volume_backed, found.volumes))
        self.assertEqual({"hw:cpu_policy": "dedicated"}, found.extra_specs)
        self.assertEqual({"hw_machine_type": "pc", "hw_tpm_version": "2.0"},
                         found.image_properties)
        self.assertTrue(found.image_properties_known)
        self.assertEqual({"group": ["g-1"]}, found.scheduler_hints)
        self.assertEqual("nova", found.pinned_availability_zone)
        self.assertEqual(datetime.datetime(2026, 11, 23, 8, 26, 48), found.created_at)
        self.assertIsNone(found.fault)

    def test_a_volume_backed_server_takes_no_root_disk_and_hides_its_properties(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": server(image="")})

        found = self.client.server(SERVER_ID)

        self.assertEqual((True, 5, {}, False),
                         (found.volume_backed, found.disk_gb, found.image_properties,
                          found.image_properties_known))

    def test_a_server_in_error_tells_its_fault(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": server(
            status="ERROR", fault={"code": 500, "created": "x", "message": "boom"})})

        self.assertEqual("boom", self.client.server(SERVER_ID).fault)

    def test_a_server_that_is_gone_is_none(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", status_code=404, json=fault(
            "itemNotFound", 404, f"Instance {SERVER_ID} could not be found."))

        self.assertIsNone(self.client.server(SERVER_ID))

    def test_a_404_that_is_not_novas_does_not_mean_gone(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", status_code=404, text="<h1>Not Found</h1>")

        self.assertRaises(exception.NovaPermanentError, self.client.server, SERVER_ID)

    def test_a_server_whose_cell_is_down_is_nothing_to_decide_by(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": {
            "id": SERVER_ID, "status": "UNKNOWN", "tenant_id": "009f", "links": []}})

        self.assertRaises(exception.NovaTransientError, self.client.server, SERVER_ID)

    def test_a_user_who_may_not_see_hosts_is_told_what_is_missing(self):
        body = server()
        del body["OS-EXT-SRV-ATTR:host"]
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": body})

        error = self.assertRaises(exception.NovaPermanentError, self.client.server, SERVER_ID)

        self.assertIn("admin", str(error))

    def test_the_servers_of_a_host_are_those_of_every_page_and_project(self):
        pages = {None: ["a", "b"], "b": ["c", "d"], "d": []}

        def page(request, _context):
            ids = pages[request.qs.get("marker", [None])[0]]
            body = {"servers": [server(id=name, name=name) for name in ids]}
            if ids:
                body["servers_links"] = [{"rel": "next", "href": "http://wrong.invalid/"}]
            return body

        self.http.get(f"{NOVA}/servers/detail", json=page)

        found = self.client.servers_on("cmpa")

        self.assertEqual(["a", "b", "c", "d"], [item.id for item in found])
        for request in self.asked("/servers/detail"):
            self.assertEqual((["true"], ["cmpa"]),
                             (request.qs["all_tenants"], request.qs["host"]))

    def test_what_is_at_rest_on_a_host_is_told_by_the_plain_list(self):
        self.http.get(f"{NOVA}/servers", json={"servers": [{"id": "a"}, {"id": "b"}]})

        self.assertEqual({"a", "b"}, self.client.at_rest_on("cmpa"))
        self.assertEqual({"a", "b"}, self.client.at_rest_on("cmpa", locked_too=False))
        seen, unlocked = self.asked("/servers")
        self.assertEqual({"all_tenants": ["true"], "host": ["cmpa"],
                          "status": ["active", "paused"]}, seen.qs)
        self.assertEqual(seen.qs | {"locked": ["false"]}, unlocked.qs)

    def test_a_server_is_found_by_its_id(self):
        self.http.get(f"{NOVA}/servers/{SERVER_ID}", json={"server": server()})

        self.assertEqual(SERVER_ID, self.client.find_server(SERVER_ID).id)

    def test_a_server_is_found_by_its_exact_name(self):
        self.http.get(f"{NOVA}/servers/detail", json={"servers": [
            server(id="other", name="WEB+1"), server(id="right", name="web+1")]})

        self.assertEqual("right", self.client.find_server("web+1").id)
        self.assertEqual(r"^web\+1$", self.asked("/servers/detail")[0].qs["name"][0])

    def test_a_name_that_is_not_there_is_none(self):
        self.http.get(f"{NOVA}/servers/detail", json={"servers": []})

        self.assertIsNone(self.client.find_server("web"))

    def test_a_name_that_several_have_is_the_callers_to_resolve(self):
        self.http.get(f"{NOVA}/servers/detail", json={"servers": [
            server(id="one"), server(id="two")]})

        error = self.assertRaises(exception.InvalidInput, self.client.find_server, "web")

        self.assertIn("one, two", str(error))


class MigrationsTest(NovaTestCase):
    def test_migrations_of_all_pages_newest_first(self):
        last_of_page = migration(2)["uuid"]
        self.http.get(f"{NOVA}/os-migrations?instance_uuid={SERVER_ID}", json={
            "migrations": [migration(3, status="accepted", dest_compute=None, updated_at=None),
                           migration(2, status="error")],
            "migrations_links": [{"rel": "next", "href": "x"}]})
        self.http.get(f"{NOVA}/os-migrations?instance_uuid={SERVER_ID}&marker={last_of_page}",
                      json={"migrations": [migration(1, migration_type="resize")]})

        found = self.client.migrations(SERVER_ID)

        self.assertEqual([3, 2, 1], [item.id for item in found])
        self.assertEqual(("accepted", None, None),
                         (found[0].status, found[0].destination, found[0].updated_at))
        self.assertEqual(("error", "cmpa", "cmpb", "live-migration", AT),
                         (found[1].status, found[1].source, found[1].destination,
                          found[1].migration_type, found[1].created_at))
        self.assertEqual("resize", found[2].migration_type)

    def test_what_leaves_a_host_is_one_call(self):
        self.http.get(f"{NOVA}/os-migrations", json={
            "migrations": [migration(2, status="error"), migration(3)],
            "migrations_links": [{"rel": "next", "href": "x"}]})

        found = self.client.migrations_from("cmpa", 2)

        self.assertEqual([(3, "cmpa"), (2, "cmpa")], [(item.id, item.source) for item in found])
        asked = self.asked("/os-migrations")
        self.assertEqual([{"source_compute": ["cmpa"], "migration_type": ["live-migration"],
                           "limit": ["2"]}], [request.qs for request in asked])

    def test_a_live_migration_names_its_host_and_never_forces(self):
        self.http.post(f"{NOVA}/servers/{SERVER_ID}/action", status_code=202,
                       headers={"x-openstack-request-id": "req-1"})

        self.assertEqual("req-1", self.client.live_migrate(SERVER_ID, "cmpb"))

        request = self.asked("/action")[0]
        self.assertEqual({"os-migrateLive": {"host": "cmpb", "block_migration": "auto"}},
                         request.json())
        self.assertEqual("compute 2.100", request.headers["OpenStack-API-Version"])

    def test_a_live_migration_whose_answer_is_lost_is_not_sent_twice(self):
        self.conf.set_override("connect_retries", 3, "nova")
        self.http.post(f"{NOVA}/servers/{SERVER_ID}/action", exc=requests.ConnectionError)

        self.assertRaises(exception.NovaTransientError,
                          self.client.live_migrate, SERVER_ID, "cmpb")

        self.assertEqual(1, len(self.asked("/action")))

    def test_a_busy_server_is_worth_a_retry_a_stopped_one_not(self):
        for state, expected in (("task_state rebooting", exception.NovaTransientError),
                                ("vm_state stopped", exception.NovaPermanentError)):
            self.http.post(f"{NOVA}/servers/{SERVER_ID}/action", status_code=409, json=fault(
                "conflictingRequest", 409,
                f"Cannot 'os-migrateLive' instance {SERVER_ID} while it is in {state}"))

            self.assertRaises(expected, self.client.live_migrate, SERVER_ID, "cmpb")

    def test_abort_and_reset_speak_novas_language(self):
        base = f"{NOVA}/servers/{SERVER_ID}"
        self.http.delete(f"{base}/migrations/7", status_code=202)
        self.http.post(f"{base}/action", status_code=202)

        self.client.abort_migration(SERVER_ID, 7)
        self.client.reset_state_active(SERVER_ID)

        self.assertEqual(
            [("DELETE", None), ("POST", {"os-resetState": {"state": "active"}})],
            [(request.method, request.json() if request.body else None)
             for request in self.asked(f"/servers/{SERVER_ID}/")])


class LastActionErrorTest(NovaTestCase):
    ACTIONS = f"{NOVA}/servers/{SERVER_ID}/os-instance-actions"

    def _list(self, *actions):
        self.http.get(self.ACTIONS, json={"instanceActions": [
            {"action": name, "instance_uuid": SERVER_ID, "request_id": request_id,
             "start_time": "2026-11-23T08:41:30.000000", "message": None}
            for name, request_id in actions]})

    def _show(self, request_id, *events):
        self.http.get(f"{self.ACTIONS}/{request_id}", json={"instanceAction": {
            "action": "live-migration", "request_id": request_id, "events": [
                {"event": name, "result": result, "details": details, "traceback": None}
                for name, result, details in events]}})

    def test_the_compute_hosts_words_come_before_the_schedulers(self):
        self._list(("resetState", "req-9"), ("live-migration", "req-2"),
                   ("live-migration", "req-1"))
        self._show("req-2",
                   ("conductor_live_migrate_instance", "Error", "No valid host was found."),
                   ("compute_check_can_live_migrate_destination", "Error", "Unacceptable CPU"),
                   ("compute_check_can_live_migrate_source", "Success", None))

        self.assertEqual("Unacceptable CPU; No valid host was found.",
                         self.client.last_action_error(SERVER_ID))

    def test_the_same_words_are_said_once_and_an_event_without_words_is_named(self):
        self._list(("live-migration", "req-1"))
        self._show("req-1", ("conductor_live_migrate_instance", "Error", "boom"),
                   ("compute_pre_live_migration", "Error", "boom"),
                   ("compute_live_migration", "Error", None))

        self.assertEqual("boom; compute_live_migration", self.client.last_action_error(SERVER_ID))

    def test_one_request_of_several(self):
        self._show("req-1", ("conductor_live_migrate_instance", "Error", "the first"))

        self.assertEqual("the first", self.client.last_action_error(SERVER_ID, "req-1"))

    def test_a_migration_without_a_failed_step_has_no_error(self):
        self._list(("live-migration", "req-1"))
        self._show("req-1", ("compute_live_migration", "Success", None))

        self.assertIsNone(self.client.last_action_error(SERVER_ID))

    def test_a_server_that_never_migrated_or_is_gone_has_no_error(self):
        self._list(("create", "req-1"))
        self.assertIsNone(self.client.last_action_error(SERVER_ID))

        self.http.get(self.ACTIONS, status_code=404, json=fault("itemNotFound", 404, "gone"))
        self.assertIsNone(self.client.last_action_error(SERVER_ID))


class HostsTest(NovaTestCase):
    def test_services_also_of_a_cell_that_is_down(self):
        self.http.get(f"{NOVA}/os-services", json={"services": [
            {"binary": "nova-compute", "host": "cmpa", "id": "s-1", "zone": "nova",
             "status": "enabled", "state": "up", "updated_at": "2026-11-23T08:28:20.000000",
             "disabled_reason": None, "forced_down": False},
            {"binary": "nova-compute", "host": "cmpx", "status": "UNKNOWN"}]})

        self.assertEqual(
            [{"id": "s-1", "host": "cmpa", "state": "up", "status": "enabled", "zone": "nova",
              "disabled_reason": None, "forced_down": False},
             {"id": None, "host": "cmpx", "state": "unknown", "status": "unknown", "zone": None,
              "disabled_reason": None, "forced_down": False}],
            self.client.compute_services())
        self.assertEqual(["nova-compute"], self.asked("/os-services")[0].qs["binary"])

    def test_a_service_is_disabled_with_a_reason_that_nova_takes(self):
        self.http.put(f"{NOVA}/os-services/s-1", json={"service": {}})

        self.client.disable_service("s-1", "r" * 300)
        self.client.enable_service("s-1")

        self.assertEqual([{"status": "disabled", "disabled_reason": "r" * 255},
                          {"status": "enabled"}],
                         [request.json() for request in self.asked("/os-services/s-1")])

    def test_hypervisors_are_asked_for_without_their_uptime(self):
        self.http.get(f"{NOVA}/os-hypervisors/detail", json={"hypervisors": [{
            "id": "h-1", "hypervisor_hostname": "cmpa.example", "state": "up",
            "status": "enabled", "hypervisor_type": "QEMU", "hypervisor_version": 10000002,
            "host_ip": "10.77.0.11", "service": {"id": "s-1", "host": "cmpa",
                                                 "disabled_reason": None}}]})

        found = self.client.hypervisors()[0]

        self.assertEqual(("cmpa", "cmpa.example", "QEMU", 10000002, "10.77.0.11"),
                         (found.host, found.node, found.type, found.version, found.host_ip))
        self.assertEqual("compute 2.87",
                         self.asked("/os-hypervisors")[0].headers["OpenStack-API-Version"])

    def test_server_groups_of_all_projects_and_pages(self):
        groups = [{"id": f"g-{number}", "name": "n", "policy": "anti-affinity", "rules": {},
                   "members": [SERVER_ID], "project_id": "p", "user_id": "u"}
                  for number in range(3)]

        def page(request, _context):
            offset = int(request.qs["offset"][0])
            return {"server_groups": groups[offset:offset + 2]}

        self.http.get(f"{NOVA}/os-server-groups", json=page)

        self.assertEqual(
            [{"id": f"g-{number}", "name": "n", "policy": "anti-affinity",
              "members": [SERVER_ID], "rules": {}} for number in range(3)],
            self.client.server_groups())
        self.assertEqual(["true"], self.asked("/os-server-groups")[0].qs["all_projects"])


@ddt.ddt
class MicroversionTest(cloud.CloudTestCase):
    @ddt.data(("2.68", "2.68"), ("2.95", "2.95"), ("2.100", "2.100"), ("2.104", "2.100"))
    @ddt.unpack
    def test_the_newest_that_both_know(self, offered, used):
        self.max_microversion = offered
        self._publish()
        self.http.get(f"{NOVA}/os-services", json={"services": []})
        client = nova.NovaClient(self.conf)

        client.compute_services()
        client.compute_services()

        self.assertEqual([f"compute {used}"] * 2, [
            request.headers["OpenStack-API-Version"] for request in self.asked("/os-services")])

    def test_a_nova_that_is_too_old_is_refused_before_anything_is_asked(self):
        self.max_microversion = "2.67"
        self._publish()

        error = self.assertRaises(exception.NovaPermanentError,
                                  nova.NovaClient(self.conf).compute_services)

        self.assertIn("2.67", str(error))
        self.assertIn("2.68", str(error))
        self.assertEqual([], self.asked("/os-services"))


class BeforeLockedTest(cloud.CloudTestCase):
    max_microversion = "2.72"

    def test_a_nova_that_cannot_tell_who_is_locked_is_asked_for_each(self):
        self.http.get(f"{NOVA}/servers", json={"servers": [{"id": "a"}]})
        client = nova.NovaClient(self.conf)

        self.assertEqual(frozenset(), client.at_rest_on("cmpa", locked_too=False))
        self.assertEqual({"a"}, client.at_rest_on("cmpa"))


class ReachingNovaTest(NovaTestCase):
    def test_one_login_serves_many_calls_and_says_who_calls(self):
        self.http.get(f"{NOVA}/os-services", json={"services": []})

        for _ in range(3):
            self.client.compute_services()

        self.assertEqual(1, len(self.asked("/auth/tokens")))
        self.assertIn("nova-batch-migrate", self.asked("/os-services")[0].headers["User-Agent"])

    def test_a_nova_that_does_not_answer_is_transient(self):
        self.http.get(f"{NOVA}/os-services", exc=requests.ConnectTimeout)

        self.assertRaises(exception.NovaTransientError, self.client.compute_services)

    def test_a_keystone_that_does_not_answer_is_transient(self):
        self.http.post(f"{cloud.KEYSTONE}/auth/tokens", exc=requests.ConnectionError)

        self.assertRaises(exception.NovaTransientError, self.client.compute_services)
        self.assertRaises(exception.NovaTransientError, self.client.log_in)

    def test_a_call_after_keystone_came_back_works(self):
        self.http.post(f"{cloud.KEYSTONE}/auth/tokens", exc=requests.ConnectionError)
        self.assertRaises(exception.NovaTransientError, self.client.compute_services)
        self._publish()
        self.http.get(f"{NOVA}/os-services", json={"services": []})

        self.assertEqual([], self.client.compute_services())

    def test_an_answer_that_is_no_json_is_transient(self):
        self.http.get(f"{NOVA}/os-services", text="<html>maintenance</html>")

        error = self.assertRaises(exception.NovaTransientError, self.client.compute_services)

        self.assertIn("maintenance", str(error))

    def test_a_refused_password_is_no_servers_fault_but_an_operators(self):
        self.http.post(f"{cloud.KEYSTONE}/auth/tokens", status_code=401, json={"error": {
            "code": 401, "title": "Unauthorized", "message": "Invalid password"}})

        self.assertRaises(exception.NovaTransientError, self.client.compute_services)
        error = self.assertRaises(exception.NovaPermanentError, self.client.log_in)
        self.assertIn("[nova]", str(error))

    def test_a_section_that_is_not_filled_in_is_named(self):
        self.conf.clear_override("auth_type", "nova")

        error = self.assertRaises(exception.NovaPermanentError, self.client.compute_services)

        self.assertIn("[nova]", str(error))

    def test_a_region_that_is_not_in_the_catalogue_is_the_operators_to_mend(self):
        self.conf.set_override("region_name", "Elsewhere", "nova")

        error = self.assertRaises(exception.NovaPermanentError, self.client.compute_services)

        self.assertIn("region_name", str(error))
