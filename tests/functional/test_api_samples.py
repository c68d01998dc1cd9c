"""The samples of the API reference look like real answers, and its words cover every field."""

import json
import pathlib

import webob
import yaml
from oslotest import base

from nova_batch_migrate.api.schemas import batch_migrations as schemas
from tests.functional import gabbi_fixtures

SOURCE = pathlib.Path(__file__).parents[2] / "api-ref" / "source"
PREFIX = "/v2.1/os-batch-evacuate"


def sample(name: str) -> dict:
    return json.loads((SOURCE / "samples" / f"{name}.json").read_text())


def differences(left, right, where: str = "") -> list[str]:
    """Return where two JSON values differ in keys; null and empty lists fit everything."""
    if isinstance(left, dict) and isinstance(right, dict):
        missing = [f"{where}.{key}" for key in left.keys() ^ right.keys()]
        return missing + [found for key in left.keys() & right.keys()
                          for found in differences(left[key], right[key], f"{where}.{key}")]
    if isinstance(left, list) and isinstance(right, list) and left and right:
        return differences(left[0], right[0], f"{where}[0]")
    if left in (None, []) or right in (None, []):
        return []
    number = (int, float)
    same = isinstance(left, number) and isinstance(right, number) or type(left) is type(right)
    return [] if same else [f"{where}: {left!r} and {right!r}"]


class SamplesTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        api = gabbi_fixtures.Api()
        api.start_fixture()
        self.addCleanup(api.stop_fixture)

    def call(self, method, path="", body=None):
        request = webob.Request.blank(PREFIX + path, method=method,
                                      headers={"X-Auth-Token": "admin"})
        if body is not None:
            request.body = json.dumps(body).encode()
            request.content_type = "application/json"
        return request.get_response(gabbi_fixtures.application()).json

    def assert_like_sample(self, name, answer):
        self.assertEqual([], differences(sample(name), answer), name)

    def test_answers_look_like_the_samples(self):
        request = sample("batch-migration-create-req")
        request["batch_migration"]["plan_only"] = True
        created = self.call("POST", body=request)
        path = f"/{created['batch_migration']['id']}"
        self.assert_like_sample("batch-migration-create-resp", created)
        self.assert_like_sample("batch-migration-show-resp", self.call("GET", path))
        self.assert_like_sample("plan-show-resp", self.call("GET", f"{path}/plan"))
        self.assert_like_sample("commonality-show-resp", self.call("GET", f"{path}/commonality"))
        self.assert_like_sample("events-list-resp", self.call("GET", f"{path}/events?limit=2"))
        self.assert_like_sample("action-resp", self.call(
            "POST", f"{path}/action", sample("action-start-req")))
        self.assert_like_sample("action-resp", self.call(
            "POST", f"{path}/action", sample("action-abort-req")))
        self.call("POST", body=request)
        self.assert_like_sample("batch-migration-list-resp", self.call("GET", "?limit=1"))
        self.assert_like_sample("versions-resp", self.call("GET", "/versions"))
        self.assert_like_sample("fault-resp", self.call(
            "GET", "/8d1f2a54-4a54-4c5f-8f0e-00000000dead"))


class WordsTest(base.BaseTestCase):
    def documented(self) -> str:
        return "".join(path.read_text() for path in SOURCE.glob("*.inc"))

    def test_every_field_is_listed(self):
        shown = sample("batch-migration-show-resp")["batch_migration"]
        events = sample("events-list-resp")["events"]
        for field in {*schemas.FIELDS, *schemas.INDEX["properties"], *shown,
                      *shown["servers"][0], *events[0]}:
            self.assertIn(f"  - {field}: ", self.documented(), field)

    def test_every_reference_is_explained_and_every_explanation_referred_to(self):
        explained = yaml.safe_load((SOURCE / "parameters.yaml").read_text())
        referred = {line.rpartition(": ")[2] for line in self.documented().splitlines()
                    if line.startswith("  - ")}
        self.assertEqual(referred, set(explained))
