"""Placement's API as the conductor needs it: what is free on a host, what a server holds where.

Reads only.
"""

from collections.abc import Iterable, Mapping

from nova_batch_migrate.clients import base

_MIB = 1 << 20
# 1.18 finds providers by trait; every cloud whose Nova is new enough has 1.20.
MICROVERSION = "1.20"
_SHARING = "MISC_SHARES_VIA_AGGREGATE"


class PlacementClient(base.ServiceClient):
    """Placement as the service user of ``[placement]``. Errors as NovaClient's."""

    group = "placement"
    service_type = "placement"

    def _microversion(self, newest: tuple[int, int] | None) -> str:
        return MICROVERSION

    def free_capacity(self, host_names: Iterable[str],
                      nodes: Mapping[str, str] | None = None) -> dict[str, dict]:
        """Return what may still be allocated: {host: {memory_bytes, vcpus, pcpus, disk_gb}}.

        Allocation ratio and reserve are counted; negative when a host is over-committed. A host
        without a resource provider is left out. ``nodes`` maps hosts to hypervisor names where
        they differ (NovaClient.hypervisors). disk_gb is None where no disk is accounted.
        """
        providers = {provider["name"]: provider for provider in
                     self._providers("list the resource providers")}
        free = {}
        for host in host_names:
            provider = providers.get((nodes or {}).get(host, host))
            if provider is not None:
                free[host] = self._free(provider["uuid"])
        return free

    def allocations(self, consumer_uuid: str) -> dict[str, dict[str, int]]:
        """Return what a server or a migration holds: {provider's name: {resource class: n}}.

        Keyed by the provider's id where its name can't be read any more.
        """
        body = self._get(f"show the allocations of {consumer_uuid}",
                         f"/allocations/{consumer_uuid}")
        held = {}
        for uuid, allocation in body["allocations"].items():
            named = self._providers(f"show the resource provider {uuid}", uuid=uuid)
            name = named[0]["name"] if named else uuid
            held[name] = allocation["resources"]
        return held

    def _providers(self, operation: str, **filters) -> list[dict]:
        return self._get(operation, "/resource_providers", filters)["resource_providers"]

    def _free(self, uuid: str) -> dict:
        free = self._free_by_class(uuid)
        disk_gb = free.get("DISK_GB")
        return {
            "memory_bytes": free.get("MEMORY_MB", 0) * _MIB,
            "vcpus": free.get("VCPU", 0),
            "pcpus": free.get("PCPU", 0),
            "disk_gb": self._free_shared_disk(uuid) if disk_gb is None else disk_gb,
        }

    def _free_by_class(self, uuid: str) -> dict[str, int]:
        operation = f"show what is free on resource provider {uuid}"
        inventories = self._get(operation, f"/resource_providers/{uuid}/inventories")
        used = self._get(operation, f"/resource_providers/{uuid}/usages")["usages"]
        return {
            name: int((item["total"] - item["reserved"]) * item["allocation_ratio"])
            - used.get(name, 0)
            for name, item in inventories["inventories"].items()}

    def _free_shared_disk(self, uuid: str) -> int | None:
        """Return the free GB of the storage that the provider shares with others, if any."""
        operation = f"find the shared storage of resource provider {uuid}"
        aggregates = self._get(operation, f"/resource_providers/{uuid}/aggregates")["aggregates"]
        if not aggregates:
            return None
        sharing = self._providers(operation, member_of="in:" + ",".join(aggregates),
                                  required=_SHARING)
        free = [self._free_by_class(provider["uuid"]).get("DISK_GB") for provider in sharing]
        return max((amount for amount in free if amount is not None), default=None)
