"""The whole matrix of GGUF files, each cell in the real llama.cpp: `python -m bench.gguf_cells [--write PAGE]`.

It goes on where it was ended, unless the exporter has changed since.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import torch

from bench.cells import CACHE
from bench.page import table, write_section
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.errors import InvalidRequest
from tests.gguf.cells import WAYS, cut_trained, export
from tests.gguf.trained import FAMILIES, architecture_of

SECTION: Final = "cells"
TYPES: Final = ("F32", "F16", "Q8_0")
SOURCES: Final = ("core/engine/exporters/gguf/**/*.py", "tests/gguf/cells.py", "tests/gguf/trained.py")
TITLES: Final = {
    "uncut": "uncut",
    "zeros": "zeros",
    "channels": "channels gone",
    "heads": "heads and channels gone",
    "layers": "layers gone",
    "per_layer": "layers of different shapes",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gguf_cells", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = CACHE / f"gguf-cells-{_digest()}.json"
    found: dict[str, str] = json.loads(kept.read_text()) if kept.exists() else {}
    for family in FAMILIES:
        for way in WAYS:
            name = f"{family} {way}"
            if name not in found:
                found[name] = _cell(family, way)
                print(f"{name}: {found[name]}", flush=True)
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_text(json.dumps(found, indent=1))
    text = page(found)
    print(text)
    if given.write:
        write_section(given.write, SECTION, text)
    return 0


def _cell(family: str, way: str) -> str:
    """Return the KL divergence of each type, or why the cell is refused."""
    with TemporaryDirectory() as place:
        try:
            folder = cut_trained(Path(place), family, way)
        except InvalidRequest as refused:
            why = refused.message.partition(": ")[2].rpartition(", or leave")[0]
            return why.replace(f" of {architecture_of(family)}", "")
        return " · ".join(f"{each.kl:.0e}".replace("e-0", "e-") for each in export(folder, *TYPES).files)


def page(found: Mapping[str, str]) -> str:
    """Return the table, with the reason of each cell that is refused under it."""
    reasons = {each: chr(ord("a") + number) for number, each in enumerate(_refusals(found))}
    rows = [
        [_title(family), *(reasons.get(found[f"{family} {way}"], found[f"{family} {way}"]) for way in WAYS)]
        for family in FAMILIES
    ]
    notes = [f"- {letter}: {reason}." for reason, letter in reasons.items()]
    return "\n".join([table(["", *(TITLES[way] for way in WAYS)], rows, text_columns=len(WAYS) + 1), "", *notes])


def _refusals(found: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(each for each in found.values() if each.startswith("llama.cpp")))


def _title(family: str) -> str:
    title = LANGUAGE_ARCHITECTURES[architecture_of(family)].title
    return f"{title}, attention and FFN at once" if family.endswith("-parallel") else title


def _digest() -> str:
    files = sorted(file for pattern in SOURCES for file in Path().glob(pattern))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
