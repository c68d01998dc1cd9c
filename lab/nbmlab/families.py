"""The guest families: kernel + files + load. A new family is one line in the table.

Read by images (what to build), provision (one Glance image a family) and guests. Does nothing
itself.
"""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Load:
    """What the guest program writes into its verified buffer."""

    working_set_mib: int = 8
    pages_per_second: int = 0
    bytes_per_write: int = 256         # 64..4096, changed in each written page
    compressible: bool = False         # text-like bytes, else random ones
    period_seconds: int = 0            # duty cycle; 0: constant
    on_share: float = 1.0              # share of the period in which it writes


@dataclasses.dataclass(frozen=True)
class Family:
    """Guests of one kind: they share kernel and files, so they have memory in common."""

    name: str
    kernel: str                        # key of images.KERNELS
    root: str                          # key of images.ROOTS: the files
    memory_mib: int
    load: Load = Load()
    talks: bool = False                # keeps a TCP session with another guest that talks
    pass_seconds: int = 8              # in which it goes over its verified buffer once

    def command_line(self) -> str:
        """Return the kernel command line: a quick boot, and the load for the guest program."""
        load = self.load
        return (f"console=ttyS0 quiet loglevel=4 mitigations=off no_timer_check nomodeset "
                f"random.trust_cpu=on 8250.nr_uarts=1 nbm.root={self.root} "
                f"nbm.ws={load.working_set_mib} nbm.rate={load.pages_per_second} "
                f"nbm.bytes={load.bytes_per_write} nbm.text={int(load.compressible)} "
                f"nbm.period={load.period_seconds} nbm.on={int(load.on_share * 100)} "
                f"nbm.talk={int(self.talks)} nbm.pass={self.pass_seconds}")


FAMILIES = {family.name: family for family in (
    # two Debian cloud kernels with the same small userland, mostly idle
    Family("web", "6.1", "small", 128, Load(8, 20)),
    Family("cache", "6.12", "small", 128, Load(8, 40, compressible=True)),
    # a set write load
    Family("writer-slow", "6.1", "small", 128, Load(8, 200)),
    Family("writer-mid", "6.1", "small", 192, Load(16, 600, bytes_per_write=1024)),
    Family("writer-fast", "6.1", "small", 192, Load(32, 1200, bytes_per_write=4096)),
    Family("writer-text", "6.12", "small", 192, Load(16, 600, compressible=True)),
    Family("writer-duty", "6.12", "small", 192, Load(16, 800, period_seconds=30, on_share=0.5)),
    # two of them keep a TCP session, to be moved together; busy enough to be led through rounds
    Family("talker", "6.1", "small", 128, Load(16, 600), talks=True),
    # a real Debian userland with a real service under its own benchmark
    Family("redis", "6.1", "redis", 384),
)}

# For tests, each of which ends with a whole pass behind the last move: the same guests, but that
# they go over their buffers more often.
QUICK = {name: f"quick-{name}" for name in ("web", "writer-slow", "writer-mid", "talker")}
FAMILIES |= {quick: dataclasses.replace(FAMILIES[name], name=quick, pass_seconds=2)
             for name, quick in QUICK.items()}
