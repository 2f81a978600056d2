"""Recovery: zeros stay zero, what is saved is what was trained, and an interruption changes nothing."""

import json
import socket
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench.architectures.tiny_configs import tiny_model
from core.engine.models.folder import open_model
from core.engine.pruning.streams.measure import measure
from core.engine.recovery.adapters import add_adapters, merge_adapters
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.language import Recovered
from core.engine.recovery.request import Recovery
from core.engine.recovery.trainable import Teacher, ZeroPattern
from core.engine.recovery.training import Pace, Training, rate
from core.engine.resume.kinds import STEP
from core.progress import WorkStopped
from secateur_wire.errors import InvalidRequest, UnsupportedArchitecture, ZerosRefilled
from secateur_wire.recovery import Lora
from tests.engine.apart import Apart
from tests.engine.crossing import crossed
from tests.engine.recovering import SHARED, linears_of, make_pruned, save, tiny_lora, train, train_among
from tests.engine.resuming import positions
from tests.engine.sweeping import sweep
from tests.engine.tiny import make_model, make_tokens
from tests.engine.watching import Watching

METHODS: dict[str, dict[str, Any]] = {
    "finetune": {"method": "finetune"},
    "lora": {"method": "lora", "lora": tiny_lora()},
    "distill": {"method": "distill", "lora": tiny_lora(), "temperature": 2.0},
    "distill everything": {"method": "distill", "lora": None, "hidden_states": 0.5},
}


def recipe(name: str, **changes: Any) -> Recovery:
    given = {"steps": 8, "batch_size": 4, "learning_rate": 3e-3, "seed": 1, "checkpoint_every": 3}
    return Recovery(**(METHODS[name] | given | changes))


def teacher_for(name: str, folder: Path) -> Teacher | None:
    return Teacher(open_model(folder), "dense") if name.startswith("distill") else None


@crossed("family, method", ["phi3", "gpt2"], list(METHODS))
def test_every_zero_stays_and_the_result_loads(family: str, method: str, tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned", family, dtype=torch.bfloat16)
    dense = make_model(tmp_path / "dense", family, dtype=torch.bfloat16)
    recovered = train(source, tmp_path / "work", recipe(method, steps=3), teacher=teacher_for(method, dense))
    target = save(recovered, source, tmp_path / "out")
    before, after = load_file(source / "model.safetensors"), load_file(target / "model.safetensors")
    family_of, linears = open_model(source).family, {f"{name}.weight" for name in linears_of(source)}
    changed = 0
    for key, weight in after.items():
        assert weight.dtype == torch.bfloat16
        if family_of.module_name(key) in linears:
            assert not ((before[key] == 0) & (weight != 0)).any()
        changed += not torch.equal(before[key], weight)
    assert changed >= len(linears)
    assert all(first > 0 and second >= first for first, second in recovered.zeros.values())
    model, loading = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not any(loading.values())
    if METHODS[method].get("lora"):
        frozen = {name for name, _ in model.named_parameters()} - linears
        assert {family_of.module_name(entry.name) for entry in recovered.unchanged} == frozen


def test_merged_adapters_are_the_model_that_was_trained(tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned", "gpt2")
    tokens = make_tokens(2)
    model = AutoModelForCausalLM.from_pretrained(source).eval()
    zeros = {name: each == 0 for name, each in model.named_parameters() if each.dim() == 2}
    before = model(tokens).logits
    adapted = add_adapters(model, tiny_lora(), linears_of(source), transposed=True).eval()
    assert torch.equal(adapted(tokens).logits, before), "B starts at zero"
    with torch.no_grad():
        for name, each in adapted.named_parameters():
            if "lora_B" in name:
                each.normal_(std=0.1)
        trained = adapted(tokens).logits
        merged = merge_adapters(adapted)
        assert not torch.allclose(trained, before, atol=1e-2)
        torch.testing.assert_close(merged(tokens).logits, trained, rtol=1e-4, atol=1e-4)
    for name, each in merged.named_parameters():
        if name in zeros:
            assert (each[zeros[name]] == 0).all(), name


@pytest.mark.parametrize("method", ["finetune", "distill", "distill everything"])
def test_stopped_and_taken_up_again_it_ends_with_the_same_bytes(method: str, tmp_path: Path) -> None:
    dtype = torch.float32 if METHODS[method].get("lora") else torch.bfloat16
    source, dense = (make(tmp_path / name, dtype=dtype) for make, name in ((make_pruned, "a"), (make_model, "b")))
    asked, teacher = recipe(method), teacher_for(method, dense)
    whole = train(source, tmp_path / "whole", asked, teacher=teacher)
    first, then = Watching(stop_after=4), Watching()
    with pytest.raises(WorkStopped):
        train(source, tmp_path / "first", asked, teacher=teacher, progress=first)
    assert first.done == [1, 2, 3, 4, 5], "it stops after the step that was under way"
    second = train(
        source, tmp_path / "second", asked, teacher=teacher, previous=[tmp_path / "nothing", tmp_path / "first"],
        progress=then,
    )  # fmt: skip
    assert second.resumed_from == 5 and then.logs == ["continuing after step 5 of 8"]
    assert second.losses == whole.losses and second.hidden_errors == whole.hidden_errors
    assert len(whole.hidden_errors) == (8 if asked.hidden_states else 0)
    assert contents(second) == contents(whole)


def test_activations_are_kept_or_computed_again_to_the_same_bytes(tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned", dtype=torch.bfloat16)
    again, kept = (
        train(source, tmp_path / str(budget), recipe("finetune", steps=2), activation_budget_bytes=budget)
        for budget in (0, 2**30)
    )
    assert contents(again) == contents(kept)


def test_what_the_clock_ends_has_a_rate_of_nearly_zero_then_and_goes_on_with_the_time_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pace(recovery: Recovery) -> Pace:
        """Return the pace by a clock on which a second has passed whenever it is looked at."""
        return Pace(recovery, map(float, count(1)).__next__)

    monkeypatch.setattr("core.engine.recovery.training.Pace", pace)
    source = make_pruned(tmp_path / "pruned")
    rates: list[float] = []
    original = Pace.rate
    monkeypatch.setattr(Pace, "rate", lambda self, step: rates.append(original(self, step)) or rates[-1])
    recovery = recipe("finetune", steps=12, learning_rate=1e-5, minutes=0.1)
    whole = train(source, tmp_path / "whole", recovery)
    assert (len(whole.losses), whole.ending) == (6, "minutes")
    assert whole.loss_seconds == list(range(1, 7)) and len(rates) >= 6
    assert rates[-1] < 2e-6
    with pytest.raises(WorkStopped):
        train(source, tmp_path / "first", recovery, progress=Watching(stop_after=3))
    second = train(source, tmp_path / "second", recovery, previous=[tmp_path / "first"])
    assert second.resumed_from == 4 and contents(second) == contents(whole)
    assert (second.losses, second.loss_seconds) == (whole.losses, whole.loss_seconds)


def test_a_checkpoint_that_is_damaged_or_of_other_settings_is_not_used(tmp_path: Path) -> None:
    source = make_pruned(tmp_path / "pruned")
    whole = train(source, tmp_path / "whole", recipe("lora"))
    (kept,) = positions(tmp_path / "whole", STEP)
    assert int(kept.name) == 8, "the newest alone"
    watching = Watching()
    train(source, tmp_path / "other", recipe("lora", seed=2), previous=[tmp_path / "whole"], progress=watching)
    assert "other settings" in watching.logs[0]
    moments = kept / "moments.safetensors"
    moments.write_bytes(moments.read_bytes()[:-1] + b"\1")
    again = train(source, tmp_path / "again", recipe("lora"), previous=[tmp_path / "whole"], progress=watching)
    assert "damaged" in watching.logs[1] and again.resumed_from == 0
    assert contents(again) == contents(whole)


def contents(recovered: Recovered) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in recovered.files}


def test_a_zero_that_came_back_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_pruned(tmp_path / "pruned")
    for name in ("after_backward", "after_step"):
        monkeypatch.setattr(ZeroPattern, name, lambda self, step: None)
    with pytest.raises(ZerosRefilled, match=r"model\.layers\.0\.self_attn\.q_proj"):
        train(source, tmp_path / "work", recipe("finetune"))


def test_the_batch_does_not_depend_on_how_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_pruned(tmp_path / "pruned")
    whole = train(source, tmp_path / "whole", SHARED)
    monkeypatch.setattr("core.engine.recovery.request.TRAINING_TOKENS", 24)
    parts = train(source, tmp_path / "parts", SHARED)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)


def test_two_processes_do_the_work_of_one(tmp_path: Path, apart: type[Apart]) -> None:
    source = make_pruned(tmp_path / "pruned")
    alone = train(source, tmp_path / "alone", SHARED)
    work = tmp_path / "work"
    work.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [apart(train_among, rank, 2, port, source, work) for rank in (0, 1)]
    for process in processes:
        process.wait()
    first, second = (json.loads((work / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and first["processes"] == 2
    assert first["losses"] == pytest.approx(alone.losses, rel=1e-4)
    assert first["losses"][-1] < first["losses"][0]
    for file in alone.files:
        mine, theirs = load_file(file), load_file(work / "recovered" / file.name)
        for name, weight in mine.items():
            assert torch.equal(weight == 0, theirs[name] == 0), name
            torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=1e-3)


def test_a_forward_walk_measures_what_the_sweep_measures(tmp_path: Path) -> None:
    source, text = make_pruned(tmp_path / "pruned"), make_tokens(5)
    swept = sweep(source, tmp_path / "sweep", calibration=None, evaluations={"text": text}, method="recover")
    for number, budget in enumerate((2**30, 0)):
        measured = measure(
            open_model(source), {"text": text}, work=tmp_path / str(number), device=torch.device("cpu"),
            activation_budget_bytes=budget,
        )  # fmt: skip
        assert measured.perplexity["text"] == swept.perplexity["text"].pruned == swept.perplexity["text"].dense
        assert measured.verification.read_bytes() == swept.verification.read_bytes()
    assert {row.sparsity for row in swept.layers} == {0.5}


def test_the_rate_rises_in_a_line_and_falls_to_zero() -> None:
    for schedule in ("cosine", "linear"):
        asked = Recovery(method="lora", steps=100, warmup_ratio=0.1, learning_rate=1.0, schedule=schedule)
        rates = [rate(step, asked) for step in range(100)]
        assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
        assert rates[10] == 1.0 and rates[9:] == sorted(rates[9:], reverse=True) and 0 < rates[99] < 0.02
        assert rates[55] == pytest.approx(0.5, abs=0.01)


def test_every_sequence_is_seen_once_before_any_is_seen_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[int]] = []
    original = Training.batch
    monkeypatch.setattr(Training, "batch", lambda self, step: batches.append(original(self, step)) or batches[-1])
    train(make_pruned(tmp_path / "pruned"), tmp_path / "work", recipe("lora", steps=5), make_tokens(10))
    seen = [number for batch in batches for number in batch]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10)) and seen[:10] != seen[10:20]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"method": "finetune", "lora": {}}, "recovery.lora"),
        ({"method": "lora", "temperature": 1.0}, "recovery.temperature"),
        ({"method": "finetune", "own_text": 0.5}, "recovery.own_text"),
        ({"method": "lora", "sequence_length": 65}, "recovery.sequence_length"),
    ],
)
def test_what_does_not_apply_is_refused_by_name(asked: dict[str, Any], param: str, tmp_path: Path) -> None:
    description = open_model(make_model(tmp_path / "model")).description
    with pytest.raises(InvalidRequest) as caught:
        complete_recovery(Recovery.model_validate(asked), description)
    assert caught.value.param == param and caught.value.message.startswith(param)


def test_a_teacher_is_needed_and_must_have_all_tokens(tmp_path: Path) -> None:
    source, other = make_pruned(tmp_path / "pruned"), make_model(tmp_path / "other", vocab_size=64)
    for teacher in (None, Teacher(open_model(other), "x")):
        with pytest.raises(InvalidRequest) as caught:
            train(source, tmp_path / "work", recipe("distill"), teacher=teacher)
        assert caught.value.param == "recovery.teacher"


def test_adapters_that_the_model_s_own_code_may_pass_by_are_refused() -> None:
    model = tiny_model("mamba", seed=0)
    with pytest.raises(UnsupportedArchitecture, match=r"adapters cannot be added to MambaForCausalLM.*out_proj"):
        add_adapters(model, Lora(), ["backbone.layers.0.mixer.out_proj"], transposed=False)


def test_defaults_are_those_of_the_papers_and_completing_twice_changes_nothing(tmp_path: Path) -> None:
    description = open_model(make_model(tmp_path / "model")).description
    expected = {"finetune": (None, 2e-5), "lora": (Lora(), 1e-4), "distill": (Lora(), 1e-4)}
    for method, (lora, learning_rate) in expected.items():
        first = complete_recovery(Recovery.model_validate({"method": method}), description, 32)
        assert (first.lora, first.learning_rate, first.sequence_length) == (lora, learning_rate, 32)
        assert complete_recovery(Recovery.model_validate(first.model_dump()), description) == first
    everything = complete_recovery(Recovery.model_validate({"method": "distill", "lora": None}), description)
    assert everything.lora is None and everything.learning_rate == 2e-4 and everything.temperature == 1.0
    assert (everything.train_embeddings, everything.own_text, everything.hidden_states) == (False, 0.25, 0.0)
    assert everything.label_weight == 0.0
    smaller = complete_recovery(Recovery.model_validate({"method": "distill"}), description, loses_units=True)
    assert smaller.lora is None and complete_recovery(smaller, description) == smaller
    by_clock = complete_recovery(Recovery.model_validate({"method": "finetune", "minutes": 2}), description)
    assert by_clock.steps == 100_000 and complete_recovery(by_clock, description) == by_clock
    assert (Lora().r, Lora().alpha, Lora().dropout) == (8, 16, 0.05)
