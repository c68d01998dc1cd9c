"""A systemd of the test's own, which runs this package's units as they are installed.

It lives in namespaces of processes, mounts and cgroups, and in the network that it finds (run it
inside namespace.run). What a unit must find is where its file says: its program, its accounts, its
configuration below /etc; all of that, and what it leaves behind, lies on layers of its own and is
gone with it. What a test wants to know runs as one more unit, without any sandbox.
"""

import contextlib
import importlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
UNITS = ROOT / "etc" / "systemd"
SYSTEMD = "/lib/systemd/systemd"
#: What all of it may take on a machine that has better things to do.
LIMIT_SECONDS = 240
ACCOUNTS = {"nova-batch": 64981, "nova-batch-relay": 64982, "libvirt": 64983}
#: What an operator writes is there.
CONFIGURED = pathlib.Path("/etc/nova-batch-migrate")
#: Where Python, its packages and the checkout are for units: none of them hides this place.
_SEEN = pathlib.Path("/run/nbm-seen")
_TREES = {"python": sys.base_prefix, "packages": sysconfig.get_path("purelib"), "checkout": ROOT}
#: Has a file of what it says for each unit, and the result.
_TOLD = pathlib.Path("/run/nbm-told")
_LAYERS = ("/etc", "/usr/bin", "/var/lib")
_SETTLE_SECONDS = 2.0


def run(function):
    """Return what a function at a module's top level says, called beside the units."""
    with tempfile.TemporaryDirectory() as name, _cgroups() as groups:
        told = pathlib.Path(name)
        with open(told / "systemd", "w") as log:
            child = subprocess.Popen(
                ["unshare", "--pid", "--mount", "--cgroup", "--ipc", "--fork", "--kill-child",
                 sys.executable, "-m", __name__, "boot", name, function.__module__,
                 function.__qualname__],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=lambda: _join(groups))
            try:
                child.wait(LIMIT_SECONDS)
            finally:
                child.kill()
                child.wait()
        if not (told / "result").exists():
            raise AssertionError("\n".join(
                f"{path.name}:\n{path.read_text()}" for path in sorted(told.iterdir())))
        return json.loads((told / "result").read_text())


def systemctl(*words: str) -> str:
    """Run systemctl, for a function that :func:`run` calls; raise AssertionError if it fails."""
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"systemctl {' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def start(unit: str) -> int:
    """Start a unit; return its process id if it still runs the same process a moment later."""
    systemctl("start", unit)
    pid = main_pid(unit)
    time.sleep(_SETTLE_SECONDS)
    if not pid or main_pid(unit) != pid:
        raise AssertionError(f"{unit} does not keep running: {said(unit)}")
    return pid


def main_pid(unit: str) -> int:
    return int(systemctl("show", "--value", "--property", "MainPID", unit))


def said(unit: str) -> str:
    """Return what a unit has written to its standard output and error: its log."""
    return (_TOLD / unit).read_text()


def configure(name: str, text: str) -> None:
    """Write a file of this package's directory below /etc, as an operator does."""
    CONFIGURED.mkdir(exist_ok=True)
    (CONFIGURED / name).write_text(text)


def add_unit(name: str, text: str) -> None:
    """Install one more unit, or other lines for one that is there (NAME.service.d/FILE.conf)."""
    target = pathlib.Path("/run/systemd/system") / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    if target.suffix == ".service":
        _say_where(target.stem)
    systemctl("daemon-reload")


def python(*words: str) -> str:
    """Return a command line that runs this checkout's Python inside a sandbox."""
    return " ".join((str(_interpreter()), "-W", "ignore", *words))


@contextlib.contextmanager
def _cgroups():
    """Yield a group of our own in every hierarchy of cgroups."""
    groups = [pathlib.Path(mount) / f"nbm-booted-{os.getpid()}" for mount in _hierarchies()]
    try:
        for group in groups:
            group.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                # version 1 lets nobody in as long as they are empty
                if (group / name).exists() and not (group / name).read_text().strip():
                    (group / name).write_text((group.parent / name).read_text())
        yield groups
    finally:
        for group in groups:
            for path in (*sorted(group.rglob("*/"), reverse=True), group):
                _remove(path)


def _remove(group: pathlib.Path) -> None:
    """Remove a group once the last that was killed in it is gone."""
    end = time.monotonic() + LIMIT_SECONDS
    while True:
        try:
            return group.rmdir()
        except OSError:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def _hierarchies() -> dict[str, list[str]]:
    """Return the words of `mount` for each hierarchy of cgroups by the place it is mounted at."""
    found = {}
    for line in pathlib.Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, options = line.split()[:4]
        if kind == "cgroup2":
            found[mount] = ["-t", kind, kind]
        elif kind == "cgroup":
            named = set(options.split(",")) - {"rw", "ro", "relatime"}
            found[mount] = ["-t", kind, "-o", ",".join(sorted(named)), kind]
    return found


def _join(groups: list[pathlib.Path]) -> None:
    for group in groups:
        (group / "cgroup.procs").write_text(str(os.getpid()))


def _mount(*words: str | os.PathLike) -> None:
    subprocess.run(["mount", *words], check=True)


def _boot(told: str, module: str, function: str) -> None:
    """Become systemd, as the first process of new namespaces, when all that it needs is there."""
    hierarchies = _hierarchies()
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
    for name in (*_TREES, "told", "layers"):
        pathlib.Path("/mnt", name).mkdir()
    for name, tree in (*_TREES.items(), ("told", told)):
        _mount("--bind", tree, f"/mnt/{name}")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    _SEEN.mkdir()
    _mount("--rbind", "/mnt", _SEEN)
    _TOLD.symlink_to(_SEEN / "told")
    for place in ("/tmp", "/var/tmp"):
        _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", place)
    for number, place in enumerate(_LAYERS):
        upper, work = (f"/mnt/layers/{number}{name}" for name in ("u", "w"))
        os.mkdir(upper)
        os.mkdir(work)
        _mount("-t", "overlay", "-o", f"lowerdir={place},upperdir={upper},workdir={work}",
               "overlay", place)
    _mount("-t", "proc", "proc", "/proc")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/sys/fs/cgroup")
    for mount, words in hierarchies.items():
        os.makedirs(mount, exist_ok=True)
        _mount(*words, mount)
    _install(module, function)
    os.execve(SYSTEMD, [SYSTEMD, "--system", "--unit=probe.target", "--log-target=console",
                        "--show-status=no"],
              {"container": "nbm", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


def _install(module: str, function: str) -> None:
    """Put this package's programs, units and accounts where its units look for them."""
    scripts = pathlib.Path(sysconfig.get_path("scripts"))
    for script in (*scripts.glob("nova-batch-*"), scripts / "privsep-helper"):
        target = pathlib.Path("/usr/bin", script.name)
        _, _, program = script.read_text().partition("\n")
        target.write_text(f"#!{_interpreter()}\n{program}")
        target.chmod(0o755)
    with open("/etc/passwd", "a") as users, open("/etc/group", "a") as groups:
        for name, number in ACCOUNTS.items():
            users.write(f"{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n")
            groups.write(f"{name}:x:{number}:\n")
    shutil.rmtree("/etc/systemd/system", ignore_errors=True)
    units = pathlib.Path("/run/systemd/system")
    units.mkdir(parents=True)
    for unit in UNITS.glob("*.service"):
        shutil.copy(unit, units)
        _say_where(unit.stem)
    (units / "probe.service").write_text(
        "[Unit]\nDefaultDependencies=no\nSuccessAction=exit\nFailureAction=exit\n"
        "[Service]\nType=oneshot\nExecStart="
        f"{python('-m', __spec__.name, 'probe', module, function)}\n")
    _say_where("probe")
    (units / "probe.target").write_text(
        "[Unit]\nDefaultDependencies=no\nWants=probe.service\n")


def _say_where(unit: str) -> None:
    """Have what a unit says written to a file of its own: there is no journal.

    And let its Python find the packages, and a library of its own where it has one.
    """
    directory = pathlib.Path(f"/run/systemd/system/{unit}.service.d")
    directory.mkdir(exist_ok=True)
    (directory / "told.conf").write_text(
        f"[Service]\nStandardOutput=append:{_TOLD}/{unit}\nStandardError=inherit\n"
        f"Environment=PYTHONPATH={_SEEN}/checkout:{_SEEN}/packages "
        f"LD_LIBRARY_PATH={_SEEN}/python/lib\n")


def _interpreter() -> pathlib.Path:
    program = pathlib.Path(sys.executable).resolve()
    return _SEEN / "python" / program.relative_to(sys.base_prefix)


if __name__ == "__main__":
    if sys.argv[1] == "boot":
        _boot(*sys.argv[2:])
    result = getattr(importlib.import_module(sys.argv[2]), sys.argv[3])()
    (_TOLD / "result").write_text(json.dumps(result))
