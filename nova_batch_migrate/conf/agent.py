"""Options of nova-batch-agent, one per compute host."""

from oslo_config import cfg

GROUP = "agent"
OPTS = [
    cfg.StrOpt("libvirt_uri", default="qemu:///system",
               help="libvirt of this host; the one nova-compute uses."),
    cfg.StrOpt("libvirt_pid_path", default="/run/libvirt/qemu",
               help="Where libvirt keeps the process ids of its QEMUs (DOMAIN.pid)."),
    cfg.ListOpt("nova_config_files", default=["/etc/nova/nova.conf", "/etc/nova/nova-cpu.conf"],
                help="The files nova-compute of this host reads, in its order; those that do not "
                     "exist are left out. The agent must be allowed to read them: how Nova steps "
                     "the downtime and when it gives up decides what a projection says."),
    cfg.StrOpt("migration_interface",
               help="Network interface of the migration streams. Empty: the one that carries "
                    "Nova's live_migration_inbound_addr or my_ip, else that of the default route."),
    cfg.FloatOpt("link_mib_s", default=0, min=0,
                 help="Speed of the migration link in MiB/s. 0: the tightest cap that traffic "
                      "control (htb or tbf) sets on the interface, else the speed of the link."),
    cfg.FloatOpt("reserve_mib_s", default=0, min=0,
                 help="MiB/s of the link that are counted as taken by others even when they send "
                      "less just now."),
    cfg.StrOpt("fingerprint_secret", secret=True,
               help="Secret that page fingerprints are derived from, the same on every host. "
                    "Empty: a random one that this process alone knows."),
    cfg.IntOpt("page_budget", default=4_000_000, min=10_000,
               help="Pages (4 KiB) of one host whose fingerprints are held in memory, about 40 "
                    "bytes each. Beyond it they are sampled and figures carry the sample's error."),
    cfg.FloatOpt("read_mib_s", default=2000, min=1,
                 help="Most MiB/s at which guest memory is read."),
    cfg.BoolOpt("page_sampling", default=True,
                help="Ask QEMU for the dirty rate by page sampling as well. It is used for servers "
                     "whose memory can't be read, and wherever it is the better founded figure."),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    # For the sample: oslo.privsep registers them itself, on oslo's global configuration.
    from oslo_privsep import priv_context
    return {GROUP: OPTS, "nova_batch_memory": priv_context.OPTS}
