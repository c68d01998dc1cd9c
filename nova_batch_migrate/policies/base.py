"""What the rules of all resources are made of: names, the administrators' rule, scope."""

from oslo_policy import policy

ROOT = "os_compute_api:os-batch-evacuate"
PATH = "/os-batch-evacuate"
ADMIN = "rule:context_is_admin"
RULES = [
    policy.RuleDefault(
        "context_is_admin", "role:admin",
        description="Whom every rule of batch migrations lets pass unless it is overridden."),
]


def rule(name: str, description: str, method: str, path: str) -> policy.DocumentedRuleDefault:
    """Return a rule that lets administrators pass and nobody else.

    The scope is ``project`` as in all of Nova's own rules.
    """
    return policy.DocumentedRuleDefault(
        name=name, check_str=ADMIN, description=description, scope_types=["project"],
        operations=[{"method": method, "path": PATH + path}])


def list_rules():
    return RULES
