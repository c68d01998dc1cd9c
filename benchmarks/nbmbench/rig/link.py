"""Two network namespaces joined by one veth pair, with a cap by tc: the hosts of a benchmark.

Made by Rig. Names carry the pid of their maker, so that what a killed run left can be removed.
"""
import ctypes
import json
import os
import pathlib
import re
import socket
import threading

from nbmlab import layout, network, shell

PREFIX = "nbmrig"
SOURCE, DESTINATION = "source", "destination"
ADDRESSES = {SOURCE: "10.79.0.1", DESTINATION: "10.79.0.2"}
BURST = "72k"
#: A power of two: the port modulo it chooses the queue, and a Rig's ports go up by two.
FAIR_QUEUES = 16
_CLONE_NEWNET = 0x40000000
#: Where benchmarks listen: no connection of somebody else may happen to begin at one of these.
_LISTENED_PORTS = "49152-49407"


class Link:
    """The pair of namespaces; `cap` shapes what either end sends."""

    def __init__(self):
        self.names = {side: f"{PREFIX}-{os.getpid()}-{side[0]}" for side in ADDRESSES}

    def build(self) -> None:
        """Create the namespaces and the pair, and remove those whose maker is dead."""
        remove_stale()
        for name in self.names.values():
            shell.run("ip", "netns", "add", name)
            shell.run("ip", "-n", name, "link", "set", "lo", "up")
            shell.run("ip", "netns", "exec", name, "sysctl", "-q",
                      f"net.ipv4.ip_local_reserved_ports={_LISTENED_PORTS}")
        source, destination = self.names[SOURCE], self.names[DESTINATION]
        shell.run("ip", "link", "add", "eth0", "mtu", layout.MTU_BYTES, "netns", source, "type",
                  "veth", "peer", "name", "eth0", "mtu", layout.MTU_BYTES, "netns", destination)
        for side, name in self.names.items():
            shell.run("ip", "-n", name, "addr", "add", f"{ADDRESSES[side]}/24", "dev", "eth0")
            shell.run("ip", "-n", name, "link", "set", "eth0", "up")

    def use_cubic(self) -> None:
        """Have TCP at both ends use cubic, as it is between the lab's hosts."""
        for name in self.names.values():
            network.use_cubic(name)

    def remove(self) -> None:
        """Delete both namespaces; the pair goes with them."""
        for name in self.names.values():
            if pathlib.Path("/run/netns", name).exists():
                shell.run("ip", "netns", "del", name)

    def cap(self, bytes_per_second: float, fair: bool = False) -> None:
        """Cap each end's sending, frames counted (MTU 9000: within 1 % of the payload); 0: none.

        The queue is as in the lab: lab/nbmlab/network.py. `fair`: streams to neighbouring ports
        have queues of their own that take turns, as with fq_codel, the default queue of today's
        distributions; in one queue TCP streams of some seconds share as chance has it.
        """
        rate = int(bytes_per_second)
        for name in self.names.values():
            shell.succeeds("tc", "-n", name, "qdisc", "del", "dev", "eth0", "root")
            if rate:
                self._shape(("tc", "-n", name), rate, FAIR_QUEUES if fair else 0)

    def _shape(self, tc: tuple[str, ...], rate: int, queues: int) -> None:
        limit = max(int(rate * network.QUEUE_SECONDS), 200_000)

        def add(what: str, *words: object) -> None:
            shell.run(*tc, what, "add", "dev", "eth0", *words)

        def htb(parent: str, handle: str, share: int, *words: object) -> None:
            add("class", "parent", parent, "classid", handle, "htb", "rate", f"{share * 8}bit",
                "ceil", f"{rate * 8}bit", "burst", BURST, "cburst", BURST, *words)

        add("qdisc", "root", "handle", "1:", "htb", "default", "10")
        htb("1:", "1:1" if queues else "1:10", rate)
        for queue in range(queues):
            # handles are hexadecimal
            htb("1:1", f"1:{0x10 + queue:x}", rate // queues, "quantum", 2 * layout.MTU_BYTES)
            add("filter", "parent", "1:", "protocol", "ip", "prio", 1, "u32", "match", "ip",
                "dport", queue, f"0x{queues - 1:04x}", "flowid", f"1:{0x10 + queue:x}")
        for queue in range(max(1, queues)):
            add("qdisc", "parent", f"1:{0x10 + queue:x}", "handle", f"{0x10 + queue:x}:", "bfifo",
                "limit", limit)

    def sent_bytes(self, side: str = SOURCE) -> int:
        """Return the bytes of frames that one end has sent since it was made."""
        shown = shell.run("ip", "-n", self.names[side], "-s", "-j", "link", "show", "dev", "eth0")
        return json.loads(shown)[0]["stats64"]["tx"]["bytes"]

    def inside(self, side: str) -> tuple[str, ...]:
        """Return the words before a command that make it run at one end, and die with us."""
        return ("setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.names[side])

    def socket(self, side: str) -> socket.socket:
        """Return a new TCP socket that belongs to one end."""
        return self.call(side, socket.socket, socket.AF_INET, socket.SOCK_STREAM)

    def call(self, side: str, function, *arguments):
        """Return what a function gives when it runs in one end's namespace, in a thread of its own.

        Sockets made there stay there.
        """
        outcome = []

        def run() -> None:
            try:
                with open(f"/run/netns/{self.names[side]}") as namespace:
                    if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                outcome.append((function(*arguments), None))
            except Exception as error:
                outcome.append((None, error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        value, error = outcome[0]
        if error:
            raise error
        return value


def remove_stale() -> None:
    """Delete the namespaces of runs that were killed."""
    for path in pathlib.Path("/run/netns").glob(f"{PREFIX}-*"):
        maker = re.match(rf"{PREFIX}-(\d+)-", path.name)
        if maker and not pathlib.Path("/proc", maker[1]).exists():
            shell.succeeds("ip", "netns", "del", path.name)
