"""Runs steps that depend on one another, each as soon as what it needs is done.

Used by services.up. The first failure stops what has not begun and is raised.
"""
import concurrent.futures
import dataclasses
import threading
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Step:
    """A named action and the names of the steps it needs."""

    name: str
    action: Callable[[], object]
    needs: tuple[str, ...] = ()


def run_all(steps: Sequence[Step]) -> None:
    """Run all steps, side by side where their needs allow it."""
    done = {step.name: threading.Event() for step in steps}
    failed = threading.Event()

    def perform(step: Step) -> None:
        for need in step.needs:
            done[need].wait()
        try:
            if not failed.is_set():
                step.action()
        except BaseException:
            failed.set()
            raise
        finally:
            done[step.name].set()

    with concurrent.futures.ThreadPoolExecutor(max_workers=max(len(steps), 1)) as pool:
        waiting = [pool.submit(perform, step) for step in steps]
        for future in concurrent.futures.as_completed(waiting):
            future.result()
