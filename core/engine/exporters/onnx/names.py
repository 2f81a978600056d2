"""Names of a graph's inputs and outputs that are keys and values, as programs for ONNX Runtime expect them."""

import re
from typing import Final

from secateur_wire.graphs import PAST, PRESENT

_TRACED: Final = re.compile(r"(input|output)\.cache\.layers\.([0-9]+)\.(key|value)s")


def decoder_name(name: str) -> str:
    """Return the name of an input or output; `name` is the one in the trace."""
    traced = _TRACED.fullmatch(name)
    if traced is None:
        return name
    return f"{PAST if traced[1] == 'input' else PRESENT}{traced[2]}.{traced[3]}"
