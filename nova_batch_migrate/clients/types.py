"""What the clients give to the conductor: frozen values, made from Nova's JSON only here."""

import dataclasses
import datetime

from oslo_utils import timeutils

_MIB = 1 << 20
_POWER_STATES = {0: "nostate", 1: "running", 3: "paused", 4: "shutdown", 6: "crashed",
                 7: "suspended"}


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """A server as Nova shows it to an administrator."""

    id: str
    name: str
    project_id: str
    host: str | None  # nova-compute's name; None before scheduling and when shelved
    node: str | None  # the hypervisor's name, which is Placement's resource provider
    status: str
    vm_state: str
    task_state: str | None
    power_state: str  # nostate, running, paused, shutdown, crashed, suspended
    locked: bool
    locked_reason: str | None
    memory_bytes: int
    vcpus: int
    disk_gb: int  # what its flavor takes on the host: root unless volume-backed, ephemeral, swap
    volume_backed: bool
    volumes: tuple[str, ...]  # ids of attached volumes
    availability_zone: str
    pinned_availability_zone: str | None
    created_at: datetime.datetime | None
    updated_at: datetime.datetime | None
    fault: str | None  # why Nova put it into ERROR
    extra_specs: dict[str, str]
    image_properties: dict[str, str]
    image_properties_known: bool  # False: Nova older than 2.98, or no image (volume-backed)
    scheduler_hints: dict

    @classmethod
    def from_api(cls, body: dict) -> "ServerInfo":
        """Make one from an item of GET /servers/detail; KeyError when Nova hides its host."""
        flavor = body["flavor"]
        image = body.get("image") or {}
        disk_gb = flavor["ephemeral"] + -(-flavor["swap"] // 1024)
        return cls(
            id=body["id"],
            name=body["name"],
            project_id=body["tenant_id"],
            host=body["OS-EXT-SRV-ATTR:host"],
            node=body["OS-EXT-SRV-ATTR:hypervisor_hostname"],
            status=body["status"],
            vm_state=body["OS-EXT-STS:vm_state"],
            task_state=body["OS-EXT-STS:task_state"],
            power_state=_POWER_STATES.get(body["OS-EXT-STS:power_state"], "nostate"),
            locked=body["locked"],
            locked_reason=body.get("locked_reason"),
            memory_bytes=flavor["ram"] * _MIB,
            vcpus=flavor["vcpus"],
            disk_gb=disk_gb + (flavor["disk"] if image else 0),
            volume_backed=not image,
            volumes=tuple(
                item["id"] for item in body.get("os-extended-volumes:volumes_attached", ())),
            availability_zone=body.get("OS-EXT-AZ:availability_zone", ""),
            pinned_availability_zone=body.get("pinned_availability_zone"),
            created_at=parse_time(body.get("created")),
            updated_at=parse_time(body.get("updated")),
            fault=body.get("fault", {}).get("message"),
            extra_specs=dict(flavor.get("extra_specs", {})),
            image_properties=dict(image.get("properties", {})),
            image_properties_known="properties" in image,
            scheduler_hints=dict(body.get("scheduler_hints") or {}),
        )


@dataclasses.dataclass(frozen=True)
class MigrationInfo:
    """A row of /os-migrations: the verdict on a migration, without its byte counters.

    Times have whole seconds. ``updated_at`` moves with every status and every count of bytes, so
    it is the time of the verdict only once there is one; None before the first change.
    """

    id: int
    uuid: str
    server_id: str
    status: str  # accepted, queued, preparing, running, completed, failed, cancelled, error ...
    migration_type: str  # live-migration, migration, resize, evacuation
    source: str
    destination: str | None  # None while accepted, for ever when the scheduler refused
    created_at: datetime.datetime
    updated_at: datetime.datetime | None

    @classmethod
    def from_api(cls, body: dict) -> "MigrationInfo":
        return cls(
            id=body["id"], uuid=body["uuid"], server_id=body["instance_uuid"],
            status=body["status"], migration_type=body["migration_type"],
            source=body["source_compute"], destination=body["dest_compute"],
            created_at=parse_time(body["created_at"]), updated_at=parse_time(body["updated_at"]))


@dataclasses.dataclass(frozen=True)
class Hypervisor:
    """A hypervisor of the cloud: the link between Nova's host name and Placement's provider."""

    host: str
    node: str
    type: str
    version: int  # 10000 * major + 100 * minor ..., as Nova compares it: never migrate downwards
    host_ip: str | None

    @classmethod
    def from_api(cls, body: dict) -> "Hypervisor":
        return cls(host=body["service"]["host"], node=body["hypervisor_hostname"],
                   type=body["hypervisor_type"], version=body["hypervisor_version"],
                   host_ip=body["host_ip"])


def parse_time(text: str | None) -> datetime.datetime | None:
    """Return one of Nova's time stamps as naive UTC; it writes some with Z and some without."""
    return None if text is None else timeutils.normalize_time(timeutils.parse_isotime(text))
