import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.api import validation
from nova_batch_migrate.api.schemas import events as schemas


@ddt.ddt
class IndexTest(base.BaseTestCase):
    @ddt.data({}, {"limit": "5", "marker": "17"})
    def test_taken(self, query):
        validation.check(query, schemas.INDEX, "the query")

    @ddt.data(({"marker": "x"}, "a number"), ({"marker": "-1"}, "a number"),
              ({"marker": "1" * 19}, "a number"), ({"limit": "x"}, "limit is"),
              ({"kind": "issued"}, "Known are: limit, marker."))
    @ddt.unpack
    def test_refused(self, query, words):
        error = self.assertRaises(exception.InvalidInput, validation.check, query, schemas.INDEX,
                                  "the query")
        self.assertIn(words, str(error))
