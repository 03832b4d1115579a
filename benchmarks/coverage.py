"""Start `interval_coverage`, whose options and result it has: how often the interval of a verdict covers.

OMP_NUM_THREADS=1 python benchmarks/coverage.py --output-dir DIR [--jobs N] [--quick]
"""

if __name__ not in ("__main__", "__mp_main__"):  # numba asks for the package of this name, and finds this file first
    raise ImportError("benchmarks/coverage.py is a program")

from interval_coverage import main

from backbones.core.entry import run_tool

if __name__ == "__main__":
    run_tool(main)
