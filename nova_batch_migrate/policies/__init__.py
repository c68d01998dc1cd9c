"""Who may do what: oslo.policy rules, one module per resource of the API.

The API's handlers and oslo.policy's generators use it; it never decides by anything but the
caller's credentials.
"""

import itertools

from nova_batch_migrate import conf
from nova_batch_migrate.policies import (
    actions,
    base,
    batch_migrations,
    commonality,
    enforcer,
    events,
    plan,
)


def list_rules():
    """Return every rule of this project, for the enforcer and the sample policy file."""
    return list(itertools.chain.from_iterable(
        module.list_rules()
        for module in (base, batch_migrations, plan, commonality, events, actions)))


def get_enforcer():
    """Return oslo.policy's enforcer over the default configuration file, for its own scripts."""
    own = conf.new()
    conf.parse(own, [])
    return enforcer.Enforcer(own, list_rules()).oslo
