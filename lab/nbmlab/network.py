"""The lab's wires: two bridges, the hosts' network namespaces, the cap on the hosts' links.

Called by up, down and lab/link. Touches only links and namespaces with the lab's own names.
"""
import pathlib
import re
import subprocess
import sys

from nbmlab import layout, shell
from nbmlab.layout import Host

MIB = 1 << 20
# What may wait in front of a capped link, in seconds of that link: enough for TCP, little for the
# others.
QUEUE_SECONDS = 0.08
_CONGESTION = pathlib.Path("/proc/sys/net/ipv4")


def build(hosts: tuple[Host, ...], ipv6: bool = False) -> None:
    """Create what is missing of bridges, namespaces and veth pairs; ``ipv6``: for migrations."""
    for bridge in (layout.BRIDGE, layout.GUEST_BRIDGE):
        if not exists(bridge):
            shell.run("ip", "link", "add", bridge, "mtu", layout.MTU_BYTES, "type", "bridge")
        shell.run("ip", "link", "set", bridge, "up")
    shell.run("ip", "addr", "replace", f"{layout.CONTROLLER}/24", "dev", layout.BRIDGE)
    for host in hosts:
        if not pathlib.Path("/run/netns", host.name).exists():
            shell.run("ip", "netns", "add", host.name)
        use_cubic(host.name)
        shell.run("ip", "-n", host.name, "link", "set", "lo", "up")
        _pair(host, host.link, "eth0", layout.BRIDGE)
        _pair(host, host.guest_link, "eth1", layout.GUEST_BRIDGE)
        shell.run("ip", "-n", host.name, "addr", "replace", f"{host.address}/24", "dev", "eth0")
        if ipv6:
            shell.run("ip", "-n", host.name, "addr", "replace", f"{host.address6}/64", "dev",
                      "eth0", "nodad")
        else:
            # of a lab that was up with it
            shell.succeeds("ip", "-n", host.name, "addr", "del", f"{host.address6}/64", "dev",
                           "eth0")
        if not shell.succeeds("ip", "-n", host.name, "link", "show", "brguest"):
            shell.run("ip", "-n", host.name, "link", "add", "brguest", "type", "bridge")
        shell.run("ip", "-n", host.name, "link", "set", "eth1", "master", "brguest", "up")
        shell.run("ip", "-n", host.name, "link", "set", "brguest", "up")


def use_cubic(namespace: str) -> None:
    """Have TCP in a namespace use cubic, as a fresh Debian does, where the kernel has it.

    A namespace inherits what the machine was set to. What a QEMU has written and the kernel not
    sent is before a guest that was stopped: of a set's members (relay/service.py) 0.7 MB each
    under bbr, 0.16 under cubic.
    """
    if "cubic" not in (_CONGESTION / "tcp_available_congestion_control").read_text().split():
        return
    # only what the machine allows everybody can be chosen in a namespace
    allowed = (_CONGESTION / "tcp_allowed_congestion_control").read_text().strip()
    try:
        if "cubic" not in allowed.split():
            _allow(f"{allowed} cubic")
        shell.run("ip", "netns", "exec", namespace, "sysctl", "-q",
                  "net.ipv4.tcp_congestion_control=cubic")
    finally:
        _allow(allowed)


def _allow(names: str) -> None:
    (_CONGESTION / "tcp_allowed_congestion_control").write_text(names)


def _pair(host: Host, outer: str, inner: str, bridge: str) -> None:
    if not shell.succeeds("ip", "-n", host.name, "link", "show", inner):
        shell.succeeds("ip", "link", "del", outer)   # its other end went with an older namespace
        shell.run("ip", "link", "add", outer, "mtu", layout.MTU_BYTES, "type", "veth",
                  "peer", "name", inner, "mtu", layout.MTU_BYTES, "netns", host.name)
    shell.run("ip", "link", "set", outer, "master", bridge, "up")
    shell.run("ip", "-n", host.name, "link", "set", inner, "up")


def exists(link: str) -> bool:
    """Tell whether the machine has a link of that name outside the hosts."""
    return pathlib.Path("/sys/class/net", link).exists()


def remove() -> None:
    """Delete every link and namespace of the lab; what is not there is no error."""
    for host in layout.ALL_HOSTS:
        unplug(host)
    for bridge in (layout.BRIDGE, layout.GUEST_BRIDGE):
        if exists(bridge):
            shell.run("ip", "link", "del", bridge)


def unplug(host: Host) -> None:
    """Delete a host's links and its namespace."""
    for link in (host.link, host.guest_link):
        if exists(link):
            shell.run("ip", "link", "del", link)
    if pathlib.Path("/run/netns", host.name).exists():
        shell.run("ip", "netns", "del", host.name)


def cap(hosts: tuple[Host, ...], mib_per_second: float) -> None:
    """Cap what each host sends to the other hosts; 0 takes the cap away.

    Class 1:10 of an htb on eth0 inside the host, chosen by the destination's address: traffic with
    the controller (RabbitMQ, APIs) has no class and passes unshaped, the guests' network is eth1.
    Who wants to know the cap reads `tc class show dev eth0` in the host: class 1:10, `rate` in
    bits per second.
    """
    rate = int(mib_per_second * MIB)
    for host in hosts:
        # tc rounds to thousands of bits. A cap that is right stays: streams may be under way.
        if abs(capped_bytes_per_second(host) - rate) < 1000:
            continue
        tc = ("tc", "-n", host.name)
        shell.succeeds(*tc, "qdisc", "del", "dev", "eth0", "root")
        if not rate:
            continue
        shell.run(*tc, "qdisc", "add", "dev", "eth0", "root", "handle", "1:", "htb")
        shell.run(*tc, "class", "add", "dev", "eth0", "parent", "1:", "classid", "1:10", "htb",
                  "rate", f"{rate * 8}bit", "burst", "72k", "cburst", "72k")
        shell.run(*tc, "qdisc", "add", "dev", "eth0", "parent", "1:10", "handle", "10:",
                  "bfifo", "limit", max(int(rate * QUEUE_SECONDS), 200_000))
        for other in layout.ALL_HOSTS:
            if other != host:
                shell.run(*tc, "filter", "add", "dev", "eth0", "parent", "1:", "protocol", "ip",
                          "prio", 1, "u32", "match", "ip", "dst", f"{other.address}/32",
                          "flowid", "1:10")
                shell.run(*tc, "filter", "add", "dev", "eth0", "parent", "1:", "protocol", "ipv6",
                          "prio", 2, "u32", "match", "ip6", "dst", f"{other.address6}/128",
                          "flowid", "1:10")


def capped_bytes_per_second(host: Host) -> int:
    """Return the cap of a host's link as tc tells it, 0 when there is none.

    Read as text: iproute2 6.1 of Debian 12 has no JSON for htb's classes, -j or not.
    """
    shown = shell.run("tc", "-n", host.name, "class", "show", "dev", "eth0")
    found = re.search(r"^class htb 1:10 .* rate (\d+)([KMG]?)bit ", shown, re.MULTILINE)
    factor = {"": 1, "K": 10 ** 3, "M": 10 ** 6, "G": 10 ** 9}
    return int(found[1]) * factor[found[2]] // 8 if found else 0


def sent_bytes(host: Host) -> int:
    """Return the bytes that a host with a cap has sent to the other hosts since it was set."""
    shown = shell.run("tc", "-s", "-n", host.name, "class", "show", "dev", "eth0")
    found = re.search(r"^class htb 1:10 .*\n Sent (\d+) bytes", shown, re.MULTILINE)
    return int(found[1]) if found else 0


def measure(source: Host, destination: Host, seconds: float = 4) -> float:
    """Send zeros over TCP from one host to another and return the bytes per second that arrived.

    The first half second is left out: a queue that fills is no rate.
    """
    receiver = (
        "import socket,sys,time\n"
        f"s=socket.create_server(('{destination.address}',5999)); print('ready',flush=True)\n"
        "c,_=s.accept(); b=bytearray(1<<20); n=0; t0=None; begin=time.monotonic()\n"
        "while True:\n"
        "    k=c.recv_into(b)\n"
        "    now=time.monotonic()\n"
        "    if not k: break\n"
        "    if t0 is None and now-begin>.5: t0=now; n=0; continue\n"
        "    n+=k; last=now\n"
        "print(n/(last-t0))\n")
    sender = (
        "import socket,time\n"
        f"s=socket.create_connection(('{destination.address}',5999)); z=bytes(1<<17)\n"
        f"end=time.monotonic()+{seconds}\n"
        "while time.monotonic()<end: s.sendall(z)\n")

    def popen(host: Host, code: str) -> subprocess.Popen:
        return subprocess.Popen(["ip", "netns", "exec", host.name, sys.executable, "-c", code],
                                stdout=subprocess.PIPE, text=True)

    with popen(destination, receiver) as receiving:
        receiving.stdout.readline()
        with popen(source, sender) as sending:
            sending.wait()
        return float(receiving.stdout.read())
