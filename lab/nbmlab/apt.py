"""Debian packages: installed, or downloaded and unpacked beside, also from the backports suite.

Called by install and images. No address of a mirror is in here: the machine's own apt
configuration names it.
"""
import pathlib
import subprocess

from nbmlab import layout, shell, stamps


def install(packages: tuple[str, ...], name: str) -> None:
    """Install Debian packages without starting the services that some of them bring."""
    def missing() -> list[str]:
        states = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        present = {line.split()[0] for line in states.splitlines() if line.endswith(" installed")}
        return [package for package in packages if package not in present]

    def action() -> None:
        if not missing():
            return
        shell.say(f"apt: {len(missing())} packages")
        policy = pathlib.Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            _run("update")
            _run("-qy", "--no-install-recommends", "install", *missing())
        finally:
            if ours:
                policy.unlink()

    stamps.once(f"apt-{name}", stamps.digest(*packages), action)


def backports_update() -> None:
    """Make apt know the backports suite, in lists of the lab's own.

    The mirror is the machine's own: the one its apt configuration names for Debian's main archive.
    """
    directory = layout.CACHE / "apt"
    (directory / "lists/partial").mkdir(parents=True, exist_ok=True)
    sources = directory / "backports.list"
    sources.write_text(f"deb {mirror()} {codename()}-backports main\n")
    _run(*backports_options(), "update")


def download(packages: tuple[str, ...], directory: pathlib.Path,
             options: list[str] | None = None) -> list[pathlib.Path]:
    """Download packages without installing them and return their files, in the same order."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("*.deb"):
        if old.name.split("_")[0] in packages:
            old.unlink()
    _run(*(options or []), "download", *packages, cwd=directory)
    return [next(directory.glob(f"{package}_*.deb")) for package in packages]


def dependency(package: str, prefix: str, options: list[str] | None = None) -> str:
    """Return the package with that prefix that a metapackage depends on."""
    shown = shell.run("apt-cache", *(options or []), "show", "--no-all-versions", package)
    for line in shown.splitlines():
        if line.startswith("Depends:"):
            for word in line.replace(",", " ").split():
                if word.startswith(prefix):
                    return word
    raise shell.LabError(f"apt knows no {package} with a {prefix}*: run apt-get update")


def backports_options() -> list[str]:
    """Return the apt options that look at the backports suite only."""
    directory = layout.CACHE / "apt"
    return ["-o", f"Dir::Etc::sourcelist={directory / 'backports.list'}",
            "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::Lists={directory / 'lists'}"]


def _run(*words: object, cwd: pathlib.Path | None = None) -> None:
    shell.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q",
              "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root", *words,
              log=layout.LOG / "apt.log", cwd=cwd)


def mirror() -> str:
    """Return the address of Debian's main archive as the machine's apt knows it."""
    listed = shell.run("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    for uri in sorted(set(listed)):
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise shell.LabError("apt knows no Debian archive: run apt-get update and look at "
                         "/etc/apt/sources.list*")


def codename() -> str:
    """Return the name of the Debian release that runs here."""
    for line in pathlib.Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.split("=")[1].strip('"')
    raise shell.LabError("/etc/os-release names no VERSION_CODENAME; the lab is made for Debian 12")
