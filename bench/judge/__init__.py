"""A small model that judges low bits: the sample in rotated axes, whose weights lie on no grid of few bits.

`python -m bench.judge` makes it. `rotation` has the mathematics, `cell` reads and writes the models.
"""

from typing import Final

JUDGE: Final = "smollm2-rotated"
"""Name of the judge in a home."""
