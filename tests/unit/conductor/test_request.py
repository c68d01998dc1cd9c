import ddt
from oslotest import base

from nova_batch_migrate import exception
from nova_batch_migrate.conductor import request
from tests.unit.conductor import build


@ddt.ddt
class NormalizeTest(base.BaseTestCase):
    def test_every_field_is_set(self):
        done = request.normalize({"hosts": ["cmpa"]})
        self.assertEqual(set(request.DEFAULTS), set(done))
        self.assertEqual(("group", True), (done["strategy"], done["leave_disabled"]))

    @ddt.data(("stopped", "cold-migrate"))
    @ddt.unpack
    def test_what_is_not_built_is_said(self, field, value):
        error = self.assertRaises(exception.FieldNotSupported, request.normalize,
                                  {"hosts": ["cmpa"], field: value})
        self.assertIn(field, str(error))

    @ddt.data({}, {"hosts": ["a"], "servers": ["b"]}, {"hosts": ["a"], "target_hosts": ["a"]},
              {"hosts": ["a"], "target_hosts": ["b"], "exclude_hosts": ["b"]},
              {"hosts": ["a"], "not_before": "tonight"},
              {"hosts": ["a"], "urgent": True, "max_wait_seconds": 60},
              {"hosts": ["a"], "deadline": "2001-11-23T02:00:00Z"},
              {"hosts": ["a"], "deadline": "2999-11-23T02:00:00Z",
               "not_before": "2999-11-23T02:00:00Z"})
    def test_contradictions(self, body):
        self.assertRaises(exception.InvalidInput, request.normalize, body)

    def test_sets_are_kept_as_ids(self):
        servers = [build.server(id=i, name=name) for i, name in
                   (("1", "web"), ("2", "db"), ("3", "twin"), ("4", "twin"))]
        self.assertEqual([["1", "2"], ["3", "4"]],
                         request.resolve_sets([["web", "2"], ["3", "4"]], servers, []))
        self.assertEqual([], request.resolve_sets(None, servers, []))
        groups = [{"members": ["1", "9", "3"]}, {"members": ["2", "9"]}]
        self.assertEqual([["1", "3"]],
                         request.resolve_sets("server-groups", servers, groups))
        for wrong, told in (("nobody", "no server of this batch"), ("twin", "3, 4")):
            error = self.assertRaises(exception.InvalidInput, request.resolve_sets,
                                      [["web", wrong]], servers, [])
            self.assertIn(told, str(error))

    def test_moments_are_kept_in_utc(self):
        done = request.normalize({"hosts": ["a"], "not_before": "2026-11-23T04:00:00+02:00",
                                  "deadline": "2999-11-23T04:00:00+02:00"})
        self.assertEqual(("2026-11-23T02:00:00", "2999-11-23T02:00:00"),
                         (done["not_before"], done["deadline"]))
