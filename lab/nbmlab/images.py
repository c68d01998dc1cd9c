"""Builds what guests are made of, once: kernels, initramfs, the guest program, root disks.

Called by install; provision asks where the files are. Never installs a kernel and mounts nothing
but what debootstrap itself needs.
"""
import dataclasses
import functools
import gzip
import lzma
import pathlib
import shutil
import stat

from nbmlab import apt, layout, shell, stamps
from nbmlab.families import FAMILIES, Family

KERNELS = {"6.1": False, "6.12": True}           # name: is it from the backports suite
METAPACKAGE = "linux-image-cloud-amd64"
# With everything they need; what is built into a kernel is left out.
MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "ext4")
# Files that guests of the small userland have in common, as servers of one distribution do.
SHARED_FILES_BYTES = 28 << 20
SHARED_FILES_FROM = pathlib.Path("/usr/lib/x86_64-linux-gnu")
REDIS_PACKAGES = ("redis-server", "redis-tools", "iproute2", "busybox-static")
DISK_BYTES = 512 << 20                 # sparse; what Nova copies is what is in it
SOURCE = layout.LAB_SOURCE / "guest"
DIRECTORY = layout.GUEST_FILES


@dataclasses.dataclass(frozen=True)
class GuestFile:
    """A file that becomes a Glance image; `digest` tells when it changed."""

    path: pathlib.Path
    digest: str


def files_of(family: Family) -> tuple[GuestFile, GuestFile, GuestFile]:
    """Return kernel, initramfs and disk of a family."""
    initramfs = f"initramfs-{family.kernel}-{family.root}"
    disk = f"disk-{family.root}"

    def digest(stamp: str) -> str:
        return (layout.STAMPS / stamp).read_text()

    return (GuestFile(DIRECTORY / family.kernel / "vmlinuz", digest(f"kernel-{family.kernel}")),
            GuestFile(DIRECTORY / initramfs, digest(initramfs)),
            GuestFile(DIRECTORY / f"{disk}.raw", digest(disk)))


def build_all() -> None:
    """Build everything that the table of families asks for."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in sorted({family.kernel for family in FAMILIES.values()}):
        stamps.once(f"kernel-{name}", stamps.digest(METAPACKAGE, *MODULES),
                    functools.partial(_kernel, name))
    program = stamps.digest(*sorted(SOURCE.iterdir()))
    stamps.once("guest-program", program, _program)
    for root in sorted({family.root for family in FAMILIES.values()}):
        disk, key = ROOTS[root]
        stamps.once(f"disk-{root}", stamps.digest(program, *key), functools.partial(disk, root))
    for kernel, root in sorted({(family.kernel, family.root) for family in FAMILIES.values()}):
        key = stamps.digest(program, (layout.STAMPS / f"kernel-{kernel}").read_text(),
                            SHARED_FILES_BYTES)
        stamps.once(f"initramfs-{kernel}-{root}", key,
                    functools.partial(_initramfs, kernel, root))


def _program() -> None:
    shell.run("gcc", "-O2", "-Wall", "-static", "-o", DIRECTORY / "guest",
              *sorted(SOURCE.glob("*.c")), "-lm")


def _kernel(name: str) -> None:
    """Unpack a Debian cloud kernel and lay out the modules in the order they load in."""
    shell.say(f"guest kernel {name}")
    directory = DIRECTORY / name
    shutil.rmtree(directory, ignore_errors=True)
    if KERNELS[name]:
        apt.backports_update()
        options = apt.backports_options()
    else:
        options = []
    package = apt.dependency(METAPACKAGE, "linux-image-", options)
    unpacked = directory / "package"
    for file in apt.download((package,), directory, options):
        shell.run("dpkg", "-x", file, unpacked)
        file.unlink()
    next((unpacked / "boot").glob("vmlinuz-*")).rename(directory / "vmlinuz")
    tree = next((unpacked / "lib/modules").iterdir())
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in tree.rglob("*.ko*")}
    (directory / "modules").mkdir()
    order: list[str] = []

    def add(module: str) -> None:
        if module in order or module not in files:
            return
        path = files[module]
        content = path.read_bytes()
        if path.suffix == ".xz":
            content = lzma.decompress(content)
        # .modinfo holds key=value strings that end with a zero byte
        start = content.index(b"\0depends=") + len(b"\0depends=")
        for needed in content[start:content.index(b"\0", start)].decode().split(","):
            add(needed.replace("-", "_"))
        # crc32c is asked for by alias, so no module names what provides it
        if module == "ext4":
            add("crc32c_generic")
        (directory / "modules" / f"{module}.ko").write_bytes(content)
        order.append(module)

    for module in MODULES:
        add(module)
    (directory / "modules/order").write_text("".join(f"{module}.ko\n" for module in order))
    shutil.rmtree(unpacked)


def _initramfs(kernel: str, root: str) -> None:
    """Pack busybox, modules and the guest program, and for the small userland the shared files."""
    tree = DIRECTORY / f"tree-{kernel}-{root}"
    shutil.rmtree(tree, ignore_errors=True)
    for directory in ("bin", "dev", "proc", "sys", "root", "nbm"):
        (tree / directory).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    shutil.copy(SOURCE / "init", tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copytree(DIRECTORY / kernel / "modules", tree / "modules")
    if root == "small":
        shutil.copy(DIRECTORY / "guest", tree / "nbm/guest")
        for path in _shared_files():
            target = tree / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = DIRECTORY / "archive.cpio"
    shell.run("cpio", "--quiet", "-o", "-H", "newc", "--reproducible", "-F", archive, cwd=tree,
              stdin="\n".join(names) + "\n")
    with archive.open("rb") as source, \
            gzip.open(DIRECTORY / f"initramfs-{kernel}-{root}", "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target)
    archive.unlink()
    shutil.rmtree(tree)


def _shared_files() -> list[pathlib.Path]:
    """Return shared libraries of this machine, in a fixed order, up to the bytes wanted."""
    chosen, total = [], 0
    for path in sorted(SHARED_FILES_FROM.glob("lib*.so.*")):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or not 50_000 < status.st_size < 3 << 20:
            continue
        if total + status.st_size > SHARED_FILES_BYTES:
            break
        chosen.append(path)
        total += status.st_size
    return chosen


def _small_disk(root: str) -> None:
    """Make the disk of a guest that lives in its initramfs: Nova wants one, nobody reads it."""
    with (DIRECTORY / f"disk-{root}.raw").open("wb") as disk:
        disk.truncate(1 << 20)


def _redis_disk(root: str) -> None:
    """Make a file system with Debian's minimal userland, redis, and our program as PID 1."""
    tree = DIRECTORY / "debian"
    if not tree.exists():
        (layout.STAMPS / "debian").unlink(missing_ok=True)
    stamps.once("debian", stamps.digest(*REDIS_PACKAGES), lambda: _debian(tree))
    (tree / "nbm").mkdir(exist_ok=True)
    for name, source in (("guest", DIRECTORY / "guest"), ("load", SOURCE / "load-redis")):
        shutil.copy(source, tree / "nbm" / name)
        (tree / "nbm" / name).chmod(0o755)
    disk = DIRECTORY / f"disk-{root}.raw"
    disk.unlink(missing_ok=True)
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    shell.run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, disk)


def _debian(tree: pathlib.Path) -> None:
    """Lay out Debian's minimal userland with redis; kept, since it takes most of the time."""
    shell.say("guest userland: debootstrap")
    shutil.rmtree(tree, ignore_errors=True)
    shell.run("debootstrap", "--variant=minbase", f"--include={','.join(REDIS_PACKAGES)}",
              apt.codename(), tree, apt.mirror(), log=layout.LOG / "debootstrap.log")
    for unwanted in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man",
                     "usr/share/locale"):
        shutil.rmtree(tree / unwanted, ignore_errors=True)


# How the disk of a family's files is made, and what it depends on beside the guest program.
ROOTS = {"small": (_small_disk, ("1 MiB",)), "redis": (_redis_disk, REDIS_PACKAGES)}
