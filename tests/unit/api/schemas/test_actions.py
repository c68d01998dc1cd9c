import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.api import validation
from nova_batch_migrate.api.schemas import actions as schemas


@ddt.ddt
class CreateTest(base.BaseTestCase):
    @ddt.data("start", "pause", "resume", "abort", "replan")
    def test_without_parameters(self, action):
        for parameters in (None, {}):
            validation.check({action: parameters}, schemas.CREATE, "the body")

    @ddt.data("finish", "abort")
    def test_abort(self, running):
        validation.check({"abort": {"running": running}}, schemas.CREATE, "the body")

    @ddt.data(
        ({}, "one action in it: start, pause, resume, abort, replan"),
        ({"start": None, "pause": None}, "one action in it"),
        ({"stop": None}, 'the body has no "stop"'),
        ({"start": {"now": True}}, 'start has no "now". Known are: none.'),
        ({"start": "now"}, 'start is "now". Give null, or an object with nothing in it.'),
        ({"pause": []}, "pause is []"),
        ({"resume": 0}, "resume is 0"),
        ({"replan": False}, "replan is false"),
        ({"abort": {"running": "kill"}}, "one of: finish, abort"),
        ({"abort": {"running": None}}, "one of: finish, abort"),
        ({"abort": {"force": True}}, 'abort has no "force". Known are: running.'),
        ({"abort": "finish"}, "an object with running in it"),
        (None, "one action in it"),
        (["start"], "one action in it"),
    )
    @ddt.unpack
    def test_refused(self, body, words):
        error = self.assertRaises(exception.InvalidInput, validation.check, body, schemas.CREATE,
                                  "the body")
        self.assertIn(words, str(error))
