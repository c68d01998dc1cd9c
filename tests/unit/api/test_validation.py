import ddt
import webob
import webob.exc
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.api import validation
from nova_batch_migrate.api.schemas import parameter_types as types

SCHEMA = types.record("an object with a number", {"number": types.integer(1, 9, "a digit")},
                      required=["number"])


def request(content=b"", content_type="application/json", query=""):
    made = webob.Request.blank("/?" + query, method="POST", body=content)
    made.content_type = content_type
    return made


@ddt.ddt
class BodyTest(base.BaseTestCase):
    @ddt.data("application/json", "application/json; charset=UTF-8", "")
    def test_json(self, content_type):
        self.assertEqual({"number": 1},
                         validation.body(request(b'{"number": 1}', content_type), SCHEMA))

    @ddt.data("text/plain", "application/x-www-form-urlencoded", "application/jsonp",
              "application/xml", "multipart/form-data; boundary=x")
    def test_other_content_types(self, content_type):
        error = self.assertRaises(webob.exc.HTTPUnsupportedMediaType, validation.body,
                                  request(b'{"number": 1}', content_type), SCHEMA)
        self.assertIn("Send application/json", error.detail)

    @ddt.data(
        (b"", "not valid JSON: Expecting value"),
        (b"{", "line 1 column 2"),
        (b"\xff\xfe", "'utf-8' codec"),
        (b'{"number": NaN}', "NaN is no JSON value"),
        (b'{"number": -Infinity}', "-Infinity is no JSON value"),
        (b'{"number": 1, "number": 2}', "a key came twice"),
        (b"[" * 50000 + b"]" * 50000, "recursion"),
        (b"null", "the body is null. Give an object with a number."),
        (b"[1]", "the body is [1]"),
        (b'{"number": "1"}', 'number is "1". Give an integer from 1 to 9: a digit.'),
        (b'{"number": 1.0}', "number is 1.0"),
        (b'{"number": true}', "number is true"),
        (b'{"number": 1e400}', "number is Infinity"),
        (b"{}", "the body is {}. Give an object with a number."),
        (b'{"number": 1, "\\ud800": 2}', 'the body has no "\\ud800". Known are: number.'),
        (b'{"number": "' + b"x" * 200 + b'"}', "x..."),
    )
    @ddt.unpack
    def test_what_is_wrong_and_what_to_give(self, content, words):
        error = self.assertRaises(exception.InvalidInput, validation.body,
                                  request(content), SCHEMA)
        self.assertIn(words, str(error))
        self.assertLess(len(str(error)), 300)


class QueryTest(base.BaseTestCase):
    schema = types.record("query parameters", {"limit": types.LIMIT})

    def test_known(self):
        self.assertEqual({"limit": "3"}, validation.query(request(query="limit=3"), self.schema))
        self.assertEqual({}, validation.query(request(), self.schema))

    def assert_refused(self, words, query, schema=None):
        error = self.assertRaises(exception.InvalidInput, validation.query,
                                  request(query=query), schema or self.schema)
        self.assertIn(words, str(error))

    def test_unknown(self):
        self.assert_refused('the query has no "foo". Known are: limit.', "foo=1")
        self.assert_refused("Known are: none.", "foo", types.record("nothing", {}))

    def test_twice(self):
        self.assert_refused("came twice", "limit=1&limit=1")

    def test_no_text(self):
        self.assert_refused("not UTF-8", "limit=%ff")
