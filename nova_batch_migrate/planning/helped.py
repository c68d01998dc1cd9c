"""Migrations that do not converge by themselves, ended by Nova's own means where asked for.

Used by planning.source. Once a guest's memory has crossed, the conductor asks Nova to complete by
force: Nova pauses the guest, or switches to post-copy where its options permit that.
"""

import dataclasses

from nova_batch_migrate.planning import projection
from nova_batch_migrate.planning.request import OnNonConvergence
from nova_batch_migrate.planning.stream import DEVICE_STATE_BYTES, PAGE_WIRE_BYTES, StreamLoad
from nova_batch_migrate.planning.telemetry import DirtyModel, MigrationOptions


@dataclasses.dataclass(frozen=True)
class Helped:
    """A load that ends because it is helped, and how long the guest stands still for it."""

    load: projection.MemberLoad
    downtime_seconds: float


def refusal(means: OnNonConvergence, options: MigrationOptions, host: str) -> str | None:
    """Return why Nova of the host does not permit these means; None where it does."""
    if means == "pause" and options.permit_post_copy:
        return (f"Nova on {host} would switch to post-copy instead of pausing it ([libvirt] "
                "live_migration_permit_post_copy): ask for on_non_convergence post-copy")
    if means == "post-copy" and not options.permit_post_copy:
        return (f"Nova on {host} does not permit post-copy: set [libvirt] "
                "live_migration_permit_post_copy there, or ask for on_non_convergence pause")
    if means == "auto-converge" and not (options.permit_auto_converge
                                         and not options.permit_post_copy):
        return (f"Nova on {host} does not slow guests down: set [libvirt] "
                "live_migration_permit_auto_converge there, without "
                "live_migration_permit_post_copy")
    return None


def help_out(member: projection.MemberLoad, link: projection.Link, setup_seconds: float,
             means: OnNonConvergence) -> Helped | None:
    """Return the load of a stream that is completed by force once all memory has crossed.

    What the guest has dirtied until then, as in pre-copy's first pass, crosses while it stands
    still, or in post-copy while it runs already. None where even that ends too late for Nova.
    """
    verdict, seconds, _ = projection.alone(_idle(member, 0.0), link, setup_seconds)
    load = _idle(member, seconds)
    if verdict != "converges" or projection.alone(load, link, setup_seconds)[0] != "converges":
        return None
    left_bytes = member.nominal.dirty.pages(seconds) * PAGE_WIRE_BYTES if means == "pause" else 0.0
    return Helped(load, (DEVICE_STATE_BYTES + left_bytes) / link.rates(1)[1])


def _idle(member: projection.MemberLoad, seconds: float) -> projection.MemberLoad:
    """Return the load that sends what is dirtied in so many seconds, and nothing beyond it."""
    def idle(load: StreamLoad) -> StreamLoad:
        return dataclasses.replace(
            load, dirty=DirtyModel(), cycle=None,
            content_pages=load.content_pages + load.dirty.pages(seconds))

    return dataclasses.replace(member, nominal=idle(member.nominal), best=idle(member.best),
                               worst=idle(member.worst))
