"""Runs commands and waits for conditions.

Used by every module of the lab; keeps nothing, decides nothing.
"""
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable

from nbmlab import layout

_BEGIN = time.monotonic()


class LabError(Exception):
    """Something the operator has to know; the message says what to do next."""


def say(text: str) -> None:
    """Print one line of progress with the seconds since the start."""
    print(f"{time.monotonic() - _BEGIN:6.1f}s {text}", file=sys.stderr, flush=True)


def environment(**extra: str) -> dict[str, str]:
    """Return the environment of a command of the lab: the venv first on PATH."""
    return {"PATH": f"{layout.BIN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8", "HOME": "/root",
            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true", **extra}


def run(*command: object, log: pathlib.Path | None = None, check: bool = True,
        cwd: pathlib.Path | None = None, stdin: str | None = None,
        env: dict[str, str] | None = None) -> str:
    """Run a command, return what it printed; its error text is in the LabError if it fails.

    With `log`, the output is appended there and nothing is returned.
    """
    words = [str(word) for word in command]
    output = subprocess.run(words, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, errors="replace", cwd=cwd,
                            env=env or {**os.environ, **environment()})
    if log:
        with log.open("a") as file:
            file.write(f"$ {' '.join(words)}\n{output.stdout}")
    if check and output.returncode:
        tail = "\n".join(output.stdout.strip().splitlines()[-15:])
        where = f" (whole output: {log})" if log else ""
        raise LabError(f"`{' '.join(words)}` ended with {output.returncode}{where}:\n{tail}")
    return "" if log else output.stdout


def succeeds(*command: object) -> bool:
    """Tell whether a command exits with 0; its output is dropped."""
    return subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                          env={**os.environ, **environment()}).returncode == 0


def wait_for(what: str, seconds: float, condition: Callable[[], object],
             every_seconds: float = 0.2) -> None:
    """Return when the condition holds; LabError after the given seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabError(f"waited {seconds:.0f} s in vain for {what}; look into {layout.LOG}")
        time.sleep(every_seconds)


def listens(address: str, port: int) -> bool:
    """Tell whether somebody accepts TCP connections there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


def listens_at(path: pathlib.Path) -> bool:
    """Tell whether somebody accepts connections at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
