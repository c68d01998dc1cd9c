"""Where batches are kept: oslo.db's own options, with SQLite under ``state_path`` as default."""

import copy

from oslo_config import cfg
from oslo_db import options

GROUP = "database"
# A copy: oslo.db's list is shared with every other program in the process, nova-api for one.
OPTS = copy.deepcopy(options.database_opts)
cfg.set_defaults(OPTS, connection="sqlite:///$state_path/nova-batch-migrate.sqlite")


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    return {GROUP: OPTS}
