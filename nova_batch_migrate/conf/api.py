"""Options of the API, in nova-api as well as alone; the group of keystonemiddleware is its own."""

from oslo_config import cfg

GROUP = "api"
OPTS = [
    cfg.IntOpt("max_limit", default=1000, min=1,
               help="Most items that one answer of a list carries, whatever limit the caller "
                    "asks for."),
    cfg.IntOpt("conductor_timeout_seconds", default=10, min=1,
               help="How long a call waits for a conductor before it is answered 503."),
    cfg.HostAddressOpt("listen_address", default="127.0.0.1",
                       help="Where nova-batch-api listens. It speaks plain HTTP: put a TLS proxy "
                            "before it. Not used inside nova-api or under another WSGI server."),
    cfg.PortOpt("listen_port", default=8797, help="Port of nova-batch-api."),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    return {GROUP: OPTS}
