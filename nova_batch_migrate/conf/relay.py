"""Options of nova-batch-relay, one per compute host, and of the agent that steers it."""

from oslo_config import cfg, types

GROUP = "relay"
OPTS = [
    cfg.StrOpt("control_socket", default="/run/nova-batch-relay/control.sock",
               help="Unix socket on which the agent of this host steers the relay. Where nothing "
                    "answers there, migrations go the plain way."),
    cfg.StrOpt("control_group", default="nova-batch",
               help="Group that may open the control socket: the agent's. Empty: the relay's own."),
    cfg.StrOpt("listen_address", default="::",
               help="Address for the relays of other hosts; :: is every address, of IPv4 too."),
    cfg.PortOpt("port", default=49300,
                help="Port for the relays of other hosts, the same on every host."),
    cfg.PortOpt("redirect_port", default=49301,
                help="Port on the loopback addresses to which nftables leads migrations; the next "
                     "one serves slow links, the one behind it servers that move together."),
    cfg.ListOpt("migration_ports", item_type=types.Integer(1, 65535), default=[49152, 49215],
                help="First and last port of migrations: migration_port_min and _max of "
                     "libvirt's qemu.conf."),
    cfg.IntOpt("mark", default=0x6E626D, min=1,
               help="Mark of the relay's own connections, by which nftables lets them pass. Change "
                    "it where something else uses this mark."),
    cfg.StrOpt("ca_file", default="/etc/nova-batch-migrate/relay/ca.pem",
               help="Certificates of the authority that signs those of the relays; use one for "
                    "this purpose alone."),
    cfg.StrOpt("certificate_file", default="/etc/nova-batch-migrate/relay/cert.pem",
               help="Certificate of this host for both directions, with [DEFAULT] host as a DNS "
                    "name in it."),
    cfg.StrOpt("key_file", default="/etc/nova-batch-migrate/relay/key.pem",
               help="Private key of that certificate, readable for the relay only."),
    cfg.IntOpt("dictionary_mib", default=512, min=16,
               help="Most memory for the dictionaries of all open groups together. Both ends of a "
                    "group hold as much. It is found when a group first needs it, serves the next "
                    "ones as well, and is given back a minute after the last."),
    cfg.StrOpt("base_images_path", default="/var/lib/nova/instances/_base",
               help="Where nova-compute keeps the base images of instances. Pages of those that "
                    "both hosts have need not cross even for the first guest of a group. Empty: "
                    "they are not looked at."),
    cfg.IntOpt("base_images_mib", default=64, min=0,
               help="Most memory of a dictionary for pages of base images, and never more than a "
                    "quarter of it: from the beginning of the four images that were touched last. "
                    "0: none."),
    cfg.IntOpt("zstd_level", min=-7, max=19,
               help="Level at which what nothing else saves is compressed; 0: not at all, below "
                    "it: zstd's fast levels. Not set: by the speed of a group's link: 3 up to "
                    "60 MB/s, 1 up to 600 MB/s, beyond that not at all; from there it moves "
                    "between not at all and 9 with what is scarce, the link or the core. Where "
                    "the host's cores are wanted by others, it does not stay above 1."),
    cfg.IntOpt("zstd_window_log", default=29, min=17, max=29,
               help="How far back compression looks, as a power of two of bytes; held in memory "
                    "by both ends, for each dictionary. Never further than that is large, so that "
                    "all of them together take at most dictionary_mib once more; and no further "
                    "than 27 as long as the dictionary has room for all that comes."),
    cfg.PortOpt("metrics_port", default=0,
                help="Port of 127.0.0.1 at which Prometheus may fetch /metrics: bytes by what "
                     "became of them, for the host, each open group's servers and the "
                     "dictionaries. 0: none."),
    cfg.IntOpt("link_seconds", default=30, min=1,
               help="How long the link between two relays may be cut. A shorter cut is ridden out; "
                    "after a longer one the migrations on it end with their guests running at the "
                    "source. libvirt's own connection ends after 30 seconds by default "
                    "(keepalive_interval and keepalive_count), so more helps only where that is "
                    "raised as well."),
    cfg.FloatOpt("hold_seconds", default=60, min=0,
                 help="Longest wait, running, of a synchronized server for the others of its set."),
    cfg.FloatOpt("pause_seconds", default=2, min=0,
                 help="Longest pause of a synchronized server for the others behind its "
                      "switchover."),
    cfg.StrOpt("switchover_policy", default="together", choices=[
        ("together", "All stay at the source, running."),
        ("release", "The rest goes on without it."),
    ], help="What becomes of a synchronized set when a member fails or is late before the "
            "release."),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    return {GROUP: OPTS}
