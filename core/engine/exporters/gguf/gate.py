"""Gate of GGUF files: the bound of each type, and the remedy where a file misses it."""

from typing import Final

from core.engine.exporters.agreement import Agreement, require_bound
from core.engine.exporters.gguf.file_types import ALL_TYPES, FIRST, NEAR_EXACT

_WITHOUT: Final = (
    "leave {kind} out and keep F16, or prune less, as a model that has lost most of what it knew is changed by rounding"
)
_INSTEAD: Final = "leave gguf out of output.exports, or prune less, where the artifact has lost most of what it knew"


def require_agreement(agreement: Agreement, kind: str, file: str, *, has_codes: bool = False) -> None:
    """Require that a file keeps the bound of its type; raises ExportMismatch with both figures and a remedy.

    With `has_codes` the file has the codes of the artifact. llama.cpp rounds the inputs that they multiply to 8 bits,
    as in files of Q8_0, whose bound is then kept.
    """
    instead = _INSTEAD if kind == FIRST else _WITHOUT.format(kind=kind)
    most_kl = ALL_TYPES[NEAR_EXACT if has_codes else kind].most_kl
    require_bound(agreement, most_kl, file, "llama.cpp", instead)
