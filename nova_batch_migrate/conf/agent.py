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
    cfg.IntOpt("page_budget", default=1_000_000, min=10_000,
               help="Pages (4 KiB) of one measurement whose fingerprints are held in memory, about "
                    "40 bytes each. Of guests with more, a share of all contents is looked at, and "
                    "figures carry the sample's error: under 1 point of what two guests have in "
                    "common for 100 guests of 4 GiB."),
    cfg.FloatOpt("read_mib_s", default=2500, min=1,
                 help="Most MiB/s at which guest memory is read, by one thread that runs only when "
                      "no guest wants its processor. Up to half a second in which that thread did "
                      "not read is made up for."),
    cfg.FloatOpt("reuse_seconds", default=120.0, min=0,
                 help="What was measured of a server at most so long ago is used again instead of "
                      "being measured anew. 0: always measure."),
    cfg.IntOpt("portion_bytes", default=0, choices=[0, 512, 1024, 2048],
               help="Also count identical blocks of this size inside of pages that are not "
                    "identical as a whole. 0: do not. It is for looking: behind zstd blocks were "
                    "not seen to save anything, so no plan reckons with them."),
    cfg.BoolOpt("mapped_pages", default=False,
                help="Also count the page frames that guests map together (KSM). The kernel shows "
                     "frame numbers to CAP_SYS_ADMIN only, which a privileged process of its own "
                     "then has ([nova_batch_frames]); the identical pages found by content "
                     "include them."),
    cfg.BoolOpt("page_sampling", default=True,
                help="Ask QEMU for the dirty rate by page sampling as well. It is used for servers "
                     "whose memory can't be read, and wherever it is the better founded figure."),
    cfg.IntOpt("page_sampling_per_gib", default=0, min=0, max=16384,
               help="Pages that QEMU samples of each GiB. 0: libvirt's call, which samples 512 "
                    "(128 of a guest of 256 MiB). Any other number, at least 128, is asked for "
                    "through QEMU's monitor, and libvirt marks the domain as tainted."),
    cfg.ListOpt("dirty_rate_modes", default=[],
                item_type=cfg.types.String(
                    regex=r"^\d+\.\d+\.\d+/(kvm|qemu)/(dirty-ring|dirty-bitmap)$"),
                help="Modes in which QEMU may be asked for the pages its guests touch, each as "
                     "QEMU-VERSION/ACCELERATOR/MODE, for example 10.0.2/kvm/dirty-ring; qemu is "
                     "software emulation. Empty: none. A wrong mode kills guests (dirty-bitmap of "
                     "QEMU 7.2 in emulation does); this project has verified none of them. A "
                     "guest is asked only if it runs the very program that is installed."),
    cfg.BoolOpt("history", default=True,
                help="Look at a few pages of every server once a minute and keep the dirty rates "
                     "of the last 60 minutes, in state_path/history.json. They show how a server "
                     "usually is, and whether it has quiet moments to wait for."),
    cfg.IntOpt("history_pages", default=2048, min=256, max=65536,
               help="Pages (4 KiB) of a server that such a look reads, twice a minute: 2048 cost "
                    "some 20 ms of processor time a minute. More see smaller working sets in "
                    "larger servers."),
    cfg.FloatOpt("follow_seconds", default=100.0, min=0, max=600,
                 help="Most seconds for which servers are looked at every second to find their "
                      "period, while they are measured for a batch with max_wait_seconds and have "
                      "less than half an hour of history. Shows periods of up to 2/5 of it. "
                      "0: never."),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    # For the sample: oslo.privsep registers them itself, on oslo's global configuration.
    from oslo_privsep import priv_context
    return {GROUP: OPTS, "nova_batch_memory": priv_context.OPTS,
            "nova_batch_frames": priv_context.OPTS}
