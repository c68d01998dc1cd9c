import ddt
from oslotest import base

from nova_batch_migrate.planning.scope import Scope
from tests.unit.planning import builders


@ddt.ddt
class TestScope(base.BaseTestCase):

    @ddt.data(("project", True, False), ("host", True, True), ("off", False, False))
    @ddt.unpack
    def test_who_may_share(self, scope, in_project, across):
        mine, too, other = (builders.server("a"), builders.server("b"),
                            builders.server("c", project="q"))
        found = Scope(scope, [mine, too, other])
        self.assertEqual((in_project, across), (found.part("id-a") == found.part("id-b"),
                                                found.part("id-a") == found.part("id-c")))
