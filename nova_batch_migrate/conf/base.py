"""Options of [DEFAULT] that every service shares."""

import socket

from oslo_config import cfg

OPTS = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help="Name of this machine as Nova knows its compute host; agents are addressed by it.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/nova-batch-migrate",
        help="Directory for what must survive a restart (the default database lies there).",
    ),
]


def register_opts(conf):
    conf.register_opts(OPTS)


def list_opts():
    return {"DEFAULT": OPTS}
