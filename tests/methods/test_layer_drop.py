"""Layers that the structured frontier drops, and shapes within a limit of cost: the least worth goes, no others."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForCausalLM

from core.counting import finished_share
from core.engine.architectures.describe import inspect_folder
from core.engine.architectures.description import require_structure
from core.engine.architectures.unit_counts import CostLimit
from core.engine.architectures.units import removed_kinds
from core.engine.cuts import WorthTable
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.results import PruneResult, UnitRow
from core.engine.pruning.streams.block_gradients import backward_blocks
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.stream import Stream
from core.engine.removals.shape_program import program_of
from core.engine.removals.widths import offered_units, plan_width_reduction
from core.engine.resume.kinds import SELECTION
from core.engine.resume.store import ResumeStore
from core.methods.descriptions.frontier import StructuredFrontierParameters, find_local_minimum, most_trials
from core.methods.frontier import output_metric, search, structured
from core.methods.frontier.output_metric import RunCosts
from core.methods.frontier.search import divergence, least_costly
from core.methods.frontier.structured import StructuredFrontier
from core.pipeline.plans import walk_for
from secateur_wire.errors import InvalidParameters, TargetUnreachable
from tests.engine.apart import Apart
from tests.engine.pruning.test_structured import edit
from tests.engine.reloading import reload_with_code
from tests.engine.resuming import saved_state
from tests.engine.sweeping import request_for, tensors_of
from tests.engine.tiny import architecture_of, make_model, make_tokens
from tests.engine.watching import Watching
from tests.methods.test_structured_frontier import FITTED, cut

LAYERS = 6
IDLE = 2


def model_of(folder: Path, *idle: int) -> Path:
    """Save a model of which these layers add nothing to the residual stream, the others much."""
    make_model(folder, num_hidden_layers=LAYERS)
    outputs = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
    edit(
        folder,
        {
            f"model.layers.{layer}.{name}": (lambda weight, layer=layer: weight.mul_(0 if layer in idle else 4))
            for layer in range(LAYERS)
            for name in outputs
        },
    )
    return folder


def dropped(result: PruneResult) -> list[int]:
    return [row.layer for row in result.layers if isinstance(row, UnitRow) and row.kind == "layer"]


def share_of_blocks(folder: Path, share: float) -> float:
    description = inspect_folder(folder)
    assert description.structure is not None
    return share * description.structure.parameters / description.parameters


def test_a_layer_that_does_nothing_goes_and_channels_make_up_the_rest(tmp_path: Path, apart: type[Apart]) -> None:
    folder = model_of(tmp_path / "model", IDLE)
    layout, sparsity = "per_layer", share_of_blocks(folder, 0.4)
    artifact, whole = cut(folder, tmp_path / "whole", layout, sparsity)
    reloaded = apart(reload_with_code, [(artifact, whole.verification)])
    assert dropped(whole) == [IDLE]
    description = inspect_folder(folder)
    assert abs(whole.removed - sparsity * description.parameters) <= 2 * 3 * description.hidden_size
    assert description.parameters - inspect_folder(artifact, own_artifact=True).parameters == whole.removed
    (note,) = [each for each in whole.notes if each.startswith("Whole layers")]
    assert note.endswith(f"Taken: without layer {IDLE}.")
    reloaded.wait()


def test_no_layer_goes_where_all_do_much(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model")
    _, result = cut(folder, tmp_path / "work", "per_layer", share_of_blocks(folder, 0.4))
    assert dropped(result) == []
    assert any(each.endswith("Taken: all layers.") for each in result.notes)


def test_as_many_layers_go_as_are_asked_for_and_fit(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", 1, 4)
    sparsity = share_of_blocks(folder, 0.4)
    _, result = cut(folder, tmp_path / "work", "uniform", sparsity, {"drop_layers": 2})
    assert dropped(result) == [1, 4]
    parameters = StructuredFrontierParameters(drop_layers=3)
    with pytest.raises(InvalidParameters, match="at most 2 whole layers can go, not 3"):
        plan_width_reduction(inspect_folder(folder), parameters, sparsity)


def test_the_last_layer_before_one_that_goes_aims_at_the_stream_behind_it(tmp_path: Path) -> None:
    folder, family = make_model(tmp_path / "model", "gpt2", n_layer=4), architecture_of("gpt2")
    description, source = inspect_folder(folder), open_model(folder)
    assert description.structure is not None
    share = description.structure.layers[0].parameters / description.parameters

    def states(model: Path) -> tuple[Tensor, ...]:
        with torch.no_grad():
            output = AutoModelForCausalLM.from_pretrained(model)(input_ids=FITTED, output_hidden_states=True)
        return tuple(output.hidden_states)

    dense, away = states(folder), []
    for refit in (0.0, 0.5, 1.0):
        parameters = {"drop_layers": 1, "protected_first": 1, "protected_last": 1, "refit": refit, "ridge": 0.001}
        artifact, result = cut(folder, tmp_path / f"{refit}", "per_layer", share, parameters)
        (gone,) = dropped(result)
        before = [f"{family.blocks}.{layer}." for layer in range(gone)]
        left = {each: value for each, value in tensors_of(result).items() if each.startswith(tuple(before))}
        changed = [each for each, value in left.items() if not torch.equal(value, source.read(each))]
        assert changed == ([f"{before[-1]}{next(reversed(family.added_to_stream))}.weight"] if refit else [])
        away.append(float((states(artifact)[gone] - dense[gone + 1]).norm()))
    assert away[2] < 0.9 * away[0], away
    assert away[1] ** 2 == pytest.approx(away[0] ** 2 / 4 + away[2] ** 2 * 3 / 4, rel=0.01), "half of the way"


def test_trials_are_measured_by_the_divergence_of_the_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that prunes as the pass, on the tokens it is measured on, has the divergence of what the pass leaves.

    Trials are a part of the progress, between measurements and the pass, and each moves it.
    """
    seen: list[tuple[float, Tensor]] = []
    shares: list[float] = []
    watching = Watching()
    folder, tokens = model_of(tmp_path / "model", IDLE), FITTED[:4]
    monkeypatch.setattr(search.Trials, "_fitting_sequences", lambda self: self._calibration())
    monkeypatch.setattr(structured, "_Trial", lambda parameters, costs: StructuredFrontier(parameters))

    def watch(streamed: StreamedModel, batches: Sequence[Tensor], *models: Any) -> float:
        found = divergence(streamed, batches, *models)
        seen.append((found, torch.cat(list(batches))))
        shares.append(finished_share())
        return found

    monkeypatch.setattr(search, "divergence", watch)
    artifact, _ = cut(
        folder, tmp_path / "work", "uniform", share_of_blocks(folder, 0.4), calibration=tokens, progress=watching
    )
    assert shares == sorted(shares) and 0 < shares[-1] < 1
    (_, measured), (tried_from, tried), (blocks_from, _), *_ = watching.parts
    assert 0 < measured == tried_from < tried == blocks_from < 1
    with torch.no_grad():
        dense, left = (
            AutoModelForCausalLM.from_pretrained(each)(input_ids=seen[-1][1]).logits.log_softmax(dim=-1)
            for each in (folder, artifact)
        )
    expected = float((dense.exp() * (dense - left)).sum(dim=-1).mean())
    assert min(each for each, _ in seen[1:]) == pytest.approx(expected, rel=1e-3)


MOST = 7


def runs_of(layers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return where each run of adjacent layers begins, and ends before."""
    places = [[layer for _, layer in run] for _, run in groupby(enumerate(layers), key=lambda each: each[1] - each[0])]
    return [(run[0], run[-1] + 1) for run in places]


def total(layers: tuple[int, ...], cost: Callable[[int, int], float]) -> float:
    return sum(cost(first, end) for first, end in runs_of(layers))


@given(st.integers(0, 2**31 - 1), st.integers(2, MOST), st.integers(0, MOST), st.sets(st.integers(0, MOST - 1)))
def test_no_other_set_of_so_many_layers_costs_less(seed: int, layers: int, number: int, staying: set[int]) -> None:
    costs = torch.rand(MOST, MOST + 1, generator=torch.Generator().manual_seed(seed)).tolist()
    staying = {each for each in staying if each < layers}

    def cost(first: int, end: int) -> float:
        return float(costs[first][end])

    chosen = least_costly(layers, number, staying, cost)
    free = [layer for layer in range(layers) if layer not in staying]
    assert len(chosen) == min(number, len(free)) and staying.isdisjoint(chosen)
    least = min(total(each, cost) for each in combinations(free, len(chosen)))
    assert total(tuple(chosen), cost) == pytest.approx(least)


@pytest.mark.parametrize("kept", [2048, 20])
def test_a_run_costs_what_its_change_of_the_stream_does_to_the_loss_by_the_whole_models_gradients(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare all tokens where all are kept, every third where fewer are."""
    monkeypatch.setattr(output_metric, "STREAM_TOKENS", kept)
    folder, tokens = make_model(tmp_path / "model", "gpt2"), make_tokens(3, 20)
    streamed = StreamedModel(open_model(folder), dtype=torch.float32, device=torch.device("cpu"))
    layers = len(streamed)
    costs = RunCosts(layers, tokens)
    stream = Stream(
        "gradients", tokens, streamed, ResumeStore(tmp_path / "scratch", ""), ActivationBudget(2**20),
        dtype=torch.float32, micro_batch=1, resumable=False, keeps_all=True,
    )  # fmt: skip
    backward_blocks(stream, [()] * layers, lambda *_: None, on_stream=costs.see)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    blocks = model.get_submodule(open_model(folder).family.blocks)
    streams: list[torch.Tensor] = []
    for block in blocks:
        block.register_forward_pre_hook(lambda _, arguments: streams.append(arguments[0]))
    blocks[-1].register_forward_hook(
        lambda _, __, output: streams.append(output[0] if isinstance(output, tuple) else output)
    )
    labels = tokens[:, 1:]
    logits = model(tokens).logits[:, :-1]
    gradients = torch.autograd.grad(
        torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="sum"), streams
    )
    stride = 1 if kept > tokens.numel() else 3
    predictions = labels.numel() * len(range(0, 20, stride)) / 20
    for end in range(1, layers + 1):
        for first in range(end):
            moved = ((streams[end] - streams[first]) * gradients[end]).sum(dim=-1)[:, ::stride]
            expected = float(moved.detach().square().sum()) / predictions / 2
            assert costs.cost(first, end) == pytest.approx(expected, rel=1e-3, abs=1e-12)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8, unique=True), st.integers(0, 7))
def test_the_descent_ends_at_the_least_where_values_fall_and_then_rise(values: list[int], turn: int) -> None:
    falling, rising = sorted(values[:turn], reverse=True), sorted(values[turn:])
    asked: set[int] = set()

    def value(place: int) -> int:
        asked.add(place)
        return [*falling, *rising][place]

    place = find_local_minimum(len(values), value)
    assert value(place) == min(values)
    assert len(asked) <= most_trials(len(values)), "each place is asked for once, as the values are kept"


CPU = torch.device("cpu")


def parameter_costs(folder: Path, request: Any, share: float) -> CostLimit:
    """Return costs by which a model may have this share of its parameters."""
    description = inspect_folder(folder)
    structure = require_structure(description)
    offered = offered_units(request.cut(description, round_to=2))
    kinds = {kind.name: kind for kind in removed_kinds("kv_groups")}
    units = {
        name: {number: float(number * kinds[name].parameters(structure, 0)) for number in numbers}
        for name, numbers in offered.items()
    }
    rest = structure.layers[0].parameters - sum(max(each.values()) for each in units.values())
    return CostLimit(
        target="memory_bytes", is_ratio=False, basis="its parameters", limit=share * description.parameters,
        dense=description.parameters, fixed=description.parameters - structure.parameters, layer=rest, units=units,
    )  # fmt: skip


def within(
    folder: Path, work: Path, share: float, layout: str = "per_layer", **parameters: Any
) -> tuple[Path, PruneResult]:
    """Prune a model to at most this share of its parameters."""
    work.mkdir(parents=True)
    opened = open_model(folder)
    asked = {"round_to": 2, "forward_dtype": "float32"} | parameters
    request = request_for(opened, "frontier", 0.0, "structured", asked, layout=layout)
    request = replace(request, costs=parameter_costs(folder, request, share))
    walk = walk_for(opened, request, device=CPU, work=work, calibration=FITTED, evaluations={})
    result = walk.run()
    write_checkpoint(result.files, result.unchanged, folder, work / "artifact", config=result.config)
    return work / "artifact", result


def test_the_model_costs_no_more_than_its_limit_and_loses_what_is_worth_least(tmp_path: Path) -> None:
    folder = model_of(tmp_path / "model", IDLE)
    dense = inspect_folder(folder).parameters
    artifact, result = within(folder, tmp_path / "work", 0.8, "uniform")
    left = inspect_folder(artifact, own_artifact=True)
    assert 0.75 * dense < left.parameters <= 0.8 * dense and left.parameters == dense - result.removed
    assert IDLE in dropped(result), "a layer that does nothing costs nothing to drop"
    counts = {row.after for row in result.layers if isinstance(row, UnitRow) and row.kind == "channels"}
    assert left.layout == "uniform" and len(counts) == 1
    assert any("expected to lose" in note for note in result.notes)
    assert any(note.startswith("Whole layers") and "the same cost" in note for note in result.notes)


def test_further_targets_come_from_the_table_of_one_job(tmp_path: Path) -> None:
    """A table that was saved gives the shape that a job of its own would have chosen for another limit."""
    folder = make_model(tmp_path / "model", num_hidden_layers=LAYERS)
    _, first = within(folder, tmp_path / "one", 0.8, drop_layers=0)
    _, second = within(folder, tmp_path / "two", 0.6, drop_layers=0)
    assert first.worth is not None and first.worth == second.worth
    table = WorthTable.model_validate(saved_state(tmp_path / "one", SELECTION)["worth"])
    assert table == first.worth and not table.runs
    opened = open_model(folder)
    request = request_for(opened, "frontier", 0.0, "structured", {"round_to": 2}, layout="per_layer")
    costs = parameter_costs(folder, request, 0.6)
    choice = program_of(table, costs).best(costs.limit)
    assert choice is not None
    chosen = [variants[option].units["channels"] for variants, option in zip(table.layers, choice.options, strict=True)]
    assert chosen == [row.after for row in second.layers if isinstance(row, UnitRow)]
    assert all(each[0].nats == 0 for each in table.layers), "a complete layer loses nothing"
    assert all(one.nats <= other.nats for each in table.layers for one, other in pairwise(each)), (
        "narrower layers lose more"
    )


def test_a_limit_that_no_shape_reaches_is_named_with_the_nearest(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    with pytest.raises(TargetUnreachable, match=r"target.memory_bytes .* the nearest is [\d,]+, by its parameters"):
        within(folder, tmp_path / "work", 0.01)
