"""Families, cuts and engines: what a job can ask for, or why not: `python -m bench.engines [--write docs/engines.md]`.

Nothing is run: the answers are those that a request gets when it is submitted.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench.page import show, table
from core.engine.architectures.description import ModelDescription
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.cuts import Losses
from core.engine.exporters.registry import ADDED
from core.engine.models.folder import open_model
from core.pipeline.stages.discover import discover_and_test
from secateur_wire.errors import InvalidRequest
from tests.gguf.trained import FAMILIES, MIXTURES, OTHERS, save_trained

SECTION: Final = "engines"
VARIANTS: Final = {"parallel": "attention and FFN at once", "tied": "embeddings as its head"}
CUTS: Final = {
    "one shape": Losses(),
    "heads gone": Losses(heads=True),
    "layers differ": Losses(different_layers=True),
}


def described(place: Path, family: str) -> ModelDescription:
    """Return the description of a small model of a family."""
    folder = save_trained(place / family, family, training_steps=0)
    if family not in MIXTURES:
        return open_model(folder).description
    config = json.loads((folder / "config.json").read_bytes())
    discovered = discover_and_test(config, read_header(folder / "model.safetensors"))
    return open_model(folder, discovered=discovered).description


def answers(description: ModelDescription) -> dict[tuple[str, str], str]:
    """Return, by form and cut, a tick or the reason of the refusal."""
    found = {}
    for form, each in ADDED.items():
        for cut, losses in CUTS.items():
            try:
                each.check_types(description, each.types[:1], losses, "")
                found[form, cut] = "✓"
            except InvalidRequest as refused:
                found[form, cut] = _reason(refused.message, description.architecture)
    return found


def _reason(message: str, architecture: str) -> str:
    """Return why a cell is refused, of any family."""
    why = message.partition(": ")[2]
    if "can be written for" in why:
        return "this form can only be written for other architectures"
    return why.rpartition(", or leave")[0].replace(f", of {architecture},", "").replace(f" of {architecture}", "")


def page(found: Mapping[str, Mapping[tuple[str, str], str]]) -> str:
    """Return the table, with the reasons under it."""
    columns = [(form, cut) for form in ADDED for cut in CUTS]
    texts = [cells[column] for cells in found.values() for column in columns]
    reasons = {each: chr(ord("a") + place) for place, each in enumerate(dict.fromkeys(t for t in texts if t != "✓"))}
    rows = [[title, *(reasons.get(cells[each], cells[each]) for each in columns)] for title, cells in found.items()]
    header = ["", *(f"{form}, {cut}" for form, cut in columns)]
    notes = [f"- Cell {letter}: {reason}." for reason, letter in reasons.items()]
    return "\n".join([table(header, rows, text_columns=len(header)), "", *notes])


def rows(families: Sequence[str] = (*FAMILIES, *OTHERS, *MIXTURES)) -> dict[str, dict[tuple[str, str], str]]:
    """Return the answers by the family's title."""
    found = {}
    with TemporaryDirectory() as place:
        for family in families:
            description = described(Path(place), family)
            variant = next((said for name, said in VARIANTS.items() if family.endswith(f"-{name}")), None)
            title = description.known_as.title
            found[f"{title}, {variant}" if variant else title] = answers(description)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    show(page(rows()), SECTION, given.write)
    return 0


if __name__ == "__main__":
    sys.exit(main())
