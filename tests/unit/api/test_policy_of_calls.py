"""Who is refused what, over the whole route table."""

import ddt
import yaml

from nova_batch_migrate import policies
from nova_batch_migrate.api import routes
from nova_batch_migrate.policies import enforcer
from tests.unit.api import base

PUBLIC = ("/versions",)
CALLS = [(method, path.replace("{batch_id}", base.BATCH_ID), f"{method} {path}")
         for path, methods in routes.ROUTES for method in methods if path not in PUBLIC]


@ddt.ddt
class RefusalTest(base.ApiTestCase):
    @ddt.data(*CALLS)
    @ddt.unpack
    def test_only_administrators_pass(self, method, path, _):
        for roles in (["member", "reader"], ["manager"], ["service"], []):
            for body in (None, b"{", {"start": None}, {"batch_migration": {"hosts": ["a"]}}):
                response = self.call(method, path, body, caller=self.caller(roles))
                self.assert_fault(403, "forbidden", "admin role", response)
        self.assertEqual([], self.conductor.calls)

    @ddt.data(*CALLS)
    @ddt.unpack
    def test_a_system_scoped_token_is_refused_as_in_nova(self, method, path, _):
        caller = self.caller(system_scope="all")
        caller.project_id = None
        self.assert_fault(403, "forbidden", "project-scoped token",
                          self.call(method, path, caller=caller))

    def test_the_versions_are_everybodys(self):
        response = self.call("GET", "/versions", caller=self.caller([]))
        self.assertEqual(200, response.status_int)


class OverrideTest(base.ApiTestCase):
    def override(self, **rules):
        text = yaml.safe_dump({f"os_compute_api:os-batch-evacuate:{name}": rule
                               for name, rule in rules.items()})
        (path,) = self.create_tempfiles([("policy", text)], ".yaml")
        self.conf.set_override("policy_file", path, "oslo_policy")
        self.app._services.enforcer = enforcer.Enforcer(self.conf, policies.list_rules())

    def test_a_rule_of_the_policy_file_wins(self):
        self.override(index="role:auditor")
        self.conductor.answers["list"] = []
        auditor = self.caller(["auditor"])
        self.assertEqual(200, self.call("GET", caller=auditor).status_int)
        self.assertEqual(403, self.call("GET").status_int)
        self.assertEqual(403, self.call("GET", f"/{base.BATCH_ID}", caller=auditor).status_int)

    def test_each_action_has_its_own_rule(self):
        self.override(pause="role:watch")
        self.conductor.answers["action"] = {"id": base.BATCH_ID}
        watch = self.caller(["watch"])
        path = f"/{base.BATCH_ID}/action"
        self.assertEqual(202, self.call("POST", path, {"pause": None}, watch).status_int)
        self.assert_fault(403, "forbidden", "os-batch-evacuate:abort",
                          self.call("POST", path, {"abort": None}, watch))
        self.assert_fault(400, "badRequest", "one action in it",
                          self.call("POST", path, {}, watch))
