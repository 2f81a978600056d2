"""Methods that choose a block's units when the pass is there: what they are given, and what becomes of their answer."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.pruning import plan as pruning_plan
from core.engine.pruning.input_moments import InputMoments
from core.engine.pruning.protocols.units import BlockUnitMethod
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.propagation import InputGroup, arrivals
from core.engine.pruning.units.block_tokens import BlockToPrune, PrunedBlock, TokensAtBlock
from core.engine.pruning.units.context import UnitSelectionContext
from core.engine.pruning.units.dense_blocks import dense_blocks
from core.engine.pruning.units.removal import UnitCounts
from core.pipeline import plans
from core.progress import WorkStopped
from tests.engine.pruning.test_structured import removal, save
from tests.engine.sweeping import tensors_of
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

LINEARS = ("self_attn.o_proj", "mlp.down_proj")
CPU = torch.device("cpu")


class Halving(BlockUnitMethod):
    """Leaves out layer 1 and the channels that vary least in the pruned stream; halves the output that is left."""

    weight_reads = 1
    reads_pruned = True
    planned = 0

    def __init__(self) -> None:
        self.pruned_blocks: list[int] = []
        self.dense_means: dict[tuple[int, str], Tensor] = {}
        self.planned_means: dict[tuple[int, str], Tensor] = {}
        self.pruned_means: dict[tuple[int, str], Tensor] = {}

    def plan(self, context: UnitSelectionContext) -> UnitCounts:
        self.planned += 1
        for layer, _, tokens in dense_blocks(context):
            for name, each in tokens.moments(LINEARS).items():
                self.planned_means[layer, name] = each.mean_I
        assert context.counts is not None
        kept = {layer: counts for layer, counts in enumerate(context.counts) if layer != 1}
        return UnitCounts(layers=kept, notes=["halved"])

    def prune_block(
        self, block: BlockToPrune, dense: TokensAtBlock, pruned: TokensAtBlock | None, log: Callable[[str], None]
    ) -> PrunedBlock:
        self.pruned_blocks.append(block.layer)
        log(f"choosing in {block.layer}")
        assert pruned is not None
        found = pruned.moments(LINEARS)
        for name, each in found.items():
            self.pruned_means[block.layer, name] = each.mean_I
        if block.layer != 2:  # left alone, the dense tokens go on all the same
            for name, each in dense.moments(LINEARS).items():
                self.dense_means[block.layer, name] = each.mean_I
        units = block.keep_highest({"channels": found["mlp.down_proj"].variance_I})
        down = block.tensors["mlp.down_proj.weight"][:, torch.tensor(units["channels"])] / 2
        return PrunedBlock(units, {"mlp.down_proj.weight": down})


def inputs_of(folder: Path, tokens: Tensor) -> dict[tuple[int, str], Tensor]:
    """Return the mean of what the output layers of every block read in the model as it is."""
    model = load_model(open_model(folder), CPU)
    found: dict[tuple[int, str], InputMoments] = {}

    def take(layer: int) -> Callable[[InputGroup, Tensor], None]:
        return lambda group, inputs: found.setdefault((layer, group.first), InputMoments()).update(inputs)

    with torch.inference_mode(), ExitStack() as stack:
        for layer, block in enumerate(model.model.layers):
            stack.enter_context(arrivals(block, [InputGroup((name,)) for name in LINEARS], take(layer)))
        model(input_ids=tokens)
    return {key: each.mean_I for key, each in found.items()}


@pytest.fixture
def method(monkeypatch: pytest.MonkeyPatch) -> Halving:
    built = Halving()
    monkeypatch.setattr(plans, "build_method", lambda method, parameters, protocols: built)
    return built


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"), num_hidden_layers=4)


def halve(folder: Path, work: Path, refit: float = 0.0, **setting: Any) -> PruneResult:
    parameters = {"attention": "none", "compensation": {"refit": refit}}
    return removal(folder, work, "l2-structured", 0.2, parameters=parameters, **setting)


def test_its_tokens_are_those_of_the_dense_model_and_of_what_is_left(
    folder: Path, method: Halving, tmp_path: Path
) -> None:
    refit = 0.0
    result = halve(folder, tmp_path / "work", refit)
    assert method.pruned_blocks == [0, 2, 3]
    expected = inputs_of(folder, make_tokens())
    assert method.planned_means.keys() == expected.keys()
    for found in (method.planned_means, method.dense_means):
        for key, mean_I in found.items():
            torch.testing.assert_close(mean_I, expected[key], atol=1e-6, rtol=1e-5)
    for (layer, name), mean_I in method.pruned_means.items():
        assert torch.allclose(mean_I, expected[layer, name], atol=1e-6) == (layer == 0)
    if not refit:
        artifact = save(result, folder, tmp_path / "artifact")
        behind = inputs_of(artifact, make_tokens())
        torch.testing.assert_close(behind[2, "self_attn.o_proj"], method.pruned_means[3, "self_attn.o_proj"])
        assert result.notes == ["halved"] and result.config is not None and result.config["num_hidden_layers"] == 3


def test_its_units_and_what_it_changed_are_what_is_saved(folder: Path, method: Halving, tmp_path: Path) -> None:
    result = halve(folder, tmp_path / "work")
    source, tensors = open_model(folder), tensors_of(result)
    up, down = (f"model.layers.0.mlp.{name}_proj.weight" for name in ("up", "down"))
    rows = [next(n for n, row in enumerate(source.read(up)) if torch.equal(row, each)) for each in tensors[up]]
    assert rows == sorted(rows) and len(rows) < 48
    assert torch.equal(tensors[down], source.read(down)[:, rows] / 2)


def test_tokens_that_do_not_fit_the_budget_lie_in_files_and_count_as_well(
    folder: Path, method: Halving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_plan, "MICRO_BATCH_TOKENS", 48)
    roomy = halve(folder, tmp_path / "roomy")
    planned = dict(method.planned_means)
    tight = halve(folder, tmp_path / "tight", activation_budget_bytes=2 * 24 * 32 * 4 + 100)
    assert [file.read_bytes() for file in tight.files] == [file.read_bytes() for file in roomy.files]
    assert all(torch.equal(mean_I, planned[key]) for key, mean_I in method.planned_means.items())
    assert not list((tmp_path / "tight" / "scratch").iterdir()), "what was read is gone"


def test_another_attempt_plans_no_more_and_chooses_only_in_the_blocks_that_are_left(
    folder: Path, method: Halving, tmp_path: Path
) -> None:
    refit = 0.5
    whole = halve(folder, tmp_path / "whole", refit)

    with pytest.raises(WorkStopped):
        halve(folder, tmp_path / "one", refit, progress=Watching(stop_after=3))
    planned = method.planned
    method.pruned_blocks = []
    again = halve(folder, tmp_path / "two", refit, previous=[tmp_path / "one"])
    assert method.planned == planned and method.pruned_blocks == [3]
    assert [file.read_bytes() for file in again.files] == [file.read_bytes() for file in whole.files]
    assert again.notes == whole.notes and again.refits == whole.refits


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5), far=st.sampled_from([0, 1e4])
)
def test_moments_of_parts_are_those_of_all_tokens(seed: int, sizes: list[int], far: float) -> None:
    """Also where the mean is ten thousand standard deviations away; distances from it are rounded to float32."""
    X_NI = torch.randn(sum(sizes), 3, generator=torch.Generator().manual_seed(seed)) + far
    moments = InputMoments()
    for part in X_NI.split(sizes):
        moments.update(part[None])
    X_NI = X_NI.double()
    torch.testing.assert_close(moments.mean_I, X_NI.mean(0), atol=1e-7, rtol=1e-5)
    variance_I = X_NI.var(0) if len(X_NI) > 1 else torch.zeros(3, dtype=torch.float64)
    torch.testing.assert_close(moments.variance_I, variance_I, atol=1e-7, rtol=1e-5)
    torch.testing.assert_close(moments.mean_square_I, X_NI.square().mean(0), atol=1e-7, rtol=1e-5)
