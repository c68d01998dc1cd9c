"""The command line: finds a benchmark by its name, runs it, writes its JSON.

Called by benchmarks/run inside the lab's venv. Knows no benchmark.
"""
import argparse
import importlib
import json
import os
import pathlib
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types

from nbmbench import contract, machine, suite

#: Among what is missing of a run that was ended before its time.
CUT_SHORT = "the rest of a run that was ended"


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return sorted(module.name for module in pkgutil.iter_modules(suite.__path__))


def load(name: str) -> types.ModuleType:
    """Import the module of a benchmark."""
    return importlib.import_module(f"nbmbench.suite.{name}")


def recompute(name: str, cases: list) -> dict:
    """Return the result that a benchmark's cases give: pure, the tests call it too."""
    module = load(name)
    return contract.result(name, module.GOALS, cases, module.measured,
                           getattr(module, "intervals", None), getattr(module, "missing", None))


def main(arguments: list[str]) -> int:
    """Run one benchmark or list them; the exit status tells only whether it ran."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/run", description="Run a benchmark and write what it measured as JSON.")
    parser.add_argument("name", nargs="?", choices=names(), metavar="NAME")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE",
                        help="where the result goes; standard output without it")
    parser.add_argument("--quick", action="store_true", help="a part of it, in under a minute")
    parser.add_argument("--list", action="store_true", help="tell the names of the benchmarks")
    parser.add_argument("--no-install", action="store_true",
                        help="use the virtual environment as it is")
    parser.add_argument("--only", action="append", default=[], metavar="WORD",
                        help="what part to run, in the benchmark's own words; may be repeated")
    parser.add_argument("--merge", action="append", default=[], type=pathlib.Path,
                        metavar="FILE", help="run nothing: join the cases of results of parts")
    wanted = parser.parse_args(arguments)
    if wanted.list or not wanted.name:
        for name in names():
            print(f"{name:20} {(load(name).__doc__ or '').splitlines()[0]}")
        return 0
    return _run(wanted)


def _run(wanted: argparse.Namespace) -> int:
    # an end by a signal is an exception: whatever runs is cleaned up by its own context
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    told = _merged(wanted) if wanted.merge else _measured(wanted)
    text = json.dumps(told, indent=1) + "\n"
    if wanted.json:
        partial = wanted.json.with_name(f"{wanted.json.name}.{os.getpid()}.partial")
        partial.write_text(text)
        partial.replace(wanted.json)
        _summary(told)
    else:
        print(text, end="")
    return 0


def _measured(wanted: argparse.Namespace) -> dict:
    module = load(wanted.name)
    began, described = time.time(), machine.describe()
    scratch = pathlib.Path(tempfile.mkdtemp(prefix=f"nbmbench-{wanted.name}-"))
    kept: list[dict] = []
    try:
        settings = contract.Settings(wanted.quick, described["commit"], scratch,
                                     tuple(wanted.only), lambda cases: kept.extend(
                                         cases[len(kept):]))
        told = recompute(wanted.name, module.run(settings))
    except (Exception, SystemExit) as error:
        if not kept:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        told = contract.cut_short(recompute(wanted.name, kept), CUT_SHORT)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return told | {"machine": described, "quick": wanted.quick,
                   "only": [_placeless(word) for word in wanted.only],
                   "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
                   "seconds": round(time.time() - began, 1)}


def _placeless(word: str) -> str:
    """Return a word of --only without the directories of a path, which say nothing elsewhere."""
    name, equals, value = word.partition("=")
    return name + equals + pathlib.PurePath(value).name if value else word


def _merged(wanted: argparse.Namespace) -> dict:
    """Join results of parts of one benchmark, merged ones too; how each part ran is kept."""
    parts = [json.loads(path.read_text()) for path in wanted.merge]
    if others := [part["name"] for part in parts if part["name"] != wanted.name]:
        sys.exit(f"benchmarks/run: {others[0]} is not {wanted.name}; merge results of one "
                 "benchmark")
    told = recompute(wanted.name, [case for part in parts for case in part["cases"]])
    # what a part lacks another may hold: a benchmark that can tell has told so
    if not hasattr(load(wanted.name), "missing") and any(part["incomplete"] for part in parts):
        told = contract.cut_short(told, CUT_SHORT)
    return told | {"machine": parts[0]["machine"], "quick": any(part["quick"] for part in parts),
                   "parts": [{key: each[key] for key in ("only", "began", "seconds", "machine")}
                             for part in parts for each in part.get("parts", [part])],
                   "seconds": sum(part["seconds"] for part in parts)}


def _summary(told: dict) -> None:
    for name, value in told["measured"].items():
        goal = told["goals"].get(name)
        said = f"goal {goal['comparison']} {goal['value']:g}: {told['verdicts'][name]}" \
            if goal else ""
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        print(f"{name:28} {shown:>14}  {said}")
    print(f"{told['name']}: {'met' if told['met'] else 'not met'}"
          f"{', inconclusive' if told['inconclusive'] else ''}"
          f"{', incomplete' if told['incomplete'] else ''}, {len(told['cases'])} cases in "
          f"{told['seconds']:.0f} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
