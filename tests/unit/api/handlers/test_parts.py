"""Everything below one batch migration: plan, commonality, events, actions."""

import ddt

from nova_batch_migrate import exception
from tests.unit.api import base

URL = f"http://cloud:8774/v2.1/os-batch-evacuate/{base.BATCH_ID}"
CALLS = [("GET", "", "get", None), ("DELETE", "", "delete", None), ("GET", "/plan", "plan", None),
         ("GET", "/commonality", "commonality", None), ("GET", "/events", "events", None),
         ("POST", "/action", "action", {"start": None})]


@ddt.ddt
class PartsTest(base.ApiTestCase):
    @ddt.data(("plan", "", (True,)), ("plan", "?request=true", (True,)),
              ("plan", "?request=false", (False,)), ("commonality", "", ()))
    @ddt.unpack
    def test_plan_and_commonality(self, part, query, whole):
        self.conductor.answers[part] = {"schema_version": "1.0"}
        response = self.call("GET", f"/{base.BATCH_ID}/{part}{query}")
        self.assertEqual({part: {"schema_version": "1.0"}}, response.json)
        self.assertEqual([(part, base.BATCH_ID, *whole)], self.conductor.calls)

    def test_events(self):
        self.conductor.answers["events"] = [{"id": 4}, {"id": 5}, {"id": 9}]
        response = self.call("GET", f"/{base.BATCH_ID}/events?limit=2&marker=3")
        self.assertEqual(
            {"events": [{"id": 4}, {"id": 5}],
             "events_links": [{"rel": "next", "href": f"{URL}/events?limit=2&marker=5"}]},
            response.json)
        self.assertEqual([("events", base.BATCH_ID, 3, 3)], self.conductor.calls)

    @ddt.data(
        ({"start": None}, ("start", {})),
        ({"pause": {}}, ("pause", {})),
        ({"abort": {"running": "abort"}}, ("abort", {"running": "abort"})),
    )
    @ddt.unpack
    def test_actions(self, body, expected):
        self.conductor.answers["action"] = {"id": base.BATCH_ID, "status": "aborting"}
        response = self.call("POST", f"/{base.BATCH_ID}/action", body)
        self.assertEqual(202, response.status_int)
        self.assertEqual("aborting", response.json["batch_migration"]["status"])
        self.assertEqual([("action", base.BATCH_ID, *expected)], self.conductor.calls)

    @ddt.data(*CALLS)
    @ddt.unpack
    def test_unknown_batch(self, method, path, name, body):
        self.conductor.answers[name] = exception.BatchNotFound(batch_id=base.BATCH_ID)
        response = self.call(method, f"/{base.BATCH_ID}{path}", body)
        self.assert_fault(404, "itemNotFound", base.BATCH_ID, response)

    @ddt.data(*CALLS)
    @ddt.unpack
    def test_what_is_no_id_troubles_no_conductor(self, method, path, name, body):
        response = self.call(method, f"/web-1{path}", body)
        self.assert_fault(404, "itemNotFound", "no batch migration web-1", response)
        self.assertEqual([], self.conductor.calls)

    @ddt.data(*CALLS)
    @ddt.unpack
    def test_unknown_query_keys(self, method, path, name, body):
        response = self.call(method, f"/{base.BATCH_ID}{path}?all_tenants=1", body)
        self.assert_fault(400, "badRequest", 'no "all_tenants"', response)
