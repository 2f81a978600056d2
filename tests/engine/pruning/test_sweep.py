"""The sweep: propagation, resuming, spilling, allocation, skipping."""

import math
import shutil
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.engine.evaluation.perplexity_ratio import ratio_stderr
from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.block_choice import RecordedGaps
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.propagation import BlockPropagation, DenseReference, InputGroup
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.kinds import BLOCK, STATE
from core.engine.resume.store import ResumeStore
from core.progress import WorkStopped
from secateur_wire.errors import InvalidParameters, NotFiniteWeights
from tests.engine.resuming import positions
from tests.engine.sweeping import last_hidden, newest_stream, save, sweep, tensors_of
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

FLOAT32 = {"forward_dtype": "float32"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model", num_hidden_layers=4)


def test_in_flight_and_two_pass_see_the_same_of_the_dense_model(model: Path, tmp_path: Path) -> None:
    """The dense block reads the dense stream, here of other tokens than the pruned one, and both go on."""
    opened = open_model(model)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    groups = [InputGroup(names) for names in opened.family.inputs]
    found = []
    for walk in (BlockPropagation.prune_in_flight, BlockPropagation.prune_two_pass):
        kept, seen = ResumeStore(tmp_path / walk.__name__, ""), dict[InputGroup, InputStatistic]()
        dense, pruned = (
            Stream(f"{seed}", make_tokens(seed=seed), streamed, kept, ActivationBudget(2**30), dtype=torch.float32,
                   micro_batch=4)
            for seed in (1, 2)
        )  # fmt: skip
        with torch.inference_mode():
            dense.start(), pruned.start()
            block = streamed.fill_block(0, streamed.read_block(0), torch.float32)
            twin = DenseReference(deepcopy(block), dense, 0, opened.family.added_to_stream)
            propagation = BlockPropagation(
                block, 0, pruned, groups, lambda: InputStatistic(Statistic.GRAM, sample_stride=1), twin
            )
            walk(propagation, seen.__setitem__)
        targets = [(seen[group], seen[group].target_OI) for group in groups]
        figures = [statistic.cross_II if target is None else target for statistic, target in targets]
        found.append([*figures, *(hidden for stream in (dense, pruned) for _, hidden in stream.batches())])
        assert dense.done == pruned.done == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_recorded_stream_has_the_target_of_a_layer_behind_those_that_go(model: Path, tmp_path: Path) -> None:
    """Layer 2 is dropped, so that layer 1 aims at what the dense model has behind layer 2; states are in files."""
    streamed = StreamedModel(open_model(model), dtype=torch.float32, device=torch.device("cpu"))
    given: dict[str, Any] = {"dtype": torch.float32, "micro_batch": 4, "resumable": False}
    plain = Stream("plain", make_tokens(), streamed, ResumeStore(tmp_path, ""), ActivationBudget(2**30), **given)
    recorded = Stream(
        "recorded", make_tokens(), streamed, ResumeStore(tmp_path / "states", ""), ActivationBudget(0), **given,
        keeps_all=True,
    )  # fmt: skip
    with torch.inference_mode():
        recorded.pass_blocks("passing")
        recorded.start()
        (target,) = RecordedGaps(recorded, streamed, [0, 1, 3]).targets(1, torch.nn.Identity()).values()
        plain.start()
        for index, block in streamed.filled_blocks(range(3), "passing", torch.float32):
            plain.advance(block, index)
        for (_, expected), (_, hidden) in zip(plain.batches(), target.batches(), strict=True):
            torch.testing.assert_close(hidden, expected)


@pytest.mark.parametrize("propagation", ["in_flight", "two_pass"])
def test_what_goes_on_through_the_model_is_what_is_saved(propagation: str, tmp_path: Path) -> None:
    """Weights are rounded to the dtype of the checkpoint, whatever the forwards are computed in."""
    folder = make_model(tmp_path / "model", dtype=torch.bfloat16)
    result = sweep(
        folder, tmp_path / "work", calibration=make_tokens(), method="sparsegpt", sparsity=0.5,
        parameters=FLOAT32 | {"propagation": propagation},
    )  # fmt: skip
    assert {tensor.dtype for tensor in tensors_of(result).values()} == {torch.bfloat16}
    saved = save(result, folder, tmp_path / "saved")
    went_on = newest_stream(tmp_path / "work", "calibration")
    torch.testing.assert_close(went_on, last_hidden(saved, make_tokens()), atol=1e-4, rtol=1e-4)


def test_micro_batches_in_lockstep_equal_one_batch(model: Path, tmp_path: Path) -> None:
    whole, parts = (
        tensors_of(
            sweep(
                model, tmp_path / f"{size}", calibration=make_tokens(), method="wanda", sparsity=0.5,
                parameters=FLOAT32 | {"micro_batch": size},
            )
        )
        for size in (6, 1)
    )  # fmt: skip
    for name, tensor in whole.items():
        assert ((tensor == 0) == (parts[name] == 0)).float().mean() > 0.99
        kept = (tensor != 0) & (parts[name] != 0)
        torch.testing.assert_close(tensor[kept], parts[name][kept])


@pytest.mark.parametrize("damage", ["activation", "block", "state"])
def test_a_damaged_record_is_not_trusted(model: Path, damage: str, tmp_path: Path) -> None:
    request: dict[str, Any] = {"calibration": make_tokens(), "method": "wanda", "sparsity": 0.5}
    sweep(model, tmp_path / "one", **request)
    newest = positions(tmp_path / "one", BLOCK)[-1]
    broken = {
        "activation": next(newest.glob("calibration-*")), "block": newest.parent / "lasting" / "00003.safetensors",
        "state": newest / STATE,
    }[damage]  # fmt: skip
    content = bytearray(broken.read_bytes())
    content[len(content) // 2] ^= 255
    broken.write_bytes(content)
    again = sweep(model, tmp_path / "two", previous=[tmp_path / "one"], **request)
    assert again.resumed_from == 3
    assert not any("starts over" in note for note in again.notes)


def test_other_settings_start_over_and_say_so(model: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {"calibration": make_tokens(), "method": "wanda", "sparsity": 0.5}
    sweep(model, tmp_path / "one", **request)
    torch.set_num_threads(2)
    again = sweep(model, tmp_path / "two", previous=[tmp_path / "one"], **request)
    assert again.resumed_from == 0
    assert any("starts over" in note for note in again.notes)


def test_only_two_records_are_kept(model: Path, tmp_path: Path) -> None:
    sweep(model, tmp_path / "work", calibration=make_tokens(), method="wanda", sparsity=0.5)
    assert [int(path.name) for path in positions(tmp_path / "work", BLOCK)] == [3, 4]


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_sparsity_zero_returns_the_model_unchanged(model: Path, method: str, tmp_path: Path) -> None:
    result = sweep(model, tmp_path / "work", calibration=make_tokens(), method=method, sparsity=0.0)
    dense = load_file(model / "model.safetensors")
    assert all(torch.equal(tensor, dense[name]) for name, tensor in tensors_of(result).items())


def test_owl_keeps_the_mean_and_differs_between_layers(model: Path, tmp_path: Path) -> None:
    result = sweep(
        model, tmp_path / "work", calibration=make_tokens(), method="wanda", sparsity=0.6,
        parameters={"allocation": "owl", "owl_outlier_ratio": 2.0},
    )  # fmt: skip
    assert sum(result.sparsities) / 4 == pytest.approx(0.6, abs=1e-12)
    assert 0.01 < max(result.sparsities) - min(result.sparsities) <= 0.16 + 1e-9


def test_an_explicit_list_gives_each_layer_its_own_sparsity(model: Path, tmp_path: Path) -> None:
    wanted = [0.25, 0.5, 0.0, 0.75]
    result = sweep(
        model, tmp_path / "work", calibration=None, method="magnitude", sparsity=0.375,
        parameters={"allocation": wanted},
    )  # fmt: skip
    for row in result.layers:
        assert row.sparsity == pytest.approx(wanted[row.layer], abs=0.001)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", [0.5, 0.999])
def test_scope_model_removes_exactly_the_globally_smallest(dtype: torch.dtype, sparsity: float, tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", dtype=dtype)
    parameters = {"scope": "model"}
    work = tmp_path / "work"
    result = sweep(folder, work, calibration=None, method="magnitude", sparsity=sparsity, parameters=parameters)
    dense, pruned = load_file(folder / "model.safetensors"), tensors_of(result)
    names = [f"{row.name}.weight" for row in result.layers]
    before = torch.cat([dense[name].abs().float().flatten() for name in names])
    after = torch.cat([pruned[name].float().flatten() for name in names])
    count = round(sparsity * len(before))
    assert int((after == 0).sum()) == max(count, int((before == 0).sum()))
    order = before.sort(stable=True).indices
    assert (after[order[:count]] == 0).all()


def test_skipped_layers_and_modules_stay_dense(model: Path, tmp_path: Path) -> None:
    result = sweep(
        model, tmp_path / "work", calibration=make_tokens(), method="sparsegpt", sparsity=0.5,
        parameters={"skip_layers": [1], "skip_modules": ["q_proj", "model.layers.2.mlp.*"]},
    )  # fmt: skip
    pruned = {row.name for row in result.layers}
    assert not any(".layers.1." in name or name.endswith("q_proj") or ".layers.2.mlp" in name for name in pruned)
    for name, tensor in tensors_of(result).items():
        if name.removesuffix(".weight") not in pruned:
            assert (tensor == 0).sum() == 0


def test_the_head_is_pruned_where_asked_and_untied(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", "llama-untied")
    result = sweep(
        folder, tmp_path / "work", calibration=make_tokens(), evaluations={"text": make_tokens(seed=9)},
        method="sparsegpt", sparsity=0.5, parameters={"include_lm_head": True},
    )  # fmt: skip
    assert float((tensors_of(result)["lm_head.weight"] == 0).float().mean()) == 0.5
    assert result.layers[-1].name == "lm_head" and result.layers[-1].reconstruction_error is not None


def test_a_tied_head_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameters, match="shares its weights with the embeddings"):
        sweep(model, tmp_path, calibration=None, method="magnitude", sparsity=0.5, parameters={"include_lm_head": True})


def test_nan_weights_are_named(model: Path, tmp_path: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    tensors["model.layers.2.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(NotFiniteWeights, match=r"model\.layers\.2\.mlp\.up_proj\.weight.* 1 values"):
        sweep(model, tmp_path / "work", calibration=make_tokens(), method="wanda", sparsity=0.5)


def test_the_same_seed_gives_the_same_tensors_and_another_seed_others(model: Path, tmp_path: Path) -> None:
    def tensors(seed: int, place: str) -> list[bytes]:
        result = sweep(
            model, tmp_path / place, calibration=None, method="random", sparsity=0.5, parameters={"seed": seed}
        )
        shutil.rmtree(positions(tmp_path / place, BLOCK)[-1])
        return [file.read_bytes() for file in result.files]

    assert tensors(1, "a") == tensors(1, "b") != tensors(2, "c")


SETS = {"first": make_tokens(seed=1), "second": make_tokens(seed=2)}


@pytest.mark.parametrize("names", [["first"], ["first", "second"]], ids=len)
def test_where_the_dense_perplexity_is_known_it_is_not_measured_and_nothing_else_changes(
    model: Path, names: list[str], tmp_path: Path
) -> None:
    request: dict[str, Any] = {
        "calibration": make_tokens(), "evaluations": SETS, "method": "llm-pruner", "sparsity": 0.25
    }  # fmt: skip
    alone = sweep(model, tmp_path / "alone", **request)
    known = {name: alone.perplexity[name].measured_dense for name in names}
    told = sweep(model, tmp_path / "told", dense_perplexity=known, **request)
    assert told.perplexity == alone.perplexity
    assert all((each.ratio_stderr or 0) > 0 for each in told.perplexity.values())
    wrong = {name: replace(each, value=2 * each.value) for name, each in known.items()}
    believed = sweep(model, tmp_path / "wrong", dense_perplexity=wrong, **request)
    assert all(believed.perplexity[name].dense == wrong[name].value for name in names)
    ours, theirs = tensors_of(told), tensors_of(alone)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_error_of_a_ratio_is_that_of_its_windows_in_pairs() -> None:
    dense, gains = [2.0, 3.0, 2.5, 4.0], [0.1, 0.2, 0.1, 0.2]
    pruned = [loss + gain for loss, gain in zip(dense, gains, strict=True)]
    # Of the logarithm: a deviation of 0.1 / √3 over √4 windows, around a mean of 0.15.
    assert ratio_stderr(dense, pruned) == pytest.approx(math.exp(0.15) * 0.1 / math.sqrt(3) / 2)
    assert ratio_stderr(dense, dense) == 0.0
    for other in (pruned[:3], [], [*pruned[:3], math.inf]):
        assert ratio_stderr(dense, other) is None and ratio_stderr(dense[:3], pruned[:3]) is None


def test_an_attempt_that_knew_more_or_less_is_not_continued(model: Path, tmp_path: Path) -> None:
    """Its records lack streams that are needed now, or have others."""
    request: dict[str, Any] = {"calibration": make_tokens(), "evaluations": SETS, "method": "wanda", "sparsity": 0.25}
    alone = sweep(model, tmp_path / "alone", **request)
    known = {"first": alone.perplexity["first"].measured_dense}
    with pytest.raises(WorkStopped):
        sweep(model, tmp_path / "before", dense_perplexity=known, progress=Watching(stop_after=1), **request)
    before = [tmp_path / "before"]
    again = sweep(model, tmp_path / "again", dense_perplexity=known, previous=before, **request)
    assert again.resumed_from == 1 and again.perplexity == alone.perplexity
    other = sweep(model, tmp_path / "other", previous=before, **request)
    assert other.resumed_from == 0 and other.perplexity == alone.perplexity
