"""Types of models with known refusals, so that nobody waits for a discovery that would refuse again.

For every type of one version of transformers, `known_types.json` records the offers to a small model of the type and
the reasons against the others (`make architectures`). Other settings of a type may allow more: a type with mixtures of
experts also has models without experts. Therefore a refusal counts as known only if the model's own tensors show the
reason too, and only for the versions of transformers and of the discovery that gave it.
"""

import json
from functools import cache
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from core.engine.architectures.discovered import DISCOVERY_VERSION
from core.engine.architectures.undiscovered import UndiscoveredFacts

FILE: Final = Path(__file__).with_name("known_types.json")
_EXPERTS: Final = "its experts are not pruned: "


class KnownType(BaseModel):
    """Type of model: the offers to it, and the reason against each other offer."""

    offered: list[str]
    not_offered: dict[str, str]


class KnownTypes(BaseModel):
    """All known types, and the versions of transformers and of the discovery that gave the refusals."""

    transformers: str
    discovery: int
    types: dict[str, KnownType]


@cache
def known_types(file: Path) -> KnownTypes:
    return KnownTypes.model_validate(json.loads(file.read_bytes()))


def known_refusal(model: UndiscoveredFacts, transformers_version: str, file: Path = FILE) -> str | None:
    """Return the reason why a discovery would refuse a model; None where it is not known."""
    known = known_types(file)
    if (known.transformers, known.discovery) != (transformers_version, DISCOVERY_VERSION):
        return None
    entry = known.types.get(model.family)
    reason = "" if entry is None else entry.not_offered.get("opens", "")
    return f"{model.family}: {reason}" if reason.startswith(_EXPERTS) and model.has_experts else None
