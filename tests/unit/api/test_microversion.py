import ddt
import webob
import webob.exc
from oslotest import base

from nova_batch_migrate.api import microversion


@ddt.ddt
class NegotiateTest(base.BaseTestCase):
    @ddt.data(
        (None, "1.0"),
        ("", "1.0"),
        ("batch-migration 1.0", "1.0"),
        ("Batch-Migration   1.0", "1.0"),
        ("batch-migration latest", "1.0"),
        ("compute 2.95, batch-migration 1.0", "1.0"),
        ("compute 2.104", "1.0"),
        ("compute latest", "1.0"),
        ("1.9", "1.0"),
    )
    @ddt.unpack
    def test_known_versions(self, header, expected):
        self.assertEqual(expected, microversion.negotiate(header))

    @ddt.data("batch-migration 1.1", "batch-migration 0.9", "batch-migration 2.0",
              "batch-migration", "batch-migration one", "batch-migration 1",
              "compute 2.95, batch-migration 7.0")
    def test_unknown_versions_are_not_acceptable(self, header):
        error = self.assertRaises(webob.exc.HTTPNotAcceptable, microversion.negotiate, header)
        self.assertIn("Ask for 1.0 to 1.0", error.detail)


class StampTest(base.BaseTestCase):
    def test_every_header(self):
        response = webob.Response(headers={"Vary": "Accept"})
        microversion.stamp(response, "1.0")
        self.assertEqual("batch-migration 1.0", response.headers["OpenStack-API-Version"])
        self.assertEqual("batch-migration 1.0", response.headers["OpenStack-API-Minimum-Version"])
        self.assertEqual("batch-migration 1.0", response.headers["OpenStack-API-Maximum-Version"])
        self.assertEqual(["Accept", "OpenStack-API-Version"], response.headers.getall("Vary"))
