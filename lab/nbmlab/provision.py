"""Fills the cloud: catalog, users, the guests' network, images; and waits for the computes.

Called by services. Safe to repeat: makes only what is missing, and images anew when their files
changed.
"""
import datetime
import http
import http.client
import time

from nbmlab import cloud, daemon, families, layout, shell, stamps
from nbmlab import images as guest_images
from nbmlab.cloud import ApiError, Cloud
from nbmlab.layout import Host

SERVICES = (("placement", "placement", ""), ("glance", "image", ""), ("neutron", "network", ""),
            ("nova-api", "compute", "/v2.1"))
NETWORK = "guests"
#: In which a Neutron that has just begun has read its policies, and between two questions to it.
POLICIES_SECONDS, POLICIES_LOOK_SECONDS = 30, 1.0


def answers(name: str) -> bool:
    """Tell whether an API answers HTTP requests, with whatever status below 500."""
    connection = http.client.HTTPConnection(layout.CONTROLLER, layout.PORTS[name], timeout=30)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()


def catalog() -> None:
    """Make the service catalog, the service user and the user `demo`, who is no admin."""
    admin = Cloud()
    have = {service["type"] for service in admin.get("keystone", "/services")["services"]}
    for name, kind, suffix in SERVICES:
        if kind in have:
            continue
        service = admin.post("keystone", "/services", {"service": {
            "name": "nova" if name == "nova-api" else name, "type": kind}})["service"]
        url = f"http://{layout.CONTROLLER}:{layout.PORTS[name]}{suffix}"
        for interface in ("public", "internal"):
            admin.post("keystone", "/endpoints", {"endpoint": {
                "service_id": service["id"], "interface": interface, "url": url,
                "region_id": layout.REGION}})
    _user(admin, "svc", "service", ("admin", "service"))
    _user(admin, "demo", "demo", ("member",))


def _user(admin: Cloud, name: str, project_name: str, role_names: tuple[str, ...]) -> None:
    """Make a user, whose password is its name, with roles in a project."""
    def ensure(kind: str, wanted: str, **fields: str) -> str:
        found = admin.get("keystone", f"/{kind}s?name={wanted}")[f"{kind}s"]
        made = found[0] if found else admin.post(
            "keystone", f"/{kind}s", {kind: {"name": wanted, **fields}})[kind]
        return made["id"]

    project = ensure("project", project_name, domain_id="default")
    user = ensure("user", name, domain_id="default", password=name, default_project_id=project)
    for role_name in role_names:
        role = ensure("role", role_name)
        admin.call("keystone", "PUT", f"/projects/{project}/users/{user}/roles/{role}")


def guest_network() -> None:
    """Make the one network that all guests are on."""
    shell.wait_for("the guests' network", POLICIES_SECONDS, _guest_network)


def _guest_network() -> bool:
    """Make the network unless it is there; False where Neutron does not let an administrator.

    Of two first requests at once one may be judged while the other still reads the policies: it is
    shown no network then, and refused one.
    """
    admin = Cloud()
    for _ in range(2):
        if admin.get("neutron", f"/networks?name={NETWORK}")["networks"]:
            return True
        time.sleep(POLICIES_LOOK_SECONDS)
    try:
        network = admin.post("neutron", "/networks", {
            "network": {"name": NETWORK, "shared": True}})["network"]
    except ApiError as error:
        if error.status != http.HTTPStatus.FORBIDDEN:
            raise
        return False
    admin.post("neutron", "/subnets", {"subnet": {
        "network_id": network["id"], "ip_version": 4, "cidr": layout.GUEST_SUBNET,
        "gateway_ip": None, "enable_dhcp": False}})
    return True


def images() -> None:
    """Upload kernels, initramfs and disks of all families; replace those whose files changed."""
    admin = Cloud()
    have = {image["name"]: image
            for image in admin.get("glance", "/images?limit=1000")["images"]}

    def ensure(name: str, disk_format: str, file: guest_images.GuestFile,
               **properties: str) -> str:
        digest = stamps.digest(file.digest, sorted(properties.items()))
        if name in have:
            if have[name].get("nbm_digest") == digest and have[name]["status"] == "active":
                return have[name]["id"]
            admin.call("glance", "DELETE", f"/images/{have[name]['id']}")
        image = admin.post("glance", "/images", {
            "name": name, "disk_format": disk_format, "visibility": "public",
            "container_format": disk_format if disk_format in ("aki", "ari") else "bare",
            "nbm_digest": digest, **properties})
        admin.upload(f"/images/{image['id']}/file", file.path)
        have[name] = admin.get("glance", f"/images/{image['id']}")
        return image["id"]

    for family in families.FAMILIES.values():
        kernel, initramfs, disk = guest_images.files_of(family)
        ensure(family.name, "raw", disk, hw_rng_model="virtio",
               os_command_line=family.command_line(),
               kernel_id=ensure(f"kernel-{family.kernel}", "aki", kernel),
               ramdisk_id=ensure(f"initramfs-{family.kernel}-{family.root}", "ari", initramfs))


def wait_for_computes(hosts: tuple[Host, ...]) -> None:
    """Return when every host's nova-compute was heard of since it started, and is in its cell.

    A service that died a moment ago still counts as up: only a report after the process's start is
    news.
    """
    admin = Cloud()

    def ready() -> bool:
        try:
            services = admin.get("nova-api", "/os-services?binary=nova-compute")["services"]
            hypervisors = admin.get("nova-api", "/os-hypervisors/detail")["hypervisors"]
        except cloud.ApiError as error:
            if error.status >= 500:
                return False
            raise
        heard = {service["host"] for service in services
                 if service["state"] == "up" and _fresh(service)}
        known = {hypervisor["service"]["host"] for hypervisor in hypervisors
                 if hypervisor["state"] == "up"}
        return {each.name for each in hosts} <= heard & known

    shell.wait_for("fresh heartbeats of all computes", 120, ready, every_seconds=0.5)


def forget_other_computes(hosts: tuple[Host, ...]) -> None:
    """Delete the compute services of hosts that an earlier `up` had and this one has not."""
    admin = Cloud()
    for service in admin.get("nova-api", "/os-services?binary=nova-compute")["services"]:
        if service["host"] not in {each.name for each in hosts}:
            try:
                admin.call("nova-api", "DELETE", f"/os-services/{service['id']}")
            except cloud.ApiError as error:
                shell.say(f"{service['host']} stays in Nova's list: {error}")


def _fresh(service: dict) -> bool:
    process = daemon.record(f"compute-{service['host']}")
    if process is None or not service["updated_at"]:
        return False
    told = datetime.datetime.fromisoformat(service["updated_at"]).replace(tzinfo=datetime.UTC)
    return told.timestamp() > process.started_seconds
