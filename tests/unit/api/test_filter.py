import copy

import ddt
import fixtures
import webob
from nova import context as nova_context
from oslo_config import cfg
from oslotest import base

from nova_batch_migrate.api import filter as paste_filter
from nova_batch_migrate.api import services


def answer(text):
    return lambda environ, start_response: webob.Response(text)(environ, start_response)


class Recorder:
    """Stands for Nova: keeps the very environ it was called with."""

    def __call__(self, environ, start_response):
        self.environ = environ
        return answer("nova")(environ, start_response)


@ddt.ddt
class FilterTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.nova = Recorder()
        self.filter = paste_filter.Filter(self.nova, answer("own"))

    @ddt.data("/servers", "/6f70/servers/detail", "", "/", "/os-batch-evacuate-not",
              "/servers/os-batch-evacuate", "/\xff\xfe")
    def test_all_else_goes_on_with_an_unchanged_environ(self, path):
        environ = webob.Request.blank("/", base_url="http://cloud/v2.1").environ
        environ["PATH_INFO"] = path
        environ["nova.context"] = object()
        before = copy.copy(environ)
        request = webob.Request(environ)
        self.assertEqual("nova", request.get_response(self.filter).text)
        self.assertIs(environ, self.nova.environ)
        self.assertEqual(before, environ)

    @ddt.data("/os-batch-evacuate", "/6f70/os-batch-evacuate/1/plan")
    def test_our_prefix_never_reaches_nova(self, path):
        request = webob.Request.blank(path)
        self.assertEqual("own", request.get_response(self.filter).text)

    def test_an_environ_without_a_path_is_novas(self):
        environ = webob.Request.blank("/").environ
        del environ["PATH_INFO"]
        self.filter(environ, lambda status, headers: None)
        self.assertIs(environ, self.nova.environ)


class IdentifyTest(base.BaseTestCase):
    def test_identity_of_novas_context(self):
        nova = nova_context.RequestContext(
            user_id="u", project_id="p", roles=["admin", "member"], request_id="req-1",
            is_admin=True, overwrite=False)
        caller = paste_filter.identify({"nova.context": nova})
        self.assertEqual(("u", "p", ["admin", "member"], "req-1"),
                         (caller.user_id, caller.project_id, caller.roles, caller.request_id))

    def test_headers_alone_are_nobody(self):
        self.assertIsNone(paste_filter.identify(
            {"HTTP_X_USER_ID": "u", "HTTP_X_ROLES": "admin",
             "HTTP_X_IDENTITY_STATUS": "Confirmed"}))


class FactoryTest(base.BaseTestCase):
    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MonkeyPatch(
            "nova_batch_migrate.api.services._of_process", {}))
        self.addCleanup(services.own_conf.CONF.reset)
        self.path = self.create_tempfiles(
            [("own", "[DEFAULT]\ntransport_url = fake:/\n[api]\nmax_limit = 7\n")], ".conf")[0]

    def make(self, **local_conf):
        return paste_filter.filter_factory({"here": "/etc/nova"}, **local_conf)

    def test_all_pipelines_share_what_is_expensive(self):
        first = self.make(config_file=self.path)(answer("nova"))
        second = self.make(config_file=self.path)(answer("nova"))
        self.assertIsNot(first, second)
        self.assertIs(first._own._services, second._own._services)
        self.assertEqual(7, first._own._services.conf.api.max_limit)

    def test_several_files_later_ones_win(self):
        (later,) = self.create_tempfiles([("later", "[api]\nmax_limit = 8\n")], ".conf")
        made = self.make(config_file=f"{self.path}, {later}")(answer("nova"))
        self.assertEqual(8, made._own._services.conf.api.max_limit)

    def test_pipelines_may_not_differ(self):
        self.make(config_file=self.path)
        (other,) = self.create_tempfiles([("other", "")], ".conf")
        error = self.assertRaises(ValueError, self.make, config_file=other)
        self.assertIn("Name the same files", str(error))

    def test_a_named_file_that_is_missing_is_told(self):
        error = self.assertRaises(
            cfg.ConfigFilesNotFoundError, self.make, config_file="/nowhere/own.conf")
        self.assertIn("/nowhere/own.conf", str(error))

    def test_nothing_is_connected_before_the_first_request(self):
        made = self.make(config_file=self.path)(answer("nova"))
        self.assertIsNone(made._own._services.conductor_link._client)
