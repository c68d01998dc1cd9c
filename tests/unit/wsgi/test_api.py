"""The stand-alone form behind the real keystonemiddleware; only the look-up of tokens is played."""

import ddt
import fixtures
import webob
from keystonemiddleware import fixture as keystone_fixture
from oslotest import base

from nova_batch_migrate import conf as own_conf
from nova_batch_migrate.wsgi import api
from tests.unit.api import base as api_base

PROJECT_ID = "6f70656e737461636b20342065766572"


@ddt.ddt
class StandAloneTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.conf = own_conf.new()
        (path,) = self.create_tempfiles(
            [("own", "[keystone_authtoken]\nwww_authenticate_uri = http://keystone\n")], ".conf")
        own_conf.parse(self.conf, [], [path])
        self.conductor = api_base.FakeConductor()
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.api.services.ConductorLink",
            lambda conf: api_base.FakeLink(self.conductor)))
        tokens = self.useFixture(keystone_fixture.AuthTokenFixture())
        for name in ("admin", "member"):
            tokens.add_token_data(token_id=name, user_id=name, project_id=PROJECT_ID,
                                  role_list=[name])
        self.app = api.build(self.conf)
        self.conductor.answers["list"] = []

    def call(self, path, token="admin", **headers):
        request = webob.Request.blank(path, base_url="http://batch:8797")
        if token:
            headers["X-Auth-Token"] = token
        request.headers.update(headers)
        return request.get_response(self.app)

    @ddt.data("/os-batch-evacuate", "/v2.1/os-batch-evacuate", "/v2/os-batch-evacuate",
              f"/v2.1/{PROJECT_ID}/os-batch-evacuate", f"/{PROJECT_ID}/os-batch-evacuate")
    def test_the_paths_of_the_compute_endpoint(self, path):
        self.conductor.answers["list"] = [{"id": "b1"}]
        response = self.call(path)
        self.assertEqual(200, response.status_int)
        self.assertEqual([{"rel": "self", "href": f"http://batch:8797{path}/b1"}],
                         response.json["batch_migrations"][0]["links"])
        self.assertRegex(response.headers["x-openstack-request-id"], "^req-")

    @ddt.data((None, 401), ("unknown", 401), ("member", 403), ("admin", 200))
    @ddt.unpack
    def test_tokens(self, token, code):
        self.assertEqual(code, self.call("/os-batch-evacuate", token).status_int)

    def test_forged_headers_are_worth_nothing(self):
        response = self.call("/os-batch-evacuate", None, **{
            "X-Identity-Status": "Confirmed", "X-User-Id": "x", "X-Roles": "admin",
            "X-Project-Id": PROJECT_ID})
        self.assertEqual(401, response.status_int)
        response = self.call("/os-batch-evacuate", "member", **{"X-Roles": "admin"})
        self.assertEqual(403, response.status_int)

    @ddt.data("/", "")
    def test_the_root_tells_everybody_the_versions(self, path):
        response = self.call(path, None)
        self.assertEqual("http://batch:8797/os-batch-evacuate",
                         response.json["versions"][0]["links"][0]["href"])
        self.assertEqual("batch-migration 1.0", response.headers["OpenStack-API-Version"])

    def test_all_else_is_not_here(self):
        response = self.call("/v2.1/servers")
        self.assertEqual(404, response.json["itemNotFound"]["code"])

    def test_a_body_that_is_too_large(self):
        self.conf.set_override("max_request_body_size", 100, "oslo_middleware")
        request = webob.Request.blank("/os-batch-evacuate", method="POST",
                                      body=b"x" * 200, headers={"X-Auth-Token": "admin"})
        request.content_type = "application/json"
        self.assertEqual(413, request.get_response(self.app).status_int)


class IdentifyTest(base.BaseTestCase):
    def test_only_what_keystonemiddleware_confirmed(self):
        self.assertIsNone(api.identify({"HTTP_X_IDENTITY_STATUS": "Invalid",
                                        "HTTP_X_USER_ID": "x"}))
