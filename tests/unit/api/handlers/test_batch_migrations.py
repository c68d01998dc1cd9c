import ddt

from nova_batch_migrate import exception
from tests.unit.api import base

URL = "http://cloud:8774/v2.1/os-batch-evacuate"


@ddt.ddt
class BatchMigrationsTest(base.ApiTestCase):
    def test_create(self):
        self.conductor.answers["create"] = {"id": base.BATCH_ID, "status": "accepted"}
        asked = {"hosts": ["cmpa"], "plan_only": True}
        response = self.call("POST", body={"batch_migration": asked})
        self.assertEqual(202, response.status_int)
        self.assertEqual(f"{URL}/{base.BATCH_ID}", response.headers["Location"])
        self.assertEqual(
            {"batch_migration": {
                "id": base.BATCH_ID, "status": "accepted",
                "links": [{"rel": "self", "href": f"{URL}/{base.BATCH_ID}"}]}},
            response.json)
        self.assertEqual([("create", asked)], self.conductor.calls)

    @ddt.data(
        (exception.HostNotFound(host="cmp9"), 400, "badRequest", "no compute host cmp9"),
        (exception.BatchConflict(reason="busy with 7"), 409, "conflictingRequest", "busy with 7"),
        (exception.FieldNotSupported(field="stopped", value="cold-migrate", supported="leave"), 400,
         "badRequest", "stopped = cold-migrate is not built yet"),
    )
    @ddt.unpack
    def test_create_refused_by_the_conductor(self, error, code, name, words):
        self.conductor.answers["create"] = error
        response = self.call("POST", body={"batch_migration": {"hosts": ["cmp9"]}})
        self.assert_fault(code, name, words, response)
        self.assertNotIn("Location", response.headers)

    def test_create_with_a_bad_body_or_query(self):
        self.assert_fault(400, "badRequest", "not valid JSON", self.call("POST", body=b"{"))
        response = self.call("POST", body={"batch_migration": {"hosts": []}})
        self.assert_fault(400, "badRequest", "batch_migration.hosts is []", response)
        response = self.call("POST", body=b"hosts=a", Content_Type="text/plain")
        self.assert_fault(415, "badMediaType", "text/plain", response)
        response = self.call("POST", "?force=1", body={"batch_migration": {"hosts": ["a"]}})
        self.assert_fault(400, "badRequest", 'no "force"', response)
        self.assertEqual([], self.conductor.calls)

    def test_index(self):
        self.conductor.answers["list"] = [{"id": "b2"}, {"id": "b1"}]
        response = self.call("GET", "?status=running&host=cmpa")
        self.assertEqual(["b2", "b1"], [item["id"] for item in response.json["batch_migrations"]])
        self.assertNotIn("batch_migrations_links", response.json)
        self.assertEqual([("list", {"status": "running", "host": "cmpa"}, 1001, None)],
                         self.conductor.calls)

    def test_index_pages(self):
        self.conductor.answers["list"] = [{"id": "b3"}, {"id": "b2"}, {"id": "b1"}]
        response = self.call("GET", "?limit=2&marker=b4")
        self.assertEqual(["b3", "b2"], [item["id"] for item in response.json["batch_migrations"]])
        self.assertEqual([{"rel": "next", "href": f"{URL}?limit=2&marker=b2"}],
                         response.json["batch_migrations_links"])
        self.assertEqual([("list", {}, 3, "b4")], self.conductor.calls)

    def test_index_never_carries_more_than_max_limit(self):
        self.conf.set_override("max_limit", 1, "api")
        self.conductor.answers["list"] = [{"id": "b2"}, {"id": "b1"}]
        response = self.call("GET", "?limit=500")
        self.assertEqual(1, len(response.json["batch_migrations"]))
        self.assertEqual([("list", {}, 2, None)], self.conductor.calls)

    def test_show(self):
        self.conductor.answers["get"] = {"id": base.BATCH_ID, "servers": [{"name": "<b>"}]}
        response = self.call("GET", f"/{base.BATCH_ID}")
        self.assertEqual(200, response.status_int)
        self.assertEqual([{"name": "<b>"}], response.json["batch_migration"]["servers"])
        self.assertEqual([("get", base.BATCH_ID)], self.conductor.calls)

    def test_delete(self):
        response = self.call("DELETE", f"/{base.BATCH_ID}")
        self.assertEqual((204, b""), (response.status_int, response.body))
        self.assertEqual([("delete", base.BATCH_ID)], self.conductor.calls)

    def test_delete_while_active(self):
        self.conductor.answers["delete"] = exception.InvalidBatchState(
            batch_id=base.BATCH_ID, status="running", action="delete", allowed="completed")
        self.assert_fault(409, "conflictingRequest", "while it is running",
                          self.call("DELETE", f"/{base.BATCH_ID}"))
