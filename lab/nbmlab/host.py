"""A compute host: the process that holds its namespaces, and its libvirtd.

Called by services (start), teardown (stop) and lab/host. Knows nothing of Nova.
"""
import os
import pathlib
import shutil
import string
import uuid

from nbmlab import daemon, layout, shell
from nbmlab.daemon import Daemon
from nbmlab.layout import Host


def start(host: Host, migration_address: str) -> None:
    """Start a host's namespaces and libvirtd unless they run; return when libvirt answers."""
    _files(host, migration_address)
    holder = _holder(host)
    before = daemon.record(holder.name)
    if before is None or before.digest != holder.digest:
        stop(host)
        shutil.rmtree(host.directory / "run", ignore_errors=True)
        (host.directory / "run").mkdir()
        daemon.start(holder)
        shell.wait_for(f"the namespaces of {host.name}", 60,
                       (host.directory / "run/ready").exists, every_seconds=0.05)
    daemon.start(Daemon(
        f"libvirtd-{host.name}",
        (*inside(host), "libvirtd", "--listen", "--pid-file", "/run/libvirt/libvirtd.pid"),
        reads=(host.directory / "etc/libvirtd.conf", host.directory / "etc/qemu.conf")))
    shell.wait_for(f"libvirtd of {host.name}", 120, lambda: shell.succeeds(
        *inside(host), "virsh", "-c", "qemu:///system", "version"))


def stop(host: Host) -> None:
    """End everything that runs in the host, guests included."""
    daemon.kill(processes(host))
    for name in (f"libvirtd-{host.name}", f"host-{host.name}"):
        daemon.stop(name)


def processes(host: Host) -> list[int]:
    """Return the pids of everything in the host's network namespace."""
    if not pathlib.Path("/run/netns", host.name).exists():
        return []
    return [int(word) for word in shell.run("ip", "netns", "pids", host.name).split()]


def running(host: Host) -> set[str]:
    """Return the ids of the guests that the host's libvirt runs, whatever Nova takes them for."""
    return set(shell.run(*inside(host), "virsh", "list", "--uuid", "--state-running").split())


def inside(host: Host) -> tuple[str, ...]:
    """Return the words before a command that make it run inside the host."""
    holder = daemon.record(f"host-{host.name}")
    if holder is None:
        raise shell.LabError(f"{host.name} is not up; start the lab with lab/up")
    return ("nsenter", "--target", str(holder.pid), "--mount", "--uts", "--net", "--")


def enter(host: Host, command: list[str]) -> None:
    """Replace this process by a command inside the host, in the same working directory."""
    words = [*inside(host)[:-1], f"--wd={os.getcwd()}", "--", *command]
    os.execvpe(words[0], words, {**os.environ, **shell.environment()})


def _holder(host: Host) -> Daemon:
    # A new FUSE mount is not seen in an older mount namespace: its daemon is part of the digest.
    mount = daemon.record("instances")
    return Daemon(
        f"host-{host.name}",
        ("ip", "netns", "exec", host.name, "unshare", "--mount", "--uts",
         str(layout.LAB_SOURCE / "etc/hold-host"), host.name, str(host.directory),
         str(layout.QEMU)),
        {"NBM_INSTANCES_MOUNT": f"{mount.pid} {mount.birth}" if mount else "none"},
        reads=(layout.LAB_SOURCE / "etc/hold-host",))


def _files(host: Host, migration_address: str) -> None:
    for name in ("etc", "run", "lib", "log", "cache", "state"):
        (host.directory / name).mkdir(parents=True, exist_ok=True)
    identity = host.directory / "uuid"
    if not identity.exists():
        identity.write_text(str(uuid.uuid4()))
    etc = host.directory / "etc"
    if not (etc / "qemu").exists():
        shutil.copytree("/etc/libvirt", etc, dirs_exist_ok=True, symlinks=True)
        for directory in ("networks", "autostart"):
            shutil.rmtree(etc / "qemu" / directory, ignore_errors=True)
    values = {"uuid": identity.read_text(), "address": migration_address,
              "name": host.name, "log": layout.LOG}
    for name in ("libvirtd.conf", "qemu.conf"):
        template = string.Template((layout.LAB_SOURCE / "etc" / name).read_text())
        (etc / name).write_text(template.substitute(values))
    lines = [f"127.0.0.1 localhost\n{layout.CONTROLLER} controller\n"]
    lines += [f"{other.address} {other.name}\n" for other in layout.ALL_HOSTS]
    hosts = "".join(lines)
    if not (host.directory / "hosts").exists() or (host.directory / "hosts").read_text() != hosts:
        (host.directory / "hosts").write_text(hosts)
