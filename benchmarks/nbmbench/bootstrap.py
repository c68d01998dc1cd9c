"""Gets from the machine's own Python into the lab's venv with everything a benchmark needs.

Called by benchmarks/run with the standard library only. Installs once (stamps), quietly.
"""
import ast
import os
import pathlib
import sys

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
BENCHMARKS = CHECKOUT / "benchmarks"
REQUIREMENTS = BENCHMARKS / "requirements.txt"
NO_INSTALL = "--no-install"


def main() -> None:
    """Install what the named benchmark needs and become its process in the lab's venv."""
    sys.path.insert(0, str(CHECKOUT / "lab"))
    from nbmlab import layout
    arguments = [word for word in sys.argv[1:] if word != NO_INSTALL]
    if NO_INSTALL not in sys.argv[1:]:
        _install(needs(arguments[0]) if arguments else "test")
    python = layout.BIN / "python"
    paths = [str(CHECKOUT), str(BENCHMARKS), str(CHECKOUT / "lab")]
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    os.execve(python, [str(python), "-m", "nbmbench.cli", *arguments],
              os.environ | {"PYTHONPATH": os.pathsep.join(paths),
                            "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"})


def needs(name: str) -> str:
    """Return what lab/install must install for a benchmark: its NEEDS, read without importing."""
    path = BENCHMARKS / "nbmbench/suite" / f"{name}.py"
    if path.exists():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign) and [getattr(target, "id", None)
                                                 for target in node.targets] == ["NEEDS"]:
                return ast.literal_eval(node.value)
    return "test"


def _install(what: str) -> None:
    from nbmlab import install, shell, stamps

    def requirements() -> None:
        install.pip("install", "-c", install.CONSTRAINTS, "-r", REQUIREMENTS)

    try:
        install.install(what)
        stamps.once("benchmarks", stamps.digest(REQUIREMENTS), requirements)
    except shell.LabError as error:
        sys.exit(f"benchmarks/run: {error}")
