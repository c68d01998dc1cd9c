"""Runs a function of a test in a network namespace of its own, where it may do as it likes.

A child process: `unshare --net` with the loopback interface up. What the function returns comes
back as JSON.
"""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from oslotest import base

LIMIT_SECONDS = 300
ROOT = pathlib.Path(__file__).resolve().parents[3]


def why_not() -> str | None:
    """Return why no namespace can be made here; None where it can."""
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if os.geteuid() != 0 or done.returncode:
        return "network namespaces need root"
    return None


class NamespaceTestCase(base.BaseTestCase):
    """Whose tests all need a namespace."""

    def setUp(self):
        super().setUp()
        reason = why_not()
        if reason:
            self.skipTest(reason)


def run(function, *words: str):
    """Call a function of a module's top level inside a new namespace and return its result."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complained:
        # no pipes: what the function leaves behind where it fails would hold their other ends
        child = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-m", __name__, function.__module__,
             function.__qualname__, *words],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=said, stderr=complained,
            start_new_session=True)
        try:
            status = child.wait(LIMIT_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        said.seek(0)
        complained.seek(0)
        if status:
            raise AssertionError(complained.read())
        return json.loads(said.read().splitlines()[-1])


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # the ports of migrations are the tests' own: no connection gets one of them for its near end
    pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").write_text("32768 49151")
    print(json.dumps(getattr(importlib.import_module(sys.argv[1]), sys.argv[2])(*sys.argv[3:])))
