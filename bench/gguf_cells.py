"""The whole matrix of GGUF files, each cell in the real llama.cpp: `python -m bench.gguf_cells [--write PAGE]`.

Then the mistakes that a writer could make, each in every family that it applies to. It goes on where it was ended,
unless the exporter has changed since.
"""

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from bench.cells import Cell, Runner
from bench.page import show, table
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from secateur_wire.errors import InvalidRequest
from tests.gguf.cells import WAYS, cut_trained, export
from tests.gguf.sabotages import IDS, KL, LOAD, SABOTAGES, caught
from tests.gguf.trained import FAMILIES, MINUTE, architecture_of

TYPES: Final = ("F32", "F16", "Q8_0")
SOURCES: Final = (
    "core/engine/exporters/gguf/**/*.py",
    *(f"tests/gguf/{name}.py" for name in ("cells", "sabotages", "trained")),
)
TITLES: Final = {
    "uncut": "uncut",
    "zeros": "zeros",
    "channels": "channels gone",
    "heads": "heads and channels gone",
    "layers": "layers gone",
    "per_layer": "layers of different shapes",
}
VARIANTS: Final = {"parallel": "attention and FFN at once", "tied": "embeddings as its head"}
SHOWN: Final = {IDS: "ids", LOAD: "load"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gguf_cells", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's sections too")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, help="measure these alone")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sources = _digest()
    cells = {(family, way): cell_of(family, way, sources) for family in given.families for way in WAYS}
    parts = Runner.of(given).figures(cells)
    found: dict[str, dict[str, str]] = {}
    for (family, _), part in parts.items():
        found.setdefault(family, {}).update(part)
    if len(parts) == len(FAMILIES) * len(WAYS):
        show(matrix(found), "cells", given.write)
        show(mistakes(found), "mistakes", given.write)
    return int(len(parts) < len(cells))


def cell_of(family: str, way: str, sources: str) -> Cell:
    """Return the cell of a family that is cut one way: what comes of it, and of each mistake in it."""

    def work() -> dict[str, str]:
        with TemporaryDirectory() as place:
            try:
                folder = cut_trained(Path(place), family, way, training_steps=MINUTE)
            except InvalidRequest as refused:
                return {way: _reason(refused.message, architecture_of(family))}
            made = [name for name, each in SABOTAGES.items() if (family, way) in each.cells()]
            return _cell(folder, way) | {f"{name} {way}": _mistake(folder, name) for name in made}

    return Cell(f"{family} {way}", f"gguf-{sources}-{family}-{way}", work)


def _reason(message: str, architecture: str) -> str:
    """Return why a cell is refused, of any family."""
    why = message.partition(": ")[2].rpartition(", or leave")[0]
    return why.replace(f", of {architecture},", "").replace(f" of {architecture}", "")


def _cell(folder: Path, way: str) -> dict[str, str]:
    """Return the KL divergence of each type, and the perplexity; the files are removed."""
    files = export(folder, *TYPES).files
    for each in files:
        (folder / each.file).unlink()
    return {
        way: " · ".join(f"{each.kl:.0e}".replace("e-0", "e-") for each in files),
        f"perplexity {way}": f"{files[0].perplexity:.1f}",
    }


def _mistake(folder: Path, name: str) -> str:
    by, divergence = caught(SABOTAGES[name], folder)
    return f"{divergence:.2g}" if by == KL else SHOWN[by]


def matrix(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table of cells, with the reason of each that is refused under it."""
    texts = [cells[way] for cells in found.values() for way in WAYS]
    reasons = {each: chr(ord("a") + place) for place, each in enumerate(_refusals(texts))}
    rows = [
        [
            _title(family),
            *(reasons.get(cells[way], cells[way]) for way in WAYS),
            cells["perplexity uncut"],
        ]
        for family, cells in found.items()
    ]
    notes = [f"- Cell {letter}: {reason}." for reason, letter in reasons.items()]
    header = ["", *(TITLES[way] for way in WAYS), "perplexity, uncut"]
    return "\n".join([table(header, rows, text_columns=len(WAYS) + 2), "", *notes])


def mistakes(found: Mapping[str, Mapping[str, str]]) -> str:
    """Return the table of mistakes, with what each is, and where it cannot be made, under it."""
    letters = {name: chr(ord("A") + place) for place, name in enumerate(SABOTAGES)}
    rows = [
        [
            _title(family),
            *(
                " · ".join(cells[f"{name} {way}"] for way in WAYS if f"{name} {way}" in cells) or "–"
                for name in SABOTAGES
            ),
        ]
        for family, cells in found.items()
    ]
    notes = []
    for name, each in SABOTAGES.items():
        why = "; ".join(dict.fromkeys(each.not_in.values()))
        notes.append(f"- Mistake {letters[name]}: {each.title}{f'. A dash in this column: {why}' if why else ''}.")
    return "\n".join([table(["", *letters.values()], rows, text_columns=len(letters) + 1), "", *notes])


def _refusals(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(each for each in texts if each.startswith("llama.cpp")))


def _title(family: str) -> str:
    title = LANGUAGE_ARCHITECTURES[architecture_of(family)].title
    variant = next((said for name, said in VARIANTS.items() if family.endswith(f"-{name}")), None)
    return f"{title}, {variant}" if variant else title


def _digest() -> str:
    files = sorted(file for pattern in SOURCES for file in Path().glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
