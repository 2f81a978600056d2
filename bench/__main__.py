"""Both benchmarks, one after the other: `python -m bench [--fresh] [--write docs/benchmarks.md]`."""

import argparse
import sys

from bench import against_llmcompressor, depth_memory

parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
parser.add_argument("--fresh", action="store_true", help="measure again what was measured before, newest peer")
parser.add_argument("--write", metavar="PAGE", help="replace the page's sections too")
parser.parse_args()
sys.exit(against_llmcompressor.main() or depth_memory.main())
