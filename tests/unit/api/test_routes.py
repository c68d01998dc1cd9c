import ddt
import webob.exc
from oslotest import base

from nova_batch_migrate.api import routes
from nova_batch_migrate.api.handlers import actions, batch_migrations, events


@ddt.ddt
class SplitTest(base.BaseTestCase):
    @ddt.data(
        ("/os-batch-evacuate", (None, "")),
        ("/os-batch-evacuate/", (None, "")),
        ("/os-batch-evacuate/1/plan", (None, "/1/plan")),
        ("/os-batch-evacuate/1/plan/", (None, "/1/plan")),
        ("/6f70-65/os-batch-evacuate", ("6f70-65", "")),
        ("/6f70-65/os-batch-evacuate/1", ("6f70-65", "/1")),
        ("/os-batch-evacuate/\xff\n", (None, "/\xff\n")),
    )
    @ddt.unpack
    def test_ours(self, path, expected):
        self.assertEqual(expected, routes.split(path))

    @ddt.data("", "/", "/servers", "/os-batch-evacuate2", "/os-batch-evacuate.json",
              "/servers/os-batch-evacuate", "/6f70/servers/os-batch-evacuate", "os-batch-evacuate",
              "/os-batch-evacuat", "/6F70/os-batch-evacuate", "//os-batch-evacuate",
              "/os-batch-evacuate\n", "/6f70/6f70/os-batch-evacuate")
    def test_not_ours(self, path):
        self.assertIsNone(routes.split(path))


@ddt.ddt
class MatchTest(base.BaseTestCase):
    @ddt.data(
        ("GET", "", batch_migrations.index, {}),
        ("POST", "", batch_migrations.create, {}),
        ("GET", "/1", batch_migrations.show, {"batch_id": "1"}),
        ("DELETE", "/1", batch_migrations.delete, {"batch_id": "1"}),
        ("GET", "/1/events", events.index, {"batch_id": "1"}),
        ("POST", "/1/action", actions.create, {"batch_id": "1"}),
    )
    @ddt.unpack
    def test_handlers(self, method, path, handler, arguments):
        self.assertEqual((handler, arguments), routes.match(method, path))

    @ddt.data(
        ("PUT", "", "GET, POST"),
        ("HEAD", "", "GET, POST"),
        ("POST", "/1", "GET, DELETE"),
        ("DELETE", "/1/plan", "GET"),
        ("GET", "/1/action", "POST"),
        ("POST", "/versions", "GET"),
    )
    @ddt.unpack
    def test_wrong_method_names_the_right_ones(self, method, path, allowed):
        error = self.assertRaises(webob.exc.HTTPMethodNotAllowed, routes.match, method, path)
        self.assertEqual(allowed, error.headers["Allow"])

    @ddt.data("/1/2", "/1/plan/2", "//", "/1/actions", "/1/plan2")
    def test_unknown_path_names_the_known_ones(self, path):
        error = self.assertRaises(webob.exc.HTTPNotFound, routes.match, "GET", path)
        self.assertIn("/{batch_id}/plan", error.detail)
