"""Guests whose memory is filled as a server's is after some days: with the files that it has read.

Called by drain_time. Adds families to the lab's own tables before the cloud comes up, so that lab
and rig boot them as any other; builds their disks once, in the lab's cache.
"""
import dataclasses
import pathlib
import shutil
import zlib
from collections.abc import Callable

from nbmlab import images, layout, shell
from nbmlab.families import FAMILIES, Family, Load

#: Of a small server; eight of them and as many again at the other host fit 24 GiB.
MEMORY_MIB = 1024
#: Of files, Debian's minimal userland (some 100 MB, the same in all kinds) among them.
FILES_BYTES = 600 << 20
#: Of a kind whose memory is mostly its service's and free.
FEW_FILES_BYTES = 300 << 20
DISK_BYTES = 768 << 20                 # sparse
#: A guest in emulation takes some 2 ms to open a file: the tens of thousands of small ones are left
#: out.
LEAST_FILE_BYTES = 16 << 10
#: Told on the console once every file of the disk has been read.
READ = b"nbm: all files are read"
PREFIX = "filled-"
_SITE_PACKAGES = layout.VENV / "lib/python3.11/site-packages"


def _packages(*names: str) -> Callable[[], list[pathlib.Path]]:
    return lambda: [pathlib.Path(line) for name in names
                    for line in shell.run("dpkg", "-L", name).splitlines()]


def _python() -> list[pathlib.Path]:
    return sorted(_SITE_PACKAGES.rglob("*.py")) + sorted(_SITE_PACKAGES.rglob("*.so"))


def _others(share: int) -> list[pathlib.Path]:
    """Return a share of what else this machine has installed: no file is in two shares."""
    found = (path for root in _OTHER_FILES for path in sorted(root.rglob("*")))
    return [path for path in found if zlib.crc32(bytes(path)) % _SHARES == share]


_OTHER_FILES = (pathlib.Path("/usr/lib"), pathlib.Path("/usr/share"))
_SHARES = 4


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What a kind of guest is made of; where its own files are few, others of this machine."""

    kernel: str
    files: Callable[[], list[pathlib.Path]]
    load: Load
    share: int
    files_bytes: int = FILES_BYTES
    #: Does the disk's redis run under its benchmark.
    service: bool = False


#: The names are those of bytes_on_wire's mixed fleet.
_KINDS = {
    "web": _Kind("6.1", _python, Load(16, 20), 0),
    "cache": _Kind("6.12", _packages("rabbitmq-server", "erlang-base", "git", "qemu-system-x86",
                                     "libicu72", "libpython3.11-dev"),
                   Load(16, 40, compressible=True), 1),
    "redis": _Kind("6.1", _packages("libperl5.36", "perl-modules-5.36"), FAMILIES["redis"].load,
                   2, FEW_FILES_BYTES, service=True),
    "database": _Kind("6.12", _packages("mariadb-server-core", "mariadb-client-core", "gcc-12",
                                        "cpp-12", "g++-12"),
                      Load(32, 600, bytes_per_write=1024), 3),
}
_READ_ALL = f"""#!/bin/sh
find / -xdev -type f -exec cat {{}} + >/dev/null 2>&1
echo "{READ.decode()}"
"""


def name(kind: str) -> str:
    """Return the name of a kind's family in the lab's tables."""
    return PREFIX + kind


def register() -> None:
    """Add the families to the lab's tables and build what they are made of."""
    for kind, made in _KINDS.items():
        root = name(kind)
        FAMILIES[root] = Family(root, made.kernel, root, MEMORY_MIB, made.load)
        images.ROOTS[root] = (_maker(made), (_READ_ALL, pathlib.Path(__file__)))
    # the userland that all are made of is the redis family's
    images.build_all()


def filling(kind: str) -> dict[str, int]:
    """Return how a kind is filled: MiB on its disk, all of them read, and of the program's buffer.
    """
    disk = images.DIRECTORY / f"disk-{name(kind)}.raw"
    return {"files_mib": disk.stat().st_blocks * 512 >> 20,
            "buffer_mib": _KINDS[kind].load.working_set_mib}


def _maker(made: _Kind) -> Callable[[str], None]:
    def make(root: str) -> None:
        shell.say(f"guest disk {root}")
        tree = images.DIRECTORY / f"tree-{root}"
        shutil.rmtree(tree, ignore_errors=True)
        shell.run("cp", "-a", "--reflink=auto", images.DIRECTORY / "debian", tree)
        shutil.copy(images.DIRECTORY / "guest", tree / "nbm/guest")
        load = _READ_ALL
        if made.service:
            shutil.copy(images.SOURCE / "load-redis", tree / "nbm/service")
            load += "exec /nbm/service\n"
            (tree / "nbm/service").chmod(0o755)
        (tree / "nbm/load").write_text(load)
        (tree / "nbm/load").chmod(0o755)
        _fill(tree, made.files() + _others(made.share), made.files_bytes)
        disk = images.DIRECTORY / f"disk-{root}.raw"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(DISK_BYTES)
        shell.run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk)
        shutil.rmtree(tree)
    return make


def _fill(tree: pathlib.Path, files: list[pathlib.Path], files_bytes: int) -> None:
    """Copy files under /srv until the disk holds so many bytes of them."""
    left = files_bytes - sum(path.lstat().st_size for path in tree.rglob("*")
                             if path.is_file() and not path.is_symlink())
    for path in files:
        if not path.is_file() or path.is_symlink():
            continue
        size = path.stat().st_size
        target = tree / "srv" / path.relative_to("/")
        if not LEAST_FILE_BYTES <= size <= left or target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        left -= size
