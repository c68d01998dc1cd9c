import ddt
from oslotest import base

from nova_batch_migrate import policies
from nova_batch_migrate.api import routes
from nova_batch_migrate.policies import actions
from nova_batch_migrate.policies import base as policy_base


class RulesTest(base.BaseTestCase):
    def test_names_are_unique_and_have_our_prefix(self):
        names = [rule.name for rule in policies.list_rules()]
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(["context_is_admin"], [
            name for name in names if not name.startswith("os_compute_api:os-batch-evacuate:")])

    def test_every_rule_names_a_call_that_exists_and_every_call_has_a_rule(self):
        ruled = {(operation["method"], operation["path"].removeprefix(policy_base.PATH))
                 for rule in policies.list_rules() if rule.name != "context_is_admin"
                 for operation in rule.operations}
        routed = {(method, path.replace("{batch_id}", "{id}"))
                  for path, methods in routes.ROUTES for method in methods}
        self.assertEqual(routed - {("GET", "/versions")}, ruled)

    def test_all_are_for_administrators_in_a_project(self):
        for rule in policies.list_rules():
            if rule.name != "context_is_admin":
                self.assertEqual("rule:context_is_admin", rule.check_str, rule.name)
                self.assertEqual(["project"], rule.scope_types, rule.name)


@ddt.ddt
class ActionsTest(base.BaseTestCase):
    @ddt.data("start", "pause", "resume", "abort", "replan")
    def test_a_rule_each(self, action):
        self.assertIn(actions.RULE_OF[action], [rule.name for rule in policies.list_rules()])


class GeneratorTest(base.BaseTestCase):
    def test_the_enforcer_that_oslopolicy_scripts_ask_for(self):
        self.assertIn("os_compute_api:os-batch-evacuate:create",
                      policies.get_enforcer().registered_rules)
