"""The sweep: propagation, resuming, spilling, allocation, skipping."""

import shutil
from copy import deepcopy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.engine.models.folder import open_model
from core.engine.models.streamed import StreamedModel
from core.engine.pruning.blocks.trial import RecordedGaps, RecordedStream
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.streams.hidden_state_cache import HiddenStateCache
from core.engine.pruning.streams.propagation import BlockPropagation, DenseReference, InputGroup
from core.engine.pruning.streams.stream import ActivationBudget, Stream
from core.engine.pruning.units.gaps import GapPassing
from core.engine.resume.kinds import BLOCK, STATE
from core.engine.resume.store import ResumeStore
from secateur_wire.errors import InvalidParameters, NotFiniteWeights
from tests.engine.resuming import positions
from tests.engine.sweeping import last_hidden, newest_stream, save, sweep, tensors_of
from tests.engine.tiny import make_model, make_tokens

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


def test_recorded_states_give_the_targets_that_the_dense_block_gives(model: Path, tmp_path: Path) -> None:
    """Some states are in files. Block 2 is dropped, so the target of block 1 lies behind it; no dense block runs."""
    opened = open_model(model)
    streamed = StreamedModel(opened, dtype=torch.float32, device=torch.device("cpu"))
    tokens, kept = make_tokens(), ResumeStore(tmp_path / "kept", "")
    budget = ActivationBudget(3 * tokens.numel() * 32 * 4)
    context: Any = SimpleNamespace(
        streamed=streamed, scratch=tmp_path / "scratch", budget=budget, forward_dtype=torch.float32, micro_batch=4
    )  # fmt: skip
    group = InputGroup((opened.family.sublayers[-1].output,))

    def stream(seed: int) -> Stream:
        return Stream(
            f"{seed}", make_tokens(seed=seed), streamed, kept, ActivationBudget(2**30), dtype=torch.float32,
            micro_batch=4,
        )  # fmt: skip

    remaining = [0, 1, 3]

    def targets(dense: Stream, gaps: GapPassing) -> tuple[list[Tensor], int]:
        """Return the targets with a pruned stream of other tokens, then the dense states, and how often a block ran."""
        pruned, seen, runs = stream(5), list[Tensor](), list[object]()
        dense.start(), pruned.start()

        def see(group: InputGroup, statistic: InputStatistic) -> None:
            assert statistic.target_OI is not None
            seen.append(statistic.target_OI)

        for index, tensors in streamed.read_blocks(range(4), "pruning"):
            if index not in remaining:
                gaps.pass_layer(index, tensors)
                continue
            block = streamed.fill_block(index, tensors, torch.float32)
            targets, watched = gaps.targets(index, block), deepcopy(block)
            watched.register_forward_hook(lambda *given: runs.append(given))
            twin = DenseReference(watched, dense, index, opened.family.added_to_stream, targets)
            new = partial(InputStatistic, Statistic.GRAM, sample_stride=1)
            BlockPropagation(block, index, pruned, [group], new, twin).prune_in_flight(see)
            streamed.empty_block(index)
        assert dense.done == 4
        return [*seen, *(hidden for _, hidden in dense.batches())], len(runs)

    with torch.inference_mode():
        plain = stream(0)
        found, times = targets(plain, GapPassing(plain, streamed, remaining))
        states = HiddenStateCache(budget, tmp_path / "states")
        recorded = RecordedStream(context, tokens, states)
        again, none = targets(recorded, RecordedGaps(recorded, streamed, remaining))
    assert times == 3 * len(plain) and not none
    for one, other in zip(found, again, strict=True):
        torch.testing.assert_close(one, other)
    assert [*(tmp_path / "states").iterdir()]
    states.close()
    assert not budget.used and not [*(tmp_path / "states").iterdir()]


def test_a_stream_that_is_not_resumed_leaves_nothing_behind_on_the_disk(model: Path, tmp_path: Path) -> None:
    streamed = StreamedModel(open_model(model), dtype=torch.float32, device=torch.device("cpu"))
    stream, kept = (
        Stream(name, make_tokens(), streamed, ResumeStore(tmp_path / name, ""), ActivationBudget(limit),
               dtype=torch.float32, micro_batch=4, resumable=False)
        for name, limit in (("spilled", 0), ("held", 2**30))
    )  # fmt: skip
    with torch.inference_mode():
        stream.start(), kept.start()
        for index, block in streamed.filled_blocks(range(3), "passing", torch.float32):
            stream.advance(block, index), kept.advance(block, index)
            assert len([*(tmp_path / "spilled").rglob("*.safetensors")]) == len(stream)
    for (_, read), (_, held) in zip(stream.batches(), kept.batches(), strict=True):
        assert torch.equal(read, held)
    stream.close()
    assert not [each for each in (tmp_path / "spilled").rglob("*") if each.is_file()]
    assert not (tmp_path / "held").exists()


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
    micro_batch = 1
    whole, parts = (
        tensors_of(
            sweep(
                model, tmp_path / f"{size}", calibration=make_tokens(), method="wanda", sparsity=0.5,
                parameters=FLOAT32 | {"micro_batch": size},
            )
        )
        for size in (6, micro_batch)
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
    from safetensors.torch import load_file

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
        model,
        tmp_path / "work",
        calibration=None,
        method="magnitude",
        sparsity=0.375,
        parameters={"allocation": wanted},
    )
    for row in result.layers:
        assert row.sparsity == pytest.approx(wanted[row.layer], abs=0.001)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sparsity", [0.5, 0.999])
def test_scope_model_removes_exactly_the_globally_smallest(dtype: torch.dtype, sparsity: float, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = make_model(tmp_path / "model", dtype=dtype)
    result = sweep(
        folder,
        tmp_path / "work",
        calibration=None,
        method="magnitude",
        sparsity=sparsity,
        parameters={"scope": "model"},
    )
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
    from safetensors.torch import load_file, save_file

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
