"""lab/demo: a bare machine becomes a cloud, and one command empties one of its hypervisors.

Tells the story in order; the steps are in drain, the judging in drain_report.
"""
import argparse
import dataclasses
import json
import pathlib

from nbmlab import check, drain, drain_report, install, layout, owner, services, shell


def main(arguments: list[str]) -> int:
    """Run the demo; exit status 0 only if everything is as a successful drain leaves it."""
    parser = argparse.ArgumentParser(
        prog="lab/demo", description="Bring the cloud up, boot eight guests on one host, empty it "
        "with one command and check every guest. All other guests of the lab are deleted first.")
    parser.add_argument("--report", type=pathlib.Path, metavar="FILE",
                        help="write the report as JSON, too")
    parser.add_argument("--relays", action=argparse.BooleanOptionalAction, default=True,
                        help="migrate through relays, as standard")
    given = parser.parse_args(arguments)

    owner.claim()
    install.install("lab")
    shell.say("bringing the cloud up")
    services.up(options(given.relays))
    drain.initial_state()
    shell.say(f"booting {len(drain.GUESTS)} guests on {drain.SOURCE}: "
              + ", ".join(member.name for member in drain.GUESTS))
    before = drain.populate()
    shell.say(f"all guests run under load; the link is capped at {drain.LINK_MIB_PER_SECOND} MiB/s")

    _show_plan()
    ticks = check.snapshot([guest.id for guest in before])
    status = drain.show("server", "batch-migrate", "--host", drain.SOURCE, "--wait")
    batch = drain.newest_batch()
    shell.say("checking the guests from outside: same boot, ticks go on, memory whole")
    told = drain_report.report(batch, before, check.verify(ticks))
    print("\n" + "\n".join(drain_report.lines(told)), flush=True)
    if given.report:
        given.report.write_text(json.dumps(told, indent=1) + "\n")

    wrong = drain_report.problems(told, before)
    if status:
        wrong.insert(0, f"openstack server batch-migrate ended with {status}")
    for text in wrong:
        print(f"NOT SO: {text}")
    shell.say("the demo failed" if wrong else f"{drain.SOURCE} is empty but for what had to stay")
    return 1 if wrong else 0


def options(relays: bool) -> layout.Options:
    """Return the lab of the demo: the standard one but for its link, whatever was up before."""
    return dataclasses.replace(layout.Options(), relays=relays,
                               link_mib_per_second=drain.LINK_MIB_PER_SECOND)


def _show_plan() -> None:
    """Show the plan alone, as an operator would before the work, and drop it again."""
    if drain.show("server", "batch-migrate", "--host", drain.SOURCE, "--plan-only"):
        raise shell.LabError("there is no plan; the reason is above, and in "
                             f"{layout.LOG}/batch-conductor.log")
    if drain.show("server", "batch", "migration", "delete", drain.newest_batch()["id"]):
        raise shell.LabError("the plan could not be dropped; the reason is above")
