"""Asks oslo.policy over our own configuration; nova-api's enforcer knows only Nova's rules.

The API's application makes one per process. It never reads Nova's policy file.
"""

from oslo_policy import policy

from nova_batch_migrate import exception


class Enforcer:
    """The rules of ``defaults``, overridden by the file of ``[oslo_policy] policy_file``."""

    def __init__(self, conf, defaults):
        self.oslo = policy.Enforcer(conf)
        self.oslo.register_defaults(defaults)

    def authorize(self, context, rule: str) -> None:
        """Return when ``rule`` lets the caller pass, else raise Forbidden."""
        self.authorize_any(context, [rule])

    def authorize_any(self, context, rules: list[str]) -> None:
        """Return when at least one of ``rules`` lets the caller pass, else raise Forbidden."""
        if not any(self._allows(context, rule) for rule in rules):
            raise exception.Forbidden(
                f"Policy doesn't allow {rules[0]} to be performed. Use a project-scoped token "
                "with the admin role, or let an administrator change the rule in policy.yaml of "
                "nova-batch-migrate.")

    def _allows(self, context, rule: str) -> bool:
        try:
            return self.oslo.authorize(rule, {}, context, do_raise=True)
        except (policy.PolicyNotAuthorized, policy.InvalidScope):
            return False
