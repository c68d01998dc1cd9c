"""Takes everything of the lab away, whatever state it is in: processes, mounts, links, namespaces.

Called by lab/down, and by lab/up when it takes over what another lab left behind.
"""
import concurrent.futures
import pathlib

from nbmlab import cgroups, daemon, host, layout, network, shell

# What keeps data is asked to end and waited for; the others have nothing to lose.
KEEP_DATA = ("mysql", "rabbit")


def down(state: pathlib.Path) -> None:
    """Stop the cloud with that state directory and leave nothing of it but that directory."""
    if state == layout.STATE:
        plain = [name for name in daemon.names() if name not in (*KEEP_DATA, "instances")
                 and not name.startswith(("host-", "libvirtd-"))]
        with concurrent.futures.ThreadPoolExecutor(max_workers=20) as pool:
            list(pool.map(lambda name: daemon.stop(name, patience_seconds=2), plain))
            list(pool.map(host.stop, layout.ALL_HOSTS))
            list(pool.map(lambda name: daemon.stop(name, patience_seconds=8), KEEP_DATA))
    for each in layout.ALL_HOSTS:
        daemon.kill(host.processes(each))
    daemon.kill([*daemon.marked(state), *cgroups.processes(cgroups.STORAGE)])
    cgroups.remove(cgroups.STORAGE)
    unmount(state)
    network.remove()
    for leftover in (state / "run").glob("*.json"):
        leftover.unlink()
    layout.MACHINE_OWNER.unlink(missing_ok=True)


def unmount(state: pathlib.Path) -> None:
    """Unmount the instances directory, as often as it is mounted, also when its daemon is dead."""
    mount = str(state / layout.INSTANCES.relative_to(layout.STATE))
    while any(line.split()[1] == mount
              for line in pathlib.Path("/proc/mounts").read_text().splitlines()):
        shell.run("umount", "--lazy", mount)
