"""The bus between conductors and agents: a vhost of its own, one RabbitMQ user per host."""

from oslo_config import cfg

GROUP = "agent_transport"
OPTS = [
    cfg.StrOpt(
        "transport_url",
        secret=True,
        help="Bus between conductors and agents. Empty: the transport_url of [DEFAULT]. Give it a "
        "vhost of its own and a user per compute host that may read only its own queues.",
    ),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    return {GROUP: OPTS}
