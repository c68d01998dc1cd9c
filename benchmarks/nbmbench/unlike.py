"""Builds guests that share neither kernel nor files: a Debian kernel and a package's files each.

Called by fleets before such guests boot; kept in the lab's cache, done once. Beside busybox and the
guest program (3 MB) no file is in two of them.
"""
import dataclasses
import functools
import gzip
import pathlib
import re
import shutil
import subprocess

from nbmlab import apt, images, layout, shell, stamps

DIRECTORY = layout.CACHE / "bench"
FILES_BYTES = 28 << 20                 # as much as the lab's small userland has


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kernel and the packages whose installed files are the userland."""

    name: str
    kernel: str                        # metapackage, or a pattern of which the oldest is taken
    backports: bool
    packages: tuple[str, ...]          # the lab installs them

    @property
    def directory(self) -> pathlib.Path:
        return DIRECTORY / self.name


# Beside these the lab's own "redis" is the eighth: cloud kernel 6.1, Debian's minimal userland.
KINDS = {kind.name: kind for kind in (
    Kind("compiler", "linux-image-amd64", False, ("gcc-12",)),
    Kind("database", "linux-image-rt-amd64", False, ("mariadb-server-core",)),
    Kind("versions", "linux-image-cloud-amd64", True, ("git",)),
    Kind("emulator", "linux-image-amd64", True, ("qemu-system-x86",)),
    Kind("unicode", "linux-image-rt-amd64", True, ("libicu72",)),
    Kind("scripts", r"linux-image-6\.1\.0-\d+-cloud-amd64", False,
         ("libperl5.36", "perl-modules-5.36")),
    Kind("queue", r"linux-image-6\.12\.\d+\+deb12-cloud-amd64", True,
         ("erlang-base", "libpython3.11-dev")),
)}


def files(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """Return kernel and initramfs of a kind, built if they are not there yet."""
    kind = KINDS[name]
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    stamps.once(f"bench-kernel-{name}", stamps.digest(kind.kernel, kind.backports),
                functools.partial(_kernel, kind))
    key = stamps.digest(*kind.packages, FILES_BYTES, images.DIRECTORY / "guest",
                        layout.LAB_SOURCE / "guest/init")
    stamps.once(f"bench-initramfs-{name}", key, functools.partial(_initramfs, kind))
    return kind.directory / "vmlinuz", kind.directory / "initramfs"


def _kernel(kind: Kind) -> None:
    shell.say(f"guest kernel for {kind.name}")
    kind.directory.mkdir(exist_ok=True)
    options = apt.backports_options() if kind.backports else []
    if kind.backports:
        apt.backports_update()
    package = _package(kind.kernel, options)
    unpacked = kind.directory / "package"
    shutil.rmtree(unpacked, ignore_errors=True)
    for file in apt.download((package,), kind.directory, options):
        # the kernel alone: its modules are not needed, since a guest of these has no disk
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", file], check=True,
                             stdout=subprocess.PIPE).stdout
        unpacked.mkdir()
        subprocess.run(["tar", "-x", "-C", unpacked, "--wildcards", "./boot/vmlinuz-*"],
                       input=tar, check=True)
        file.unlink()
    next((unpacked / "boot").glob("vmlinuz-*")).rename(kind.directory / "vmlinuz")
    shutil.rmtree(unpacked)


def _package(kernel: str, options: list[str]) -> str:
    if "\\" not in kernel:
        return apt.dependency(kernel, "linux-image-", options)
    names = shell.run("apt-cache", *options, "pkgnames", "linux-image-").split()
    found = [name for name in names if re.fullmatch(kernel, name)]
    if not found:
        raise shell.LabError(f"apt knows no kernel like {kernel}: run apt-get update")
    return min(found, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])


def _initramfs(kind: Kind) -> None:
    tree = kind.directory / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    for directory in ("bin", "dev", "proc", "sys", "nbm", "modules"):
        (tree / directory).mkdir(parents=True)
    (tree / "modules/order").write_text("")
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    shutil.copy(layout.LAB_SOURCE / "guest/init", tree / "init")
    (tree / "init").chmod(0o755)
    shutil.copy(images.DIRECTORY / "guest", tree / "nbm/guest")
    left = FILES_BYTES
    for path in _installed(kind.packages):
        content = path.read_bytes()[:left]
        target = tree / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        left -= len(content)
        if not left:
            break
    names = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    archive = kind.directory / "archive.cpio"
    shell.run("cpio", "--quiet", "-o", "-H", "newc", "--reproducible", "-F", archive, cwd=tree,
              stdin="\n".join(names) + "\n")
    with archive.open("rb") as source, \
            gzip.open(kind.directory / "initramfs", "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target)
    archive.unlink()
    shutil.rmtree(tree)


def _installed(packages: tuple[str, ...]) -> list[pathlib.Path]:
    listed = [pathlib.Path(line) for package in packages
              for line in shell.run("dpkg", "-L", package).splitlines()]
    return sorted(path for path in listed if path.is_file() and not path.is_symlink())
