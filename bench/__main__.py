"""Both benchmarks, one after the other: `python -m bench [--fresh] [--write docs/benchmarks.md]`."""

import sys

from bench import against_llmcompressor, depth_memory

sys.exit(against_llmcompressor.main() or depth_memory.main())
