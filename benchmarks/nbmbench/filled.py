"""Guests whose memory is filled as a server's is after some days: with the files that it has read.

Called by drain_time. Adds families to the lab's own tables before the cloud comes up, so that lab
and rig boot them as any other; builds their disks once, in the lab's cache.
"""
import pathlib
import shutil
from collections.abc import Callable

from nbmlab import images, layout, shell
from nbmlab.families import FAMILIES, Family, Load

MEMORY_MIB = 512
#: Of files, Debian's minimal userland (some 100 MB, the same in all kinds) among them.
FILES_BYTES = 300 << 20
#: Told on the console once every file of the disk has been read.
READ = b"nbm: all files are read"
PREFIX = "filled-"
_SITE_PACKAGES = layout.VENV / "lib/python3.11/site-packages"


def _packages(*names: str) -> Callable[[], list[pathlib.Path]]:
    return lambda: [pathlib.Path(line) for name in names
                    for line in shell.run("dpkg", "-L", name).splitlines()]


def _python() -> list[pathlib.Path]:
    return sorted(_SITE_PACKAGES.rglob("*.py")) + sorted(_SITE_PACKAGES.rglob("*.so"))


#: Name: kernel, what is beside the userland, load, does the disk's redis run under its benchmark.
#: The names are those of bytes_on_wire's mixed fleet.
_KINDS = {
    "web": ("6.1", _python, Load(8, 20), False),
    "cache": ("6.12", _packages("rabbitmq-server", "erlang-base", "git", "qemu-system-x86",
                                "libicu72", "libpython3.11-dev"),
              Load(8, 40, compressible=True), False),
    "redis": ("6.1", _packages("libperl5.36", "perl-modules-5.36"), FAMILIES["redis"].load, True),
    "database": ("6.12", _packages("mariadb-server-core", "mariadb-client-core", "gcc-12",
                                   "cpp-12", "g++-12"),
                 Load(16, 600, bytes_per_write=1024), False),
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
    for kind, (kernel, files, load, service) in _KINDS.items():
        root = name(kind)
        FAMILIES[name(kind)] = Family(name(kind), kernel, root, MEMORY_MIB, load)
        key = (FILES_BYTES, _READ_ALL, service, pathlib.Path(__file__))
        images.ROOTS[root] = (_maker(files, service), key)
    # the userland that all are made of is the redis family's
    images.build_all()


def _maker(files: Callable[[], list[pathlib.Path]], service: bool) -> Callable[[str], None]:
    def make(root: str) -> None:
        shell.say(f"guest disk {root}")
        tree = images.DIRECTORY / f"tree-{root}"
        shutil.rmtree(tree, ignore_errors=True)
        shell.run("cp", "-a", "--reflink=auto", images.DIRECTORY / "debian", tree)
        shutil.copy(images.DIRECTORY / "guest", tree / "nbm/guest")
        load = _READ_ALL
        if service:
            shutil.copy(images.SOURCE / "load-redis", tree / "nbm/service")
            load += "exec /nbm/service\n"
            (tree / "nbm/service").chmod(0o755)
        (tree / "nbm/load").write_text(load)
        (tree / "nbm/load").chmod(0o755)
        _fill(tree, files())
        disk = images.DIRECTORY / f"disk-{root}.raw"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(images.DISK_BYTES)
        shell.run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk)
        shutil.rmtree(tree)
    return make


def _fill(tree: pathlib.Path, files: list[pathlib.Path]) -> None:
    """Copy files under /srv until the disk holds FILES_BYTES of them."""
    left = FILES_BYTES - sum(path.lstat().st_size for path in tree.rglob("*")
                             if path.is_file() and not path.is_symlink())
    for path in files:
        if not path.is_file() or path.is_symlink():
            continue
        size = path.stat().st_size
        if size > left:
            continue
        target = tree / "srv" / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        left -= size
