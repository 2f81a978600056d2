"""Calibration on tokens that do not all count: every method's statistics and losses are of those that do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.datasets.counted_tokens import with_counted
from core.engine.models.folder import open_model
from core.pipeline.plans import walk_for
from tests.engine.pruning.test_experts import PER_EXPERT, opened
from tests.engine.sweeping import request_for, tensors_of
from tests.engine.tiny import make_model, make_tokens

SHORT, LENGTH = 17, 24
STATISTICS: dict[str, dict[str, Any]] = {
    "wanda, two passes, compensated": {
        "method": "wanda", "sparsity": 0.5, "parameters": {"propagation": "two_pass", "compensation": {"refit": "auto"}}
    },
    "sparsegpt": {"method": "sparsegpt", "sparsity": 0.5},
    "wanda, experts": {"method": "wanda", "sparsity": 0.5, "is_mixture": True},
    "flap": {"method": "flap", "sparsity": 0.25, "pattern": "structured", "parameters": {"round_to": 1}},
    "expert-drop, refitted": {
        "method": "expert-drop", "sparsity": 0.25, "pattern": "structured", "is_mixture": True,
        "parameters": {"compensation": {"refit": "auto"}},
    },
    "depth, by angles": {
        "method": "depth", "sparsity": 0.3, "pattern": "structured", "parameters": {"criterion": "block_influence"}
    },
    "frontier, structured": {
        "method": "frontier", "sparsity": 0.25, "pattern": "structured",
        "parameters": {"round_to": 1, "metric": False, "drop_layers": 0, "attention": "none"},
    },
}  # fmt: skip
LOSSES: dict[str, dict[str, Any]] = {
    "llm-pruner": {"method": "llm-pruner", "sparsity": 0.25, "pattern": "structured", "parameters": {"round_to": 1}},
    "depth, by perplexity": {
        "method": "depth", "sparsity": 0.3, "pattern": "structured", "parameters": {"criterion": "perplexity"}
    },
}  # fmt: skip


def tokens(counted: int = LENGTH) -> Tensor:
    """Return token ids of which only the first `counted` of each sequence count."""
    ids_NT = make_tokens(8, LENGTH)
    return with_counted(ids_NT, torch.arange(LENGTH).expand_as(ids_NT) < counted)


def pruned(work: Path, calibration: Tensor, *, is_mixture: bool = False, **request: Any) -> dict[str, Tensor]:
    folder = opened(PER_EXPERT) if is_mixture else open_model(make_model(work / "model", num_hidden_layers=3))
    (work / "work").mkdir(parents=True)
    return tensors_of(
        walk_for(
            folder, request_for(folder, **request), device=torch.device("cpu"), calibration=calibration,
            evaluations={}, work=work / "work", activation_budget_bytes=2**30,
        ).run()
    )  # fmt: skip


def are_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        each.shape == other[name].shape and torch.allclose(each, other[name], atol=2e-3, rtol=2e-3)
        for name, each in one.items()
    )


@pytest.mark.parametrize(("case", "beyond"), [*((each, 0) for each in STATISTICS), *((each, 1) for each in LOSSES)])
def test_tokens_behind_those_that_count_change_nothing(case: str, beyond: int, tmp_path: Path) -> None:
    """A token is not read before its place: so the sequences might as well end where the last one counts."""
    request = (STATISTICS | LOSSES)[case]
    some = pruned(tmp_path / "some", tokens(SHORT + 1), **request)
    short = pruned(tmp_path / "short", tokens()[:, : SHORT + beyond], **request)
    assert are_close(some, short)
    if not case.startswith("depth"):  # which may drop the same layers
        assert not are_close(some, pruned(tmp_path / "all", tokens(), **request))
