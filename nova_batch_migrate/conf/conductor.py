"""Options of nova-batch-conductor."""

from oslo_config import cfg

GROUP = "conductor"
OPTS = [
    cfg.FloatOpt("reconcile_interval_seconds", default=0.5, min=0.1,
                 help="Pause between two looks at an active batch. While migrations are only "
                      "followed and Nova is slow to say how far they are, up to 2.5 s longer."),
    cfg.IntOpt("lease_seconds", default=15, min=5,
               help="After this time without a sign of life of its conductor another conductor "
                    "takes a batch over."),
    cfg.IntOpt("workers", default=4, min=1,
               help="Batches that one conductor works on at the same time."),
    cfg.IntOpt("max_parallel", default=0, min=0,
               help="Migrations that run at once from one source host past relays, where a request "
                    "doesn't say; through relays as many as max_preparing has it. Never more than "
                    "max_concurrent_live_migrations of that host. Streams share one link: one "
                    "after the other each has it whole, but it lies idle while Nova prepares the "
                    "next. 0: one more, up to 4, as long as the plan ends sooner by it."),
    cfg.IntOpt("max_preparing", default=3, min=0,
               help="Migrations that run at once from one source host through relays, whose stream "
                    "has not begun: further ones are asked for when Nova has prepared one, as long "
                    "as no more than two other streams have yet to end, and the first of a group "
                    "alone, for up to 10 s. Relays let one stream through after the other, so the "
                    "first is under way sooner, and Nova and its neighbours share their processors "
                    "among fewer. 0: any number."),
    cfg.IntOpt("max_inbound", default=0, min=0,
               help="Migrations of all batches that may arrive at one host at once; those beyond "
                    "wait. 0: any number, as Nova has it."),
    cfg.IntOpt("max_attempts", default=3, min=1,
               help="Live migrations tried per server before it is reported as failed."),
    cfg.FloatOpt("retry_backoff_seconds", default=5.0, min=0,
                 help="Wait before the second attempt; doubled for each further one."),
    cfg.IntOpt("start_timeout_seconds", default=120, min=10,
               help="A migration that Nova accepted but shows nowhere after this time is asked for "
                    "again."),
    cfg.ListOpt("measure_windows_seconds", item_type=cfg.types.Float(min=0.1, max=60),
                default=[0.1, 0.5, 2.0, 8.0],
                help="Lengths of the windows in which changed pages are counted; at least two. The "
                     "shortest shows the pages that are always hot, which decide whether a busy "
                     "service converges; the longest shows how large the working set is. Where "
                     "migrations wait for it and the servers are small, the longest is left out."),
    cfg.FloatOpt("measure_seconds", default=20.0, min=1,
                 help="Most time that a measurement takes where migrations wait for it; less "
                      "where there is little memory to read, 3 s and 1 s for each GB. Contents "
                      "that were not read by then count as unlike any other; the measurements that "
                      "run beside the migrations read on. 20 s are less than 5 % of a batch of "
                      "100 guests of 4 GiB on 1 Gbit/s, even if 16 % of their memory crosses. A "
                      "batch that is only planned is measured to the end."),
    cfg.IntOpt("measure_timeout_seconds", default=600, min=10,
               help="A measurement that takes longer is given up and reported."),
    cfg.IntOpt("agent_timeout_seconds", default=10, min=1,
               help="How long an agent may take to answer one call."),
    cfg.FloatOpt("setup_seconds", default=0.8, min=0,
                 help="Of each stream, before its first page: libvirt prepares the destination, "
                      "QEMU sets up."),
    cfg.FloatOpt("nova_seconds", default=4.0, min=0,
                 help="Nova's own seconds around a stream, of a migration that Nova works on "
                      "alone. Finished migrations of this cloud move them: quickly while this is "
                      "the default, slowly once an operator has set it or nova_sharing."),
    cfg.FloatOpt("nova_sharing", default=0.0, min=0,
                 help="By what share of its time each further migration under way delays one that "
                      "Nova works on, where its services share few processors. Finished "
                      "migrations move it like nova_seconds, where more and fewer met."),
]


def register_opts(conf):
    conf.register_opts(OPTS, group=GROUP)


def list_opts():
    return {GROUP: OPTS}
