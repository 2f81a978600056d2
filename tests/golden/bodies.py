"""The jobs: `python -m tests.golden.bodies` writes bodies.json anew, with every parameter spelled out.

What is committed is compared with, so that a later change of a default moves nothing here.
"""

import copy
import json
from pathlib import Path
from typing import Any

from core.methods.registry import parse_parameters
from tests.families import CLASSIFIERS, ROWS, Golden, Row

BODIES = Path(__file__).parent / "bodies.json"

_TEXT = {
    "calibration": {"dataset": "text", "samples": 8, "sequence_length": 24, "seed": 0},
    "evaluation": {"datasets": ["text"], "samples": 8, "sequence_length": 24},
}


def bodies() -> dict[str, dict[str, Any]]:
    """Return the body of each job of the table by its name."""
    return {name: _body(row, golden) for row in ROWS for name, golden in row.golden.items()}


def _body(row: Row, golden: Golden) -> dict[str, Any]:
    """Return a body whose parameters are those of the row and, spelled out, the defaults that are values."""
    images = f"images-{golden.model}"
    of_images = {"calibration": {"dataset": images, "samples": 20, "seed": 0}, "evaluation": {"datasets": [images]}}
    body: dict[str, Any] = {"model": golden.model, "method": row.method}
    body |= of_images if golden.model in CLASSIFIERS else copy.deepcopy(_TEXT)
    if golden.sparsity is not None:
        body["sparsity"] = golden.sparsity
    if row.pattern not in (None, "unstructured"):
        body["pattern"] = row.pattern
    checked = parse_parameters(row.method, dict(row.parameters), body.get("pattern"))
    return body | {"parameters": checked.model_dump(mode="json", exclude_none=True), **golden.body}


if __name__ == "__main__":
    BODIES.write_text(json.dumps(bodies(), indent=1) + "\n", encoding="utf-8")
