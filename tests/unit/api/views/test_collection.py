import ddt
from oslotest import base

from nova_batch_migrate.api.views import collection

ITEMS = [{"id": number} for number in range(1, 4)]


@ddt.ddt
class CollectionTest(base.BaseTestCase):
    @ddt.data(({}, 10), ({"limit": "3"}, 3), ({"limit": "11"}, 10), ({"limit": "0"}, 0))
    @ddt.unpack
    def test_limit(self, query, expected):
        self.assertEqual(expected, collection.limit_of(query, 10))

    def test_more_to_come(self):
        page = collection.page("things", ITEMS, 2, "http://a/b",
                               {"limit": "2", "marker": "0", "host": "a&b"})
        self.assertEqual(ITEMS[:2], page["things"])
        self.assertEqual(
            [{"rel": "next", "href": "http://a/b?host=a%26b&limit=2&marker=2"}],
            page["things_links"])

    @ddt.data(3, 4, 0)
    def test_no_link_to_an_empty_page(self, limit):
        page = collection.page("things", ITEMS, limit, "http://a/b", {})
        self.assertEqual({"things": ITEMS[:limit]}, page)
