"""Makes the benchmarks importable for the tests of this folder."""
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[3]
for directory in ("lab", "benchmarks"):
    if str(ROOT / directory) not in sys.path:
        sys.path.insert(0, str(ROOT / directory))
