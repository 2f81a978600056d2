"""A small model that judges low bits: the sample in fewer dimensions, distilled, stored in 16 bits.

`python -m bench.judge` makes it. `reshape` has the mathematics; `reshape_cell` reads and writes the models.
"""

from typing import Final

JUDGE: Final = "smollm2-512"
"""Name of the judge in a home."""
