"""What the migration link of this host gives: speed, a TCP stream's share of it, other traffic.

Called by manager.py [0040, 0114]. Reads the kernel's tables through iproute2 and /sys; never sends.
"""

import dataclasses
import ipaddress
import json
import pathlib
import re
import subprocess
import threading
import time

from oslo_log import log

from nova_batch_migrate.agent import nova_options
from nova_batch_migrate.planning.telemetry import Bandwidth

LOG = log.getLogger(__name__)

MIB = 1 << 20
#: Where no speed is to be found: 1 Gbit/s, said as "unknown".
ASSUMED_BYTES_PER_SECOND = 125_000_000
#: Inside an MTU the headers of TCP, with time stamps, and of IP by its version; Ethernet's around.
_TCP_BYTES = 20 + 12
_IP_BYTES = {4: 20, 6: 40}
_ETHERNET_BYTES = 14
#: What a real wire adds to that: checksum, preamble, gap. Traffic control does not count it.
_WIRE_BYTES = 4 + 8 + 12
_WATCH_SECONDS = 1.0
_OLD_SECONDS = 60.0
_HTB_CLASS = re.compile(
    r"^class htb (\S+) (?:root|parent (\S+)) .*\bceil (\d+)([KMGT]?)bit\b", re.MULTILINE)
_TBF = re.compile(r"^qdisc tbf .*\brate (\d+)([KMGT]?)bit\b", re.MULTILINE)
_BITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_COMMAND_SECONDS = 5
#: Nova's options that name the address to which migrations come, the first that is one counts.
_ADDRESSES = ("live_migration_inbound_addr", "my_ip")


@dataclasses.dataclass(frozen=True)
class _Look:
    """The counters of the interface and of the migrations that leave, at one moment."""

    interface: str
    at: float
    sent_bytes: int
    migrated_bytes: dict[str, int]


class LinkWatch:
    """Looks at the migration link; ``hypervisor`` tells the bytes of running migrations.

    What of them a relay carries crosses as fewer: ``relay_groups`` gives its open groups with what
    they have put on the wire.

    Other traffic is what was sent since the last look where that is some time ago, so that an
    allocator may ask while migrations run; else about a second is watched.
    """

    def __init__(self, conf, hypervisor, relay_groups=lambda: []):
        self._conf = conf
        self._hypervisor = hypervisor
        self._relay_groups = relay_groups
        self._last: _Look | None = None
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Take a first look, from which on a call of `measure` later knows other traffic."""
        options = nova_options.read(self._conf.agent.nova_config_files)
        interface = self._conf.agent.migration_interface or find_interface(options)
        with self._lock:
            self._last = self._look(interface)

    def measure(self) -> Bandwidth:
        """Return the Bandwidth of the migration link as it is now."""
        conf = self._conf
        options = nova_options.read(conf.agent.nova_config_files)
        interface = conf.agent.migration_interface or find_interface(options)
        speed, source = link_speed(conf, interface)
        cap = options["live_migration_bandwidth"]
        mtu_bytes = _link(interface).get("mtu", 1500)
        version = ip_version(options)
        with self._lock:
            other = self._other_traffic(interface, mtu_bytes, version)
        return Bandwidth(
            interface=interface,
            link_bytes_per_second=float(speed),
            goodput_bytes_per_second=goodput(speed, source, mtu_bytes, version),
            other_bytes_per_second=max(other, conf.agent.reserve_mib_s * MIB),
            source=source,
            nova_cap_bytes_per_second=float(cap * MIB) if isinstance(cap, int) and cap else None,
        )

    def _other_traffic(self, interface: str, mtu_bytes: int, version: int) -> float:
        """Return bytes/s sent on the interface, those of running migrations left out."""
        before, now = self._last, self._look(interface)
        if before is None or not _comparable(before, now):
            time.sleep(_WATCH_SECONDS)
            before, now = now, self._look(interface)
        self._last = now
        header_factor = (mtu_bytes + _ETHERNET_BYTES) / _payload_bytes(mtu_bytes, version)
        own = sum(size - before.migrated_bytes.get(server, 0)
                  for server, size in now.migrated_bytes.items())
        all_sent = now.sent_bytes - before.sent_bytes
        return max(0.0, all_sent - own * header_factor) / (now.at - before.at)

    def _look(self, interface: str) -> _Look:
        return _Look(interface, time.monotonic(), _sent(interface),
                     on_the_wire(self._hypervisor.migrated_bytes(), self._relay_groups()))


def on_the_wire(migrated_bytes: dict[str, int], relay_groups: list[dict]) -> dict[str, int]:
    """Return the bytes that migrations have put on the wire, by server or by relay's group.

    A server whose stream a relay carries, or carried to its end, counts with its group.
    """
    carried = {server for group in relay_groups for server, figures in group["servers"].items()
               if figures["outcomes"][-1] in ("running", "done")}
    own = {server: size for server, size in migrated_bytes.items() if server not in carried}
    return own | {f"group {group['id']}": group.get("wire_bytes", 0) for group in relay_groups}


def _comparable(before: _Look, now: _Look) -> bool:
    """Tell whether two looks show what others sent: no migration ended between them."""
    return (before.interface == now.interface
            and _WATCH_SECONDS <= now.at - before.at <= _OLD_SECONDS
            and before.migrated_bytes.keys() <= now.migrated_bytes.keys())


def find_interface(options: dict) -> str:
    """Return the interface with Nova's migration address, else that of the default route.

    Empty when there is neither.
    """
    links = _iproute("ip", "-j", "addr", "show")
    for name in _ADDRESSES:
        for link in links:
            if any(_same(address.get("local"), options[name]) for address in link["addr_info"]):
                return link["ifname"]
    routes = _iproute("ip", "-j", "route", "show", "default")
    return routes[0]["dev"] if routes else ""


def ip_version(options: dict) -> int:
    """Return the IP version of Nova's migration address, 4 where its options name none."""
    for name in _ADDRESSES:
        try:
            return ipaddress.ip_address(options[name]).version
        except ValueError:
            # unset, unknown, or a name
            continue
    return 4


def _same(address: str | None, told: str | None) -> bool:
    """Tell whether two texts are the same address; of IPv6 there are several for each."""
    try:
        return ipaddress.ip_address(address) == ipaddress.ip_address(told)
    except ValueError:
        return False


def link_speed(conf, interface: str) -> tuple[float, str]:
    """Return bytes/s of the interface and where the figure is from (a Bandwidth's ``source``)."""
    if conf.agent.link_mib_s:
        return conf.agent.link_mib_s * MIB, "option"
    cap = tightest_cap(_output("tc", "qdisc", "show", "dev", interface),
                       _output("tc", "class", "show", "dev", interface))
    if cap is not None:
        return cap, "tc"
    try:
        mbit_s = int(pathlib.Path("/sys/class/net", interface, "speed").read_text())
    except (OSError, ValueError):
        mbit_s = -1
    if mbit_s > 0:
        return mbit_s * 1_000_000 / 8, "ethtool"
    return ASSUMED_BYTES_PER_SECOND, "unknown"


def tightest_cap(qdiscs: str, classes: str) -> float | None:
    """Return the lowest rate in bytes/s that traffic control holds traffic to; None for no cap.

    The arguments are what tc shows: its text, because iproute2 6.1 has no JSON for classes. Of htb
    the leaf classes count, by their ceiling; a tbf counts wherever it sits. Which of several
    classes takes migrations is beyond us: [agent] link_mib_s says it where they differ.
    """
    found = _HTB_CLASS.findall(classes)
    inner = {parent for _, parent, _, _ in found}
    caps = [_bytes_per_second(*ceil) for handle, _, *ceil in found if handle not in inner]
    caps += [_bytes_per_second(*rate) for rate in _TBF.findall(qdiscs)]
    return min(caps, default=None)


def _bytes_per_second(number: str, unit: str) -> float:
    return float(number) * _BITS[unit] / 8


def goodput(link_bytes_per_second: float, source: str, mtu_bytes: int, version: int = 4) -> float:
    """Return the payload bytes/s of one TCP stream that has the link alone.

    A cap (of traffic control or an operator's option) is counted in frames with their Ethernet
    header; a link's own speed also carries checksum, preamble and gap. ``version`` is IP's.
    """
    around = _ETHERNET_BYTES + (_WIRE_BYTES if source == "ethtool" else 0)
    return link_bytes_per_second * _payload_bytes(mtu_bytes, version) / (mtu_bytes + around)


def _payload_bytes(mtu_bytes: int, version: int) -> int:
    return mtu_bytes - _TCP_BYTES - _IP_BYTES[version]


def _sent(interface: str) -> int:
    return _link(interface).get("stats64", {}).get("tx", {}).get("bytes", 0)


def _link(interface: str) -> dict:
    links = _iproute("ip", "-j", "-s", "link", "show", "dev", interface)
    return links[0] if links else {}


def _iproute(*command: str) -> list[dict]:
    return json.loads(_output(*command) or "[]")


def _output(*command: str) -> str:
    """Return what a command of iproute2 shows; nothing where it fails (no interface, no tool)."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True,
                              timeout=_COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        LOG.warning("%s: %s", " ".join(command), getattr(error, "stderr", None) or error)
        return ""
    return done.stdout
