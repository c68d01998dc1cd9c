"""A caller, the application and a conductor that notes what it was asked, for the API's tests."""

import json
import types

import webob
from oslotest import base

from nova_batch_migrate import conf as own_conf
from nova_batch_migrate import context, policies
from nova_batch_migrate.api import application
from nova_batch_migrate.policies import enforcer

PREFIX = "/os-batch-evacuate"
BATCH_ID = "0b0e4d1c-8a6b-4f7e-9f3e-2a54b1a2c111"
PROJECT_ID = "6f70656e737461636b20342065766572"


class FakeConductor:
    """Answers every call with ``answers[name]``, raises it where it is an error."""

    def __init__(self):
        self.calls = []
        self.answers = {}

    def __getattr__(self, name):
        def method(ctxt, *args):
            self.calls.append((name, *args))
            answer = self.answers.get(name)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return method


class FakeLink:
    """A bus that is always there."""

    def __init__(self, conductor):
        self._conductor = conductor

    def client(self):
        return self._conductor


class ApiTestCase(base.BaseTestCase):
    """``call`` asks the application as an administrator unless ``roles`` say otherwise."""

    def setUp(self):
        super().setUp()
        self.conf = own_conf.new()
        own_conf.parse(self.conf, [], [])
        self.conductor = FakeConductor()
        self.app = application.Application(
            types.SimpleNamespace(
                conf=self.conf, conductor_link=FakeLink(self.conductor),
                enforcer=enforcer.Enforcer(self.conf, policies.list_rules())),
            lambda environ: environ["test.caller"])

    def caller(self, roles=("admin",), **values):
        return context.RequestContext(
            user_id="operator", project_id=PROJECT_ID, roles=list(roles), overwrite=False,
            **values)

    def call(self, method, path="", body=None, caller=None, environ=None, **headers):
        """Return the response; ``body`` is JSON unless it is bytes already."""
        request = webob.Request.blank(
            PREFIX + path, method=method, base_url="http://cloud:8774/v2.1")
        if body is not None:
            request.body = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.content_type = "application/json"
        request.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
        request.environ["test.caller"] = caller or self.caller()
        request.environ.update(environ or {})
        return request.get_response(self.app)

    def assert_fault(self, code, name, words, response):
        """Assert a fault of Nova's form whose message holds ``words``."""
        self.assertEqual(code, response.status_int, response.text)
        self.assertEqual("application/json", response.content_type)
        self.assertEqual({name: {"code": code, "message": response.json[name]["message"]}},
                         response.json)
        self.assertIn(words, response.json[name]["message"])
