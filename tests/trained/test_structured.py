"""Structured methods on the sample model: the order the papers report, on text they were not calibrated on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.architectures.describe import inspect_folder
from core.engine.models.folder import ModelFolder
from core.engine.pruning.results import PruneResult
from core.pipeline.plans import walk_for
from tests.engine.sweeping import request_for, with_heads


@dataclass(frozen=True)
class Ground:
    """Text to prune and to measure by."""

    calibration: Tensor
    evaluation: Tensor


@pytest.fixture(scope="module", params=["little text", pytest.param("more text", marks=pytest.mark.nightly)])
def ground(request: pytest.FixtureRequest) -> Ground:
    if request.param == "little text":
        return Ground(request.getfixturevalue("little_calibration")[:, :64], request.getfixturevalue("little_text"))
    return Ground(request.getfixturevalue("calibration")[:4, :128], request.getfixturevalue("evaluation")[:2])


def removed(
    model: ModelFolder, work: Path, calibration: Tensor, evaluation: Tensor, method: str,
    alike: PruneResult | None = None, **parameters: Any,
) -> PruneResult:  # fmt: skip
    """Remove a fifth of the model; the dense figures are known where another method was measured on the same text."""
    work.mkdir()
    request = request_for(model, method, 0.2, parameters=with_heads(model, method, parameters))
    known = None if alike is None else {"text": alike.perplexity["text"].measured_dense}
    return walk_for(
        model, request, device=torch.device("cpu"), calibration=calibration, evaluations={"text": evaluation},
        work=work, dense_perplexity=known,
    ).run()  # fmt: skip


@pytest.fixture(scope="module")
def at_random(smollm2: ModelFolder, ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> PruneResult:
    """What the others must do better than; it looks at no text."""
    work = tmp_path_factory.mktemp("random") / "work"
    return removed(smollm2, work, ground.calibration[:1], ground.evaluation, "random-structured")


def test_taylor_before_random_before_l2(
    smollm2: ModelFolder, ground: Ground, at_random: PruneResult, tmp_path: Path
) -> None:
    results = {
        method: removed(smollm2, tmp_path / method, ground.calibration, ground.evaluation, method, at_random)
        for method in ("llm-pruner", "l2-structured")
    } | {"random-structured": at_random}
    perplexities = {method: result.perplexity["text"].pruned for method, result in results.items()}
    print({method: round(value, 1) for method, value in perplexities.items()})
    assert perplexities["llm-pruner"] < perplexities["random-structured"] < perplexities["l2-structured"]
    total = inspect_folder(smollm2.path).parameters
    one_group = 30 * 8 * 3 * 576
    assert all(abs(result.removed - 0.2 * total) <= one_group for result in results.values())
