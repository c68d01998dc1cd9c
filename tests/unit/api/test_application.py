import ddt
import fixtures

from nova_batch_migrate import exception
from tests.unit.api import base


@ddt.ddt
class ApplicationTest(base.ApiTestCase):
    def assert_stamped(self, response):
        for name in ("Version", "Minimum-Version", "Maximum-Version"):
            self.assertEqual("batch-migration 1.0", response.headers[f"OpenStack-API-{name}"])
        self.assertIn("OpenStack-API-Version", response.headers.getall("Vary"))

    @ddt.data(
        ("GET", "/versions", 200),
        ("GET", "/versions/x/y", 404),
        ("PUT", "", 405),
        ("POST", "", 400),
        ("GET", "/not-an-id", 404),
    )
    @ddt.unpack
    def test_every_answer_names_the_versions(self, method, path, code):
        response = self.call(method, path)
        self.assertEqual(code, response.status_int)
        self.assert_stamped(response)

    def test_unknown_version(self):
        response = self.call("GET", OpenStack_API_Version="batch-migration 9.9")
        self.assert_fault(406, "computeFault", "9.9", response)
        self.assert_stamped(response)

    def test_another_services_version_is_none_of_ours(self):
        self.conductor.answers["list"] = []
        response = self.call("GET", OpenStack_API_Version="compute 2.95")
        self.assertEqual(200, response.status_int)

    def test_wrong_method(self):
        response = self.call("PATCH", f"/{base.BATCH_ID}")
        self.assert_fault(405, "badMethod", "GET, DELETE", response)
        self.assertEqual("GET, DELETE", response.headers["Allow"])

    def test_head_has_no_body(self):
        response = self.call("HEAD")
        self.assertEqual((405, b""), (response.status_int, response.body))

    def test_nobody(self):
        response = self.call("GET", environ={"test.caller": None})
        self.assert_fault(401, "unauthorized", "X-Auth-Token", response)

    def test_bytes_that_are_no_text(self):
        response = self.call("GET", environ={"PATH_INFO": base.PREFIX + "/\xff\xfe"})
        self.assert_fault(404, "itemNotFound", "no batch migration", response)
        response = self.call("GET", environ={"QUERY_STRING": "host=%ff"})
        self.assert_fault(400, "badRequest", "UTF-8", response)

    def test_project_of_the_url(self):
        self.conductor.answers["list"] = [{"id": base.BATCH_ID}]
        path = f"/{base.PROJECT_ID}{base.PREFIX}"
        response = self.call("GET", environ={"PATH_INFO": path})
        self.assertEqual(
            f"http://cloud:8774/v2.1{path}/{base.BATCH_ID}",
            response.json["batch_migrations"][0]["links"][0]["href"])
        response = self.call("GET", environ={"PATH_INFO": f"/0123{base.PREFIX}"})
        self.assert_fault(400, "badRequest", "names the project 0123", response)

    def test_unforeseen_errors_are_logged_and_not_told(self):
        log = self.useFixture(fixtures.FakeLogger("nova_batch_migrate"))
        self.conductor.answers["get"] = KeyError("password=secret")
        caller = self.caller(request_id="req-77")
        response = self.call("GET", f"/{base.BATCH_ID}", caller=caller)
        self.assert_fault(500, "computeFault", "req-77", response)
        self.assertNotIn("secret", response.text)
        self.assertIn("password=secret", log.output)

    def test_no_conductor(self):
        self.conductor.answers["get"] = exception.ConductorUnavailable(seconds=10)
        response = self.call("GET", f"/{base.BATCH_ID}")
        self.assert_fault(503, "serviceUnavailable", "within 10 seconds", response)
        self.assertEqual("10", response.headers["Retry-After"])

    def test_versions(self):
        document = self.call("GET", "/versions").json
        self.assertEqual(
            [{"id": "v1.0", "status": "CURRENT", "min_version": "1.0", "max_version": "1.0",
              "links": [{"rel": "self", "href": "http://cloud:8774/v2.1/os-batch-evacuate"}]}],
            document["versions"])
