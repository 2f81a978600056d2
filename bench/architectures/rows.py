"""Rows of the matrix: a tiny model loses the rows of most of its tokens, all else staying as it is.

Tiny models have no tokenizer, so that a seed chooses which tokens stay. Rows are cut of a type whose blocks cannot be
discovered too: its tables of tokens are found by the same proof on a small copy.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from bench.architectures.masked import Unmatched
from core.engine.architectures.architecture import VOCABULARY_KEY, Architecture
from core.engine.architectures.config import part_of
from core.engine.architectures.folder import stored_tensors
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.key_patterns import pattern_of
from core.engine.discovery.build import build_traceable
from core.engine.discovery.config_facts import config_defaults, config_keys
from core.engine.discovery.configuration import (
    causal_class,
    language_part,
    language_path,
    open_config,
    read_settings,
)
from core.engine.discovery.names import stored_names
from core.engine.models.folder import ModelFolder
from core.engine.vocabulary.rows import write_reduced, write_rows
from core.engine.vocabulary.settings import required_ids
from core.engine.vocabulary.small_copy import with_vocabulary
from secateur_wire.errors import UnsupportedArchitecture

_SHARE = 0.3


def cut_rows(
    path: Path, target: Path, seed: int, folder: ModelFolder | None, discovered: Architecture | None
) -> tuple[list[int], ModelFolder | None]:
    """Write the model that keeps some tokens; return their ids, and the model as the service opens it.

    `folder` is the dense model where the service opens it. Raises UnsupportedArchitecture where no row can go.
    """
    config = json.loads((path / CONFIG_FILE).read_bytes())
    opened: PretrainedConfig = AutoConfig.from_pretrained(path, local_files_only=True)
    family = folder.family if folder is not None else discovered or _tables_alone(config, path)
    if "vocabulary" in family.refused:
        raise UnsupportedArchitecture(family.refused["vocabulary"], param="model")
    named = required_ids(config, family, opened)
    others = [each for each in range(family.config_value(config, VOCABULARY_KEY)) if each not in named]
    kept = sorted({*named, *random.Random(seed).sample(others, int(_SHARE * len(others)))})
    if folder is not None:
        return kept, write_reduced(folder, kept, target)
    write_rows(path, kept, target, family, opened)
    return kept, None


def require_rows(dense: PreTrainedModel, cut: PreTrainedModel, kept: Sequence[int]) -> None:
    """Require that a cut model has the dense model's tensors, and in tables of tokens the rows of the kept tokens."""
    before, after = dense.state_dict(), cut.state_dict()
    if before.keys() != after.keys():
        raise Unmatched(f"it has other tensors, as {min(before.keys() ^ after.keys())}")
    shrunk = [name for name, tensor in before.items() if tensor.shape != after[name].shape]
    for name, tensor in before.items():
        tokens = torch.tensor([each for each in kept if each < len(tensor)]) if name in shrunk else None
        part = tensor if tokens is None else tensor[tokens]
        if not torch.equal(part, after[name][: len(part)] if name in shrunk else after[name]):
            raise Unmatched(f"{name} was changed, or has other rows than those of the tokens that stay")
    if not shrunk:
        raise Unmatched("no tensor has fewer rows")


def largest_difference(logits: Sequence[Tensor], expected: Sequence[Tensor], kept: Sequence[int]) -> float:
    """Return the largest difference between logits and those of the kept tokens of the dense model."""
    ids = torch.tensor(kept)
    if any(each.shape[-1] != len(kept) for each in logits):
        raise Unmatched(f"it gives {logits[0].shape[-1]} logits for {len(kept)} tokens")
    return max(float((one - other[..., ids]).abs().max()) for one, other in zip(logits, expected, strict=True))


def _tables_alone(config: Mapping[str, object], path: Path) -> Architecture:
    """Return an architecture that has nothing but the tables of tokens, and the names by which files store them."""
    settings = read_settings(config)  # type: ignore[arg-type]
    opened = open_config(settings)
    language, inside = language_part(opened), language_path(opened)
    names = stored_names(build_traceable(opened), stored_tensors(path, None))
    architecture = Architecture(
        model_type=opened.model_type,
        architecture=causal_class(opened).__name__,
        title=opened.model_type,
        base="",
        blocks="",
        head="",
        sublayers=(),
        config_keys=config_keys(language),
        config_defaults=config_defaults(language, part_of(settings, inside)),
        config_path=inside,
        discovered_by="tables alone",
        renamed={pattern_of(key): pattern_of(name) for key, name in names.names.items()},
    )
    return with_vocabulary(architecture, settings)
