"""Installs what the lab and the tests need: Debian packages, the venv, QEMU 10, the project itself.

Called by lab/install, lab/up and tools/test. Every step is done once (stamps keyed by what it
installs) and is quiet. Writes nothing outside Debian's packages and the state directory.
"""
import pathlib
import shutil

from nbmlab import apt, images, layout, owner, shell, stamps

# libvirt-python and uWSGI are compiled; functional tests of the database start a MariaDB.
TEST_PACKAGES = ("python3-venv", "python3-dev", "gcc", "libc6-dev", "pkg-config", "libvirt-dev",
                 "git", "mariadb-server")
LAB_PACKAGES = (
    "rabbitmq-server", "libvirt-daemon-system", "libvirt-clients",
    "qemu-system-x86", "qemu-utils", "bindfs", "nftables", "openssl", "iproute2",
    "iputils-ping", "procps", "systemd", "debootstrap", "busybox-static", "cpio", "e2fsprogs",
    "xz-utils", "zstd")
QEMU_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data")
CONSTRAINTS = layout.LAB_SOURCE / "constraints.txt"
#: Debian's own. One that comes before it in PATH may be built without profiles and link-time
#: optimisation: Nova, and whatever is measured beside it, then takes 1.2 to 1.5 times as long.
PYTHON = pathlib.Path("/usr/bin/python3")


def install(what: str) -> None:
    """Install for `test` (whatever has no guest: functional tests) or for `lab` (everything)."""
    # the virtual environment leads to one checkout's code, also for a lab that runs
    owner.require()
    layout.STAMPS.mkdir(parents=True, exist_ok=True)
    layout.LOG.mkdir(parents=True, exist_ok=True)
    apt.install(TEST_PACKAGES + (LAB_PACKAGES if what == "lab" else ()), what)
    venv()
    project()
    if what == "lab":
        qemu()
        images.build_all()


def venv() -> None:
    """Create the virtual environment and install the set of packages that works together."""
    def action() -> None:
        shell.say("pip: the packages of constraints.txt")
        if not _is_of(PYTHON):
            shutil.rmtree(layout.VENV, ignore_errors=True)
            (layout.STAMPS / "project").unlink(missing_ok=True)
            shell.run(PYTHON, "-m", "venv", layout.VENV)
        # pbr's editable install needs these two; a freeze does not name them
        pip("install", "wheel", "setuptools<81")
        # linked to one interpreter's library, which the name of a wheel that is kept does not tell
        pip("install", "--no-cache-dir", "-c", CONSTRAINTS, "uWSGI")
        pip("install", "-r", CONSTRAINTS)

    stamps.once("venv", stamps.digest(CONSTRAINTS, str(PYTHON)), action)


def _is_of(python: pathlib.Path) -> bool:
    """Tell whether there is a virtual environment, whole enough for pip, of this interpreter."""
    told = layout.VENV / "pyvenv.cfg"
    return (layout.BIN / "pip").exists() and told.exists() \
        and f"home = {python.parent}\n" in told.read_text()


def project() -> None:
    """Install this checkout editable into the venv; again when it is another checkout.

    One cloned anew at the same place is another one: nothing is compiled in it yet.
    """
    parts = [layout.CHECKOUT / "nova_batch_migrate" / part
             for part in ("agent", "planning", "relay")]
    definition = [path for name in ("setup.cfg", "setup.py", "pyproject.toml", "requirements.txt",
                                    "test-requirements.txt", "nova_batch_migrate/xxh3.h",
                                    *(part / "_speed.c" for part in parts))
                  if (path := layout.CHECKOUT / name).exists()]
    if layout.CHECKOUT / "setup.cfg" not in definition:
        return

    def action() -> None:
        shell.say(f"pip: nova-batch-migrate from {layout.CHECKOUT}")
        lists = [word for path in definition if path.name.endswith("requirements.txt")
                 for word in ("-r", path)]
        if lists:
            pip("install", "-c", CONSTRAINTS, *lists)
        pip("install", "--no-deps", "--no-build-isolation", "-e", layout.CHECKOUT)

    if not all(any(part.glob("_speed.*.so")) for part in parts):
        (layout.STAMPS / "project").unlink(missing_ok=True)
    stamps.once("project", stamps.digest(str(layout.CHECKOUT), *definition), action)


def pip(*words: object) -> None:
    """Run the venv's pip; its output goes to pip.log."""
    shell.run(layout.BIN / "pip", "--disable-pip-version-check", "-q", *words,
              log=layout.LOG / "pip.log")


def qemu() -> None:
    """Unpack the QEMU of Debian's backports beside the installed one.

    QEMU 7.2 of Debian 12 loses memory of busy TCG guests in live migration; libvirt stays Debian's.
    """
    def action() -> None:
        shell.say("QEMU 10 from backports")
        shutil.rmtree(layout.QEMU, ignore_errors=True)
        apt.backports_update()
        files = apt.download(QEMU_PACKAGES, layout.CACHE / "apt/qemu", apt.backports_options())
        for package in files:
            shell.run("dpkg", "-x", package, layout.QEMU)
            package.unlink()

    if not (layout.QEMU / "usr/bin/qemu-system-x86_64").exists():
        (layout.STAMPS / "qemu").unlink(missing_ok=True)
    stamps.once("qemu", stamps.digest(*QEMU_PACKAGES), action)
