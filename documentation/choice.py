"""Table of `docs/choose.md`: what a reader has and wants, what to take, and what that was measured to cost and give."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from core.measurements.measurement import Measurement
from core.measurements.reader import Table, measurements
from documentation.markdown import table
from documentation.methods import minutes


class Wish(NamedTuple):
    """What a reader has and wants, the methods to take, and the measured row that shows what comes of the first."""

    have: str
    want: str
    methods: tuple[str, ...]
    how: str = ""
    table: Table | None = None
    pattern: str = "structured"
    layout: str = "uniform"
    sparsity: float = 0
    trained: bool = False

    @property
    def take(self) -> str:
        """Return links to the methods' pages, and how to use them."""
        names = " or ".join(f"[`{each}`](methods/{each}.md)" for each in self.methods)
        return ", ".join(filter(None, (names, self.how)))


_TEXT: Final = "a language model"
_IMAGES: Final = "an image classifier"
WISHES: Final[Sequence[Wish]] = (
    Wish(_TEXT, "a smaller file, nothing else changed", ("none",), "in bfloat16, or as [GGUF](gguf.md)"),
    Wish(_TEXT, "smaller and faster, everywhere", ("frontier",), "structured", "structured", sparsity=0.2),
    Wish(
        _TEXT,
        "smaller and faster, with training",
        ("frontier",),
        "structured, and a [recovery](recovery.md)",
        "structured",
        layout="per_layer",
        sparsity=0.158,
        trained=True,
    ),
    Wish(_TEXT, "fewer layers", ("depth",), "", "structured", sparsity=0.158),
    Wish(_TEXT, "without the tokens that my text never uses", ("vocabulary",), "", "vocabulary", sparsity=0.08),
    Wish(_TEXT, "zeros, for an engine that skips them", ("frontier",), "", "zeros", "unstructured", sparsity=0.5),
    Wish(_TEXT, "2:4 zeros, for NVIDIA GPUs", ("frontier",), "with pattern `2:4`", "zeros", "2:4", sparsity=0.5),
    Wish(_TEXT, "zeros, in a minute", ("wanda",), "", "zeros", "unstructured", sparsity=0.5),
    Wish("a mixture of experts", "fewer experts", ("expert-drop",), "[figures](experts.md)"),
    Wish("a pruned model", "its quality back", ("recover",), "[figures](recovery.md)"),
    Wish(_IMAGES, "smaller and faster", ("filter-taylor", "filter-l1"), "the second is quicker: [figures](claims.md)"),
    Wish(_IMAGES, "as many zeros as it can take", ("iterative-magnitude",), "[figures](claims.md)"),
    Wish("any model", "to know first what each layer can lose", ("sensitivity",)),
)


def measured_table() -> str:
    """Return the table; raises LookupError where a row it names is not among the measured ones."""
    header = ["you have", "you want", "take", "it takes", "you get"]
    return table(header, [[wish.have, wish.want, wish.take, *_figures(wish)] for wish in WISHES])


def _figures(wish: Wish) -> tuple[str, str]:
    if wish.table is None:
        return "see its page", "see its page"
    row = measured_row(wish)
    takes = [
        f"{minutes(row)} min",
        f"{row.peak_bytes / 2**30:.1f} GiB",
        "a text" if row.calibration_tokens else "no data",
    ]
    worse = max(text.mean for text in row.perplexity.values())
    removed = f"{row.sparsity:.0%} {'of the weights zero' if wish.table == 'zeros' else 'fewer parameters'}"
    faster = [f"time per token × {row.decode.ratio:.2f}"] if row.decode else []
    return ", ".join(takes), ", ".join([removed, *faster, f"perplexity × {worse:.2f}"])


def measured_row(wish: Wish) -> Measurement:
    """Return the measured row that a wish names; raises LookupError if there is none."""
    assert wish.table is not None
    for row in measurements(wish.table):
        names = (row.method, row.pattern, row.layout, round(row.sparsity, 3), row.recovery is not None)
        if names == (wish.methods[0], wish.pattern, wish.layout, wish.sparsity, wish.trained):
            return row
    raise LookupError(
        f"{wish.table}.json has no row of {wish.methods[0]}, {wish.pattern}, {wish.layout}, {wish.sparsity}"
    )
