"""Which servers of the source hosts can be live-migrated, and why the others stay; pure.

Called by the reconciler with what Nova and Placement said. The refusals are Nova's own (memory
encryption, emulated TPM, PCI devices, accelerators, hard affinity) and this project's rules
(locked, stopped, wrong state); design section 2, "Why a server stays".
"""

import dataclasses
from collections.abc import Iterable, Mapping

from nova_batch_migrate.planning.request import Staying

CERTAIN = "certain"
LIKELY = "likely"
MOVABLE_STATES = ("active", "paused")

# vm_state -> (what it is, the command that leads out of it)
STATES = {
    "stopped": ("it is stopped; a live migration needs a running server",
                "openstack server migrate --wait {id}"),
    "suspended": ("it is suspended", "openstack server resume {id}"),
    "rescued": ("it is in rescue mode", "openstack server unrescue {id}"),
    "resized": ("a resize waits for its confirmation", "openstack server resize confirm {id}"),
    "error": ("Nova shows it in ERROR; look why before you reset it",
              "openstack server set --state active {id}"),
    "building": ("it is being built", "openstack server show {id}"),
    "soft-delete": ("it is deleted and waits to be reclaimed", "openstack server delete {id}"),
    "shelved": ("it is shelved", "openstack server unshelve {id}"),
}
COLD = "openstack server migrate --wait {id}"


@dataclasses.dataclass(frozen=True)
class Survey:
    """``movable`` servers, those that ``stay``, and those ``busy`` with something that will end."""

    movable: tuple
    staying: tuple[Staying, ...]
    busy: tuple


def survey(servers: Iterable, groups: Iterable[dict], include_locked: bool) -> Survey:
    """Sort servers (clients.nova.ServerInfo) into movable, staying and busy.

    ``groups`` are Nova's server groups ``{"name", "policy", "members"}``.
    """
    servers = sorted(servers, key=lambda server: (server.name, server.id))
    bound = _hard_affinity(servers, groups)
    movable, staying, busy = [], [], []
    for server in servers:
        why = _why_not(server, bound, include_locked)
        if why is not None:
            reason, certainty, command = why
            staying.append(Staying(server.id, server.name, server.host, reason, certainty,
                                   command.format(id=server.id)))
        elif server.task_state is not None or server.vm_state not in MOVABLE_STATES:
            busy.append(server)
        else:
            movable.append(server)
    return Survey(tuple(movable), tuple(staying), tuple(busy))


def leave_to_others(looked: Survey, holders: Mapping[str, str]) -> Survey:
    """Return the survey with servers of other batches (id -> batch) among the busy ones."""
    return dataclasses.replace(
        looked, movable=tuple(s for s in looked.movable if s.id not in holders),
        busy=looked.busy + tuple(s for s in looked.movable if s.id in holders))


def give_up_on_busy(looked: Survey, holders: Mapping[str, str]) -> Survey:
    """Return the survey with those that stayed busy for too long among the staying."""
    staying = tuple(_still_busy(server, holders.get(server.id)) for server in looked.busy)
    return Survey(looked.movable, looked.staying + staying, ())


def _still_busy(server, holder: str | None) -> Staying:
    if holder is not None:
        return Staying(server.id, server.name, server.host, f"batch migration {holder} has it",
                       CERTAIN, f"openstack server batch migration show {holder}")
    return Staying(server.id, server.name, server.host,
                   f"Nova is busy with it (task {server.task_state}, state {server.vm_state})",
                   LIKELY, f"openstack server show {server.id}")


def _hard_affinity(servers, groups) -> dict[str, str]:
    """Return server id -> group name where hard affinity ties it to another server of its host."""
    bound = {}
    host_of = {server.id: server.host for server in servers}
    for group in groups:
        if group["policy"] != "affinity":
            continue
        here = [member for member in group["members"] if member in host_of]
        if len(group["members"]) > 1:
            bound.update(dict.fromkeys(here, group["name"]))
    return bound


def _why_not(server, bound: dict[str, str], include_locked: bool):
    """Return (reason, certainty, command) or None; the first reason that holds."""
    if server.locked and not include_locked:
        return "it is locked", CERTAIN, "openstack server unlock {id}"
    if server.vm_state == "building" and server.task_state is not None:
        return None
    if server.vm_state not in MOVABLE_STATES:
        what, command = STATES.get(
            server.vm_state, (f"its state is {server.vm_state}", "openstack server show {id}"))
        return what, CERTAIN, command
    if server.id in bound:
        return (f"hard affinity of server group {bound[server.id]}: Nova's scheduler finds no "
                "other host while its fellow members are here", CERTAIN, COLD)
    return _device_refusal(server.extra_specs or {}, server.image_properties or {})


def _device_refusal(specs: dict, image: dict):
    """Return why Nova refuses to live-migrate what flavor or image ask for, or None."""
    def wanted(spec: str, prop: str) -> str | None:
        return specs.get(spec) or image.get(prop)

    if str(wanted("hw:mem_encryption", "hw_mem_encryption")).lower() in ("true", "1", "yes"):
        return "its memory is encrypted; Nova can't live-migrate it", CERTAIN, COLD
    if wanted("hw:tpm_version", "hw_tpm_version") and \
            specs.get("hw:tpm_secret_security") != "host":
        return "Nova live-migrates an emulated TPM only with hw:tpm_secret_security=host", \
            CERTAIN, COLD
    if specs.get("accel:device_profile"):
        return "it has an accelerator; Nova can't live-migrate it", CERTAIN, COLD
    if specs.get("pci_passthrough:alias"):
        return "it has a PCI device; Nova live-migrates only those marked live_migratable", \
            LIKELY, COLD
    return None
