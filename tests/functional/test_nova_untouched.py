"""Nova answers the same with and without the filter: status, headers, body, request ids apart.

Both applications stand over the same real Nova in one process; each hears the same story, which
leaves nothing behind.
"""

import dataclasses
import json
import pathlib

import fixtures
import webob
from nova.api import wsgi

from tests.functional import cloud, services

REQUEST_IDS = ("x-openstack-request-id", "x-compute-request-id")
NOBODY = "8d1f2a54-4a54-4c5f-8f0e-00000000dead"
LATEST = {"OpenStack-API-Version": "compute latest"}
FLAVOR = {"flavor": {"id": "77", "name": "story", "ram": 64, "vcpus": 1, "disk": 1}}


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the story and the status that Nova is known to answer."""

    status: int
    method: str
    path: str
    body: dict | bytes | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


def story(project_id: str, server_id: str) -> list[Call]:
    """Return what is asked: reads, writes, every kind of refusal, paths close to ours."""
    return [
        Call(200, "GET", "/"),
        Call(200, "GET", "/v2.1/"),
        Call(200, "GET", "/v2.1/servers/detail", headers=LATEST),
        Call(200, "GET", f"/v2.1/servers/{server_id}"),
        Call(200, "GET", f"/v2.1/{project_id}/servers?limit=1"),
        Call(200, "GET", "/v2/servers"),
        Call(200, "GET", f"/v2/{project_id}/flavors"),
        Call(200, "GET", "/v2.1/os-hypervisors", headers=LATEST),
        Call(200, "GET", "/v2.1/os-migrations", headers=LATEST),
        Call(200, "POST", "/v2.1/flavors", FLAVOR),
        Call(409, "POST", "/v2.1/flavors", FLAVOR),
        Call(200, "GET", "/v2.1/flavors/77"),
        Call(202, "DELETE", "/v2.1/flavors/77"),
        Call(404, "GET", "/v2.1/flavors/77"),
        Call(404, "GET", f"/v2.1/servers/{NOBODY}"),
        Call(404, "DELETE", f"/v2.1/servers/{NOBODY}"),
        Call(400, "POST", "/v2.1/servers", {"server": {"name": ""}}),
        Call(400, "POST", "/v2.1/servers", b"{"),
        Call(415, "POST", "/v2.1/servers", b"<server/>", {"Content-Type": "application/xml"}),
        Call(400, "POST", f"/v2.1/servers/{server_id}/action", {"os-migrateLive": {}}),
        Call(400, "GET", "/v2.1/0123/servers"),
        Call(400, "GET", "/v2.1/servers", headers={"OpenStack-API-Version": "compute x"}),
        Call(406, "GET", "/v2.1/servers", headers={"OpenStack-API-Version": "compute 9.9"}),
        Call(200, "GET", "/v2.1/servers", headers={
            "OpenStack-API-Version": "batch-migration 9.9"}),
        Call(403, "GET", "/v2.1/os-services",
             headers={"X-Auth-User": "somebody", "X-Roles": "member"}),
        Call(404, "PUT", "/v2.1/servers"),
        Call(404, "GET", "/v2.1/nothing-here"),
        Call(404, "GET", "/v2.1/os-batch-evacuated"),
        Call(404, "GET", "/v2.1/servers/os-batch-evacuate"),
        Call(404, "GET", f"/v2.1/{project_id}/servers/os-batch-evacuate"),
        Call(300, "GET", "/os-batch-evacuate"),
    ]


class NovaUntouched(cloud.NovaTestCase):
    HOSTS = ("cmpa",)
    with_filter = False

    def setUp(self):
        super().setUp()
        self.useFixture(services.Configuration({}))
        self.useFixture(services.ApiProcess())
        paste = pathlib.Path(self.useFixture(fixtures.TempDir()).path) / "filtered.ini"
        paste.write_text(cloud.paste_with_filter())
        self.plain = wsgi.Loader(str(cloud.NOVA_PASTE)).load_app("osapi_compute")
        self.filtered = wsgi.Loader(str(paste)).load_app("osapi_compute")

    def answer(self, app, call: Call) -> webob.Response:
        request = webob.Request.blank(call.path, method=call.method, base_url="http://nova:8774")
        if call.body is not None:
            raw = isinstance(call.body, bytes)
            request.body = call.body if raw else json.dumps(call.body).encode()
            request.content_type = "application/json"
        request.headers.update({
            "X-Auth-User": "admin", "X-User-Id": "admin", "X-Roles": "admin,member,reader",
            "X-Auth-Project-Id": self.api.project_id} | call.headers)
        return request.get_response(app)

    def test_every_answer_is_the_same(self):
        server = self._create_server(networks="none")
        calls = story(self.api.project_id, server["id"])
        plain, filtered = ([self.answer(app, call) for call in calls]
                           for app in (self.plain, self.filtered))
        for call, before, after in zip(calls, plain, filtered, strict=True):
            self.assertEqual(call.status, before.status_int, (call, before.text))
            self.assertEqual(before.status, after.status, call)
            self.assertEqual(before.body, after.body, call)
            self.assertEqual(self.comparable(before), self.comparable(after), call)

    @staticmethod
    def comparable(response: webob.Response) -> list[tuple[str, str]]:
        """Return the headers in their order; of request ids only that they are there."""
        return [(name, "" if name.lower() in REQUEST_IDS else value)
                for name, value in response.headerlist]

    def test_only_the_prefix_is_ours(self):
        call = Call(404, "GET", "/v2.1/os-batch-evacuate/versions")
        self.assertEqual(404, self.answer(self.plain, call).status_int)
        answer = self.answer(self.filtered, call)
        self.assertEqual("v1.0", answer.json["versions"][0]["id"])
        self.assertEqual("batch-migration 1.0", answer.headers["OpenStack-API-Version"])
        for name in REQUEST_IDS:
            self.assertRegex(answer.headers[name], "^req-")
