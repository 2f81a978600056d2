"""The jobs of the map. Loads no torch."""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bench.judge.texts import CODE
from bench.service import DOCUMENTATION
from worker.samples.language import CALIBRATION, EVALUATION

IN_DOMAIN, OUT_OF_DOMAIN, THIRD = EVALUATION, CODE, DOCUMENTATION
"""Texts of every job. The third is one on which nothing is chosen: it tests what the others say."""
BITS: Final = (16, 8, 4)
DENSE: Final = "dense"
_DENSE_TYPES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")


@dataclass(frozen=True)
class Row:
    """Way to remove something: the `body` of its job. The job in 16 bits also writes GGUF files of these `types`.

    Zeros need the packed form to save bytes.
    """

    body: Mapping[str, Any]
    types: tuple[str, ...] = ()
    has_zeros: bool = False


def _structured(share: float) -> Row:
    # Widths would be multiples of 256 for the mixed types: a step too coarse for so small a model.
    return Row({"method": "frontier", "pattern": "structured", "sparsity": share}, ("Q8_0",))


ROWS: Final[Mapping[str, Row]] = {
    DENSE: Row({"method": "none"}, _DENSE_TYPES),
    "structured 10 %": _structured(0.1),
    "structured 20 %": _structured(0.2),
    "structured 30 %": _structured(0.3),
    "vocabulary": Row({"method": "vocabulary", "parameters": {"tokens": 24_576}}, ("Q8_0", "Q4_K_M")),
    "depth": Row(
        {
            "method": "depth",
            "sparsity": 0.1,
            "parameters": {"criterion": "block_influence", "compensation": {"refit": 0.5}},
        },
        ("Q8_0", "Q4_K_M"),
    ),
    "50 % zeros": Row({"method": "sparsegpt", "sparsity": 0.5}, has_zeros=True),
    "2:4": Row({"method": "sparsegpt", "pattern": "2:4"}, has_zeros=True),
}


class Name(NamedTuple):
    """Name of a cell; `bits` are those of the blocks' weights in the artifact."""

    row: str
    bits: int
    is_distilled: bool
    seed: int

    @property
    def title(self) -> str:
        """Return the name in words."""
        return f"{self.row}, {self.bits} bits{', distilled' * self.is_distilled}, seed {self.seed}"


def bodies(given: argparse.Namespace) -> Iterator[tuple[Name, dict[str, Any]]]:
    """Yield the jobs of the rows, bits and seeds that are given: dense ones first, with which others are compared."""
    for row in sorted(given.rows, key=list(ROWS).index):
        for bits in given.bits:
            for is_distilled in (each == "yes" for each in given.distilled if row != DENSE or each == "no"):
                for seed in range(given.seeds):
                    if row == DENSE and bits == 16 and seed:
                        continue  # nothing is drawn
                    yield Name(row, bits, is_distilled, seed), _body(given, Name(row, bits, is_distilled, seed))


def _body(given: argparse.Namespace, name: Name) -> dict[str, Any]:
    row = ROWS[name.row]
    evaluation = {
        "datasets": [IN_DOMAIN, OUT_OF_DOMAIN, THIRD],
        "samples": given.windows,
        "sequence_length": given.length,
    }
    output: dict[str, Any] = {"dtype": "bfloat16"}
    if row.has_zeros:
        output["format"] = "packed"
    if name.bits < 16:
        output["quantization"] = {"scheme": f"int{name.bits}"}
    elif row.types:
        output["exports"] = [{"format": "gguf", "types": list(row.types)}]
    body: dict[str, Any] = {**row.body, "evaluation": evaluation, "output": output}
    if name.row != DENSE or name.bits < 16:
        body["calibration"] = {
            "dataset": CALIBRATION,
            "samples": given.samples,
            "sequence_length": given.length,
            "seed": name.seed,
        }
    if name.is_distilled:
        body["recovery"] = {
            "method": "distill",
            "lora": None,
            "steps": given.steps,
            "batch_size": 4,
            "sequence_length": 256,
            "own_text": 0,
            "seed": name.seed,
        }
    return body
