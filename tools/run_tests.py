"""Runs the tests of one kind or of all three on a bare machine and counts what came of them.

Called by tools/test with the machine's own Python: standard library only. It installs through
lab/install before the first test, runs stestr in the lab's venv, and takes down only a lab that it
brought up itself.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
STATE = pathlib.Path(os.environ.get("NBM_LAB", "/var/lib/nbm-lab"))
VENV = STATE / "venv"


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of tests: what must be installed for it and what it may cost."""

    name: str
    needs: str              # argument of lab/install
    workers_per_core: int   # 0: one in all, since the tests share one cloud
    must_not_skip: bool     # in CI a skip is a failure: nothing would have been shown
    limit_seconds: int      # when something surely hangs, on a slow machine too


KINDS = (
    # some have real QEMUs of both versions, libvirt, systemd and zstd; what a machine refuses (KSM,
    # huge pages, frame numbers) is skipped and counted
    Kind("unit", needs="lab", workers_per_core=1, must_not_skip=False, limit_seconds=1200),
    # they wait for Nova's and our own pauses for nearly half of their time
    Kind("functional", needs="test", workers_per_core=2, must_not_skip=True, limit_seconds=1500),
    Kind("lab", needs="lab", workers_per_core=0, must_not_skip=True, limit_seconds=2400),
)


@dataclasses.dataclass(frozen=True)
class Totals:
    """How many tests passed, failed and were skipped."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.passed + other.passed, self.failed + other.failed,
                      self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


NOTHING_RAN = Totals(failed=1)


def read_totals(output: str) -> Totals:
    """Return the counts of stestr's closing summary; one failure where it never came to one."""
    summary = output.rpartition("\nTotals\n")[2] if "\nTotals\n" in output else ""
    counts = {name: int(number)
              for name, number in re.findall(r"^ - ([A-Z][A-Za-z ]+): (\d+)$", summary, re.M)}
    if not sum(counts.values()):
        return NOTHING_RAN
    return Totals(passed=counts.get("Passed", 0) + counts.get("Expected Fail", 0),
                  failed=counts.get("Failed", 0) + counts.get("Unexpected Success", 0),
                  skipped=counts.get("Skipped", 0))


def judge(kind: Kind, totals: Totals, exit_status: int, in_ci: bool) -> tuple[Totals, list[str]]:
    """Return the totals that count and what is wrong beside the failed tests themselves."""
    wrong = []
    if totals.passed + totals.failed == 0:
        wrong.append(f"no {kind.name} test ran")
    if exit_status != 0 and not totals.failed:
        wrong.append(f"stestr ended with status {exit_status} though no {kind.name} test failed")
    if in_ci and kind.must_not_skip and totals.skipped:
        wrong.append(f"{totals.skipped} {kind.name} tests were skipped, which CI does not accept")
    return dataclasses.replace(totals, failed=totals.failed + len(wrong)), wrong


def notable(output: str) -> str:
    """Return of stestr's output what a reader needs: notes, skips, failures in detail, totals."""
    skips = re.findall(r"^\{\d+\} (\S+).*? \.\.\. (SKIPPED.*)$", output, re.M)
    lines = [*re.findall(r"^NOTE: .*$", output, re.M), *(f"{test} {why}" for test, why in skips)]
    detail = re.search(r"^=+\nFailed \d+ tests? - output below:", output, re.M)
    summary = output.find("\n======\nTotals\n")
    if summary < 0:
        return output
    start = detail.start() if detail else summary
    end = output.find("\n==============\nWorker Balance", summary)
    return "\n".join([*lines, output[start:end if end > 0 else None].strip("\n")])


def run_bounded(command: list[str], environment: dict, limit_seconds: int) -> tuple[int, str]:
    """Run a command in a process group of its own; end the whole group when its time is over."""
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, errors="replace",
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          start_new_session=True) as process:
        try:
            output, _ = process.communicate(timeout=limit_seconds)
            return process.returncode, output
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                output, _ = process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
            return 1, f"{output}\nstopped: it took longer than {limit_seconds} seconds\n"


def workers(kind: Kind) -> list[str]:
    """Return the words that tell stestr how many tests run side by side."""
    number = kind.workers_per_core * len(os.sched_getaffinity(0))
    return ["--concurrency", str(number)] if number else ["--serial"]


def run_kind(kind: Kind, in_ci: bool) -> Totals:
    """Run the tests of one kind, print what is notable, return what counts."""
    environment = os.environ | {
        "OS_NOVA_DISABLE_EVENTLET_PATCHING": "True", "NBM_LAB": str(STATE),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    command = [str(VENV / "bin" / "stestr"), "--test-path", f"./tests/{kind.name}", "run",
               "--suppress-attachments", *workers(kind)]
    began = time.monotonic()
    status, output = run_bounded(command, environment, kind.limit_seconds)
    totals, wrong = judge(kind, read_totals(output), status, in_ci)
    print(notable(output), flush=True)
    for text in wrong:
        print(f"{kind.name}: {text}")
    print(f"{kind.name}: {totals} in {time.monotonic() - began:.0f} s\n", flush=True)
    return totals


class Lab:
    """The two-host cloud for the time of the lab tests: left up, as it is, if it was up before."""

    def __enter__(self) -> "Lab":
        self.ours = subprocess.run([ROOT / "lab" / "status"], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, check=False).returncode != 0
        # also where it is up: this refuses the lab of another checkout. What an earlier one was
        # told (no relays, a slow link) is not for tests
        subprocess.run([ROOT / "lab" / "up", *(["--defaults"] if self.ours else [])], check=True)
        return self

    def __exit__(self, *exc_info) -> None:
        if self.ours:
            subprocess.run([ROOT / "lab" / "down"], check=True)


def install(kinds: list[Kind]) -> None:
    """Install what any of these kinds needs: a test that finds its program missing is skipped."""
    everything = any(kind.needs == "lab" for kind in kinds)
    subprocess.run([ROOT / "lab" / "install", "lab" if everything else "test"], check=True)


def main(argv: list[str]) -> int:
    """Install, run, print the closing line; return the exit status."""
    parser = argparse.ArgumentParser(prog="tools/test", description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=[kind.name for kind in KINDS],
                        help="run only this kind; all three by default")
    wanted = parser.parse_args(argv).kind
    kinds = [kind for kind in KINDS if wanted in (None, kind.name)]
    in_ci = os.environ.get("CI", "").lower() in ("1", "true", "yes")
    totals = Totals()
    try:
        install(kinds)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"lab/install: {error}")
        kinds, totals = [], NOTHING_RAN
    for kind in kinds:
        try:
            if kind.name == "lab":
                with Lab():
                    totals += run_kind(kind, in_ci)
            else:
                totals += run_kind(kind, in_ci)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{kind.name}: {error}")
            totals += NOTHING_RAN
    print(totals, flush=True)
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
