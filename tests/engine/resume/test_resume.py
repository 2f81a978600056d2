"""Every way to prune, cut off and gone on with: the bytes and the report are those of an attempt that nothing stopped.

The attempt that goes on has no memory for activations, so that what is spilled is what is held as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.results import PruneResult
from core.pipeline.plans import walk_for
from core.progress import Progress, WorkStopped
from secateur_wire.job_body import Layout, StoredDtype
from tests.engine.pruning.test_experts import GROUPED, PER_EXPERT, opened
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching


@dataclass(frozen=True)
class Case:
    """A way to prune a model, and the block after which it is cut off."""

    method: str
    sparsity: float
    parameters: dict[str, Any] = field(default_factory=dict)
    pattern: str | None = None
    layout: Layout = "uniform"
    model: str = "llama"
    dtype: StoredDtype = "keep"
    after: int = 2

    def opened(self, place: Path) -> ModelFolder:
        if self.model in (PER_EXPERT, GROUPED):
            return opened(self.model)
        return open_model(make_model(place, self.model))

    def run(
        self, folder: ModelFolder, work: Path, *, budget: int = 2**30, progress: Progress | None = None,
        previous: Sequence[Path] = (),
    ) -> PruneResult:  # fmt: skip
        work.mkdir()
        request = request_for(
            folder, self.method, self.sparsity, self.pattern, self.parameters, layout=self.layout, is_calibrated=True
        )
        return walk_for(
            folder, request, device=torch.device("cpu"), calibration=make_tokens(16),
            evaluations={"text": make_tokens(seed=9)}, work=work, previous=previous, progress=progress,
            activation_budget_bytes=budget, stored=folder_as_stored(folder, self.dtype),
        ).run()  # fmt: skip


REFIT = {"compensation": {"refit": "auto"}}
CASES = {
    "random": Case("random", 0.5, after=1),
    "two passes": Case("wanda", 0.5, {"allocation": "owl", "propagation": "two_pass"}),
    "fisher": Case("sparsegpt", 0.5, {"allocation": "fisher"} | REFIT, model="gpt2", after=3),
    "narrower": Case("wanda", 0.5, dtype="bfloat16"),
    "gradients": Case("llm-pruner", 0.25, REFIT, model="qwen3"),
    "layers": Case("depth", 0.25, REFIT | {"criterion": "angular"}, after=1),
    "means": Case("flap", 0.25, {"round_to": 1, "attention": "auto"}, layout="per_layer", model="qwen2"),
    "frontier": Case("frontier", 0.2, {"round_to": 2}, "structured", "per_layer", "qwen2"),
    "experts": Case("expert-drop", 0.2, REFIT, model=PER_EXPERT, after=1),
    "experts' weights": Case("sparsegpt", 0.5, model=PER_EXPERT, after=1),
    "experts' channels": Case("frontier", 0.2, {"round_to": 2}, "structured", "per_layer", GROUPED, after=1),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_was_cut_off_goes_on_where_it_was_and_ends_with_the_same_bytes(case: Case, tmp_path: Path) -> None:
    folder = case.opened(tmp_path / "model")
    whole = case.run(folder, tmp_path / "whole")
    with pytest.raises(WorkStopped):
        case.run(folder, tmp_path / "one", progress=Watching(stop_after=case.after))
    again = case.run(folder, tmp_path / "two", budget=0, previous=[tmp_path / "one"])
    assert again.resumed_from == case.after
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]
    for name in ("perplexity", "layers", "removed", "notes", "refits", "sections", "sparsities"):
        assert getattr(again, name) == getattr(whole, name), name
