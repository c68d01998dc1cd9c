"""What the executables in lab/ do with their arguments.

Called by lab/up, lab/down and so on, each a few lines; the work is in the other modules.
"""
import argparse
import dataclasses
import sys
from collections.abc import Callable

from nbmlab import (
    cgroups,
    daemon,
    guests,
    host,
    install,
    layout,
    network,
    owner,
    services,
    shell,
    teardown,
)


def main(command: Callable[[list[str]], int | None]) -> None:
    """Run a command; an error of the lab is one clear text and exit status 1."""
    try:
        sys.exit(command(sys.argv[1:]))
    except shell.LabError as error:
        sys.exit(f"lab: {error}")


def run_install(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lab/install", description="Install what tests or lab need, once and quietly.")
    parser.add_argument("what", nargs="?", choices=("test", "lab"), default="lab")
    install.install(parser.parse_args(arguments).what)


def run_up(arguments: list[str]) -> None:
    options = wanted_options(arguments)
    owner.claim()
    install.install("lab")
    services.up(options)
    shell.say(f"up: {options.hosts} hosts, link {options.link_mib_per_second or 'not'} capped"
              f"{' (MiB/s)' if options.link_mib_per_second else ''}"
              f"{'' if options.relays else ', no relays'}; . {layout.OPENRC}")


def wanted_options(arguments: list[str],
                   remembered: Callable[[], layout.Options] = layout.load_options
                   ) -> layout.Options:
    """Return what `lab/up` is asked for: what is given, and the rest as at the last `up`.

    With ``--defaults`` the rest is as standard, and what was remembered is not even read.
    """
    parser = argparse.ArgumentParser(
        prog="lab/up", description="Bring the two-host cloud up; safe to repeat. What is not "
        "given stays as it was at the last `up`.", argument_default=argparse.SUPPRESS)
    parser.add_argument("--defaults", action="store_true",
                        help="what is not given is as standard, whatever the last `up` had")
    parser.add_argument("--hosts", type=int, choices=(2, 3))
    parser.add_argument("--link", type=float, metavar="MIB_PER_SECOND",
                        dest="link_mib_per_second", help="cap of the link between hosts, 0: none")
    parser.add_argument("--parallel", type=int, dest="max_live_migrations",
                        help="Nova's max_concurrent_live_migrations")
    parser.add_argument("--relays", action=argparse.BooleanOptionalAction,
                        help="run a nova-batch-relay on every host")
    parser.add_argument("--ipv6", action=argparse.BooleanOptionalAction,
                        help="have migrations go over IPv6")
    given = vars(parser.parse_args(arguments))
    return dataclasses.replace(
        layout.Options() if given.pop("defaults", False) else remembered(), **given)


def run_down(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lab/down", description="Stop the cloud; what it knows stays in the state "
        "directory.")
    parser.add_argument("--whosever", action="store_true",
                        help="whatever checkout brought it up, or nothing if none is up: for a "
                        "machine that has no other user, as CI's")
    if parser.parse_args(arguments).whosever:
        owner.end_any()
        return
    owner.require()
    teardown.down(layout.STATE)
    shell.say("down")


def run_status(arguments: list[str]) -> int:
    argparse.ArgumentParser(
        prog="lab/status", description="One line a service; exit status 1 if one is dead or "
        "none runs.").parse_args(arguments)
    names, total, dead = daemon.names(), 0, 0
    for name in names:
        running = daemon.record(name)
        if running is None:
            dead += 1
            print(f"{name:24} DEAD (lab/up starts it again; its log: {layout.LOG}/{name}.log)")
            continue
        resident_bytes = daemon.resident_bytes(name)
        total += resident_bytes
        print(f"{name:24} pid {running.pid:<8} {resident_bytes >> 20:5} MiB")
    if not names:
        print("the lab is down")
        return 1
    options = layout.load_options()
    for each in options.host_list:
        if daemon.record(f"host-{each.name}"):
            rate = network.capped_bytes_per_second(each)
            print(f"{'link of ' + each.name:24} "
                  + (f"{rate / (1 << 20):.1f} MiB/s" if rate else "not capped"))
    print(f"{'group of the storage':24} {cgroups.told()}")
    print(f"{'sum, guests apart':24} {'':12} {total >> 20:5} MiB")
    return 1 if dead else 0


def run_openrc(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lab/openrc", description="Print the exports for a user: . <(lab/openrc)")
    parser.add_argument("user", nargs="?", choices=("admin", "demo"), default="admin")
    user = parser.parse_args(arguments).user
    path = layout.OPENRC if user == "admin" else layout.STATE / f"openrc-{user}"
    if not path.exists():
        raise shell.LabError("there is no cloud yet: lab/up makes one")
    print(path.read_text(), end="")


def run_link(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lab/link", description="Cap the link between hosts, or measure it.")
    parser.add_argument("mib_per_second", type=float, nargs="?", help="0: no cap")
    parser.add_argument("--measure", action="store_true",
                        help="send for some seconds and tell what arrived")
    options, wanted = layout.load_options(), parser.parse_args(arguments)
    if wanted.mib_per_second is not None:
        owner.require()
        options = dataclasses.replace(options, link_mib_per_second=wanted.mib_per_second)
        network.cap(options.host_list, options.link_mib_per_second)
        options.save()
    if wanted.measure:
        source, destination = options.host_list[:2]
        rate = network.measure(source, destination)
        print(f"{source.name} -> {destination.name}: {rate / (1 << 20):.2f} MiB/s measured, "
              f"{options.link_mib_per_second or 'no'} cap")


def run_host(arguments: list[str]) -> None:
    if len(arguments) < 2 or arguments[0].startswith("-"):
        raise shell.LabError("usage: lab/host HOST COMMAND [ARGUMENT...]")
    host.enter(layout.host_named(arguments[0]), arguments[1:])


def run_restart(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="lab/restart", description="Restart services by the names that lab/status shows.")
    parser.add_argument("name", nargs="+")
    owner.require()
    for name in parser.parse_args(arguments).name:
        if name not in daemon.names():
            raise shell.LabError(f"no service {name}; lab/status lists them")
        daemon.stop(name)
    services.up(layout.load_options())


def run_guests(arguments: list[str]) -> int:
    return guests.main(arguments)
