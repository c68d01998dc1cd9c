"""What every benchmark has in common: goals as data, verdicts as pure functions, the JSON's shape.

A module of suite/ defines
  NEEDS     "test" or "lab": what lab/install must install (a plain assignment of a string);
  GOALS     dict of name in `measured` -> Goal;
  run(settings: Settings) -> list of cases: JSON-able dicts of raw facts. A case of a held-out
            configuration carries "held_out": True;
  measured(cases) -> dict: a pure function, the figures by the issue's names; a figure that the
            cases do not give is left out. With noise, `intervals(cases)` -> dict of name ->
            (low, high), the 95 % interval of a figure;
  missing(cases) -> list of words: a pure function, what the goals need and the cases do not hold.
            May be left out where a figure that lacks its cases is not measured at all.
A result with something missing is `incomplete` and never `met`. Nothing here runs anything.
"""
import dataclasses
import math
import pathlib
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

MET, MISSED, INCONCLUSIVE, NOT_MEASURED = "met", "missed", "inconclusive", "not measured"


@dataclasses.dataclass(frozen=True)
class Goal:
    """A bound on a figure: `comparison` is "<=" or ">="."""

    comparison: str
    value: float

    def __post_init__(self):
        if self.comparison not in ("<=", ">="):
            raise ValueError(f"a goal compares by <= or >=, not by {self.comparison!r}")

    def holds(self, figure: float) -> bool:
        """Tell whether a figure keeps the bound; NaN never does."""
        return figure <= self.value if self.comparison == "<=" else figure >= self.value

    def worse_end(self, interval: Sequence[float]) -> float:
        """Return the end of an interval that is further from the goal."""
        return max(interval) if self.comparison == "<=" else min(interval)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run was asked for."""

    quick: bool = False
    commit: str = ""                   # the hash that seeds the held-out configurations
    scratch: pathlib.Path = pathlib.Path("/tmp")    # a directory of this run's own
    options: tuple[str, ...] = ()      # words behind the benchmark's name, the benchmark's own
    #: Called by long benchmarks with the cases so far: told as incomplete if the run is ended.
    keep: Callable[[Sequence[dict]], None] = lambda cases: None

    def held_out(self, purpose: str = "") -> random.Random:
        """Return the generator that draws held-out configurations: the same for a commit."""
        return random.Random(f"{self.commit} {purpose}")


def judge(goal: Goal, figure: float | None, interval: Sequence[float] | None = None) -> str:
    """Return the verdict on a figure; with noise, only the interval's worse end may meet it."""
    if figure is None or math.isnan(figure):
        return NOT_MEASURED
    if not goal.holds(figure):
        return MISSED
    if interval is not None and not goal.holds(goal.worse_end(interval)):
        return INCONCLUSIVE
    return MET


def verdicts(goals: Mapping[str, Goal], measured: Mapping[str, float | None],
             intervals: Mapping[str, Sequence[float]] | None = None) -> dict[str, str]:
    """Return the verdict on every goal."""
    return {name: judge(goal, measured.get(name), (intervals or {}).get(name))
            for name, goal in goals.items()}


def met(judged: Mapping[str, str]) -> bool:
    """Tell whether every goal was met for certain."""
    return all(verdict == MET for verdict in judged.values())


def result(name: str, goals: Mapping[str, Goal], cases: Sequence[Mapping],
           measured: Callable[[Sequence[Mapping]], Mapping],
           intervals: Callable[[Sequence[Mapping]], Mapping] | None = None,
           missing: Callable[[Sequence[Mapping]], Sequence[str]] | None = None) -> dict:
    """Return the JSON of a benchmark from its cases, without what only the run knows.

    Goals are judged on the cases that are not held out; the held-out ones have figures and
    verdicts of their own under `held_out`. `missing` tells what the goals need beside the cases.
    """
    seen = [case for case in cases if not case.get("held_out")]
    unseen = [case for case in cases if case.get("held_out")]
    figures = _figures(goals, seen, measured, intervals)
    lacking = list(missing(seen)) if missing else []
    told = {"name": name, "measured": figures["measured"],
            "goals": {key: dataclasses.asdict(goal) for key, goal in goals.items()},
            "met": met(figures["verdicts"]) and not lacking, "incomplete": bool(lacking),
            "missing": lacking, "verdicts": figures["verdicts"],
            "inconclusive": INCONCLUSIVE in figures["verdicts"].values(),
            "intervals": figures["intervals"]}
    if unseen:
        told["held_out"] = _figures(goals, unseen, measured, intervals)
    return told | {"cases": list(cases)}


def cut_short(told: Mapping, reason: str) -> dict:
    """Return a result as one of a run that did not come to its end: incomplete, never met."""
    return {**told, "met": False, "incomplete": True, "missing": [*told["missing"], reason]}


def _figures(goals, cases, measured, intervals) -> dict:
    figures = dict(measured(cases)) if cases else {}
    spread = dict(intervals(cases)) if cases and intervals else {}
    return {"measured": figures, "verdicts": verdicts(goals, figures, spread),
            "intervals": {key: list(ends) for key, ends in spread.items()}}


def bootstrap(values: Sequence[float], statistic: Callable[[np.ndarray], float] = np.median,
              rounds: int = 2000, seed: int = 1) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of a statistic of independent values."""
    array = np.asarray(values, float)
    if array.size < 2:
        return (-math.inf, math.inf)
    generator = np.random.default_rng(seed)
    draws = [statistic(array[generator.integers(0, array.size, array.size)])
             for _ in range(rounds)]
    low, high = np.percentile(draws, (2.5, 97.5))
    return float(low), float(high)


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return a percentile (share 0..1) of values, None without any."""
    return float(np.percentile(np.asarray(values, float), share * 100)) if len(values) else None
