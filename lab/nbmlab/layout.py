"""Where everything of the lab lies and how it is addressed: paths, names, ports, options, as data.

Read by every other module; starts nothing and touches nothing.
"""
import dataclasses
import json
import os
import pathlib

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
LAB_SOURCE = CHECKOUT / "lab"

STATE = pathlib.Path(os.environ.get("NBM_LAB", "/var/lib/nbm-lab")).absolute()
VENV = STATE / "venv"
BIN = VENV / "bin"
ETC = STATE / "etc"                    # rendered configuration, written anew by each `up`
RUN = STATE / "run"                    # pid records, the database's socket
LOG = STATE / "log"
VAR = STATE / "var"                    # databases, images, instances, state of the hosts
CACHE = STATE / "cache"                # what is unpacked or built once: QEMU, kernels, guest images
STAMPS = STATE / "stamps"
QEMU = CACHE / "qemu"
GUEST_FILES = CACHE / "guest"
INSTANCES = VAR / "instances"          # the FUSE mount that both hosts see
INSTANCES_BACKING = VAR / "instances-backing"
MYSQL_SOCKET = RUN / "mysql.sock"
OWNER = STATE / "owner"                # the checkout that started this lab
OPTIONS = STATE / "options.json"
OPENRC = STATE / "openrc"

# Which lab holds the machine's bridges and namespaces: one at a time, whatever its state directory.
MACHINE_OWNER = pathlib.Path("/run/nbm-lab.json")

# Set in the environment of every process of the lab, so that `down` finds strays.
MARKER = "NBM_LAB_PROCESS"

CONTROLLER = "10.77.0.1"
SUBNET = "10.77.0"
PREFIX6 = "fd6e:626d"
GUEST_SUBNET = "10.78.0.0/16"
BRIDGE = "nbm-lab"                     # controller and hosts: RabbitMQ, APIs, migration streams
GUEST_BRIDGE = "nbm-guests"            # the guests' network between the hosts
# With jumbo frames the cap in bytes on the wire is within 1 % of the cap in bytes of a stream.
MTU_BYTES = 9000

PORTS = {"keystone": 5000, "placement": 8778, "glance": 9292, "neutron": 9696, "nova-api": 8774}
RABBIT_PORT = 5672
REGION = "RegionOne"


@dataclasses.dataclass(frozen=True)
class Host:
    """A compute host: network, mount and UTS namespaces with a libvirtd of its own."""

    name: str
    number: int                        # last octet of its addresses

    @property
    def address(self) -> str:
        return f"{SUBNET}.{self.number}"

    @property
    def address6(self) -> str:
        return f"{PREFIX6}::{self.number}"

    @property
    def directory(self) -> pathlib.Path:
        return VAR / self.name

    @property
    def link(self) -> str:
        """The controller's end of the host's eth0."""
        return f"nbm-{self.name}"

    @property
    def guest_link(self) -> str:
        """The controller's end of the host's eth1."""
        return f"nbm-{self.name}-g"


ALL_HOSTS = (Host("cmpa", 11), Host("cmpb", 12), Host("cmpc", 13))


@dataclasses.dataclass(frozen=True)
class Options:
    """What `lab/up` can be told; kept in options.json, so that a plain `lab/up` repeats it.

    As they stand here they are the standard: of `lab/up --defaults`, the demo and the lab tests.
    """

    hosts: int = 2
    link_mib_per_second: float = 0     # 0: not capped
    max_live_migrations: int = 4       # Nova's max_concurrent_live_migrations
    relays: bool = True                # a nova-batch-relay on every host
    dictionary_mib: int = 512          # the relays'
    ipv6: bool = False                 # migrations go over it, what else is between hosts does not

    @property
    def host_list(self) -> tuple[Host, ...]:
        return ALL_HOSTS[:self.hosts]

    def migration_address(self, host: Host) -> str:
        """Return the address of a host to which migrations come."""
        return host.address6 if self.ipv6 else host.address

    def save(self) -> None:
        told = {name: value for name, value in dataclasses.asdict(self).items()
                if value != getattr(Options(), name)}
        OPTIONS.write_text(json.dumps(told, indent=1) + "\n")


def load_options() -> Options:
    """Return the options of the last `up`, or the defaults."""
    try:
        return Options(**json.loads(OPTIONS.read_text()))
    except FileNotFoundError:
        return Options()


def host_named(name: str) -> Host:
    for host in load_options().host_list:
        if host.name == name:
            return host
    raise SystemExit(f"no host {name!r} in this lab; a third one comes with: lab/up --hosts 3")
