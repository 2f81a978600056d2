"""Estimates of device memory: never below what a job takes, and at most 15 % above."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from core.device_kinds import CUDA
from core.engine.checkpoints.safetensors_header import read_header
from core.engine.evaluation import zero_shot_tasks
from core.engine.evaluation.forward_memory import scoring_bytes, timing_bytes
from core.engine.evaluation.latency import measure_latency
from core.engine.evaluation.reload_memory import full_needs
from core.engine.models.folder import ModelFolder, open_model
from core.engine.options.allocation import AllocationOptions
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.request import Recovery
from core.engine.resume.store import ResumeStore
from core.methods.cost import Tokens
from core.methods.registry import get_method
from core.pipeline.messages import PassQuestion, TracedPass
from core.pipeline.pass_trace import trace_pass
from core.pipeline.passes import walk_for
from core.service.jobs.estimates.resources import estimate_resources
from core.service.jobs.pass_traces import traced_pass
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens
from tests.families import every_way, share_of, small_parameters
from tests.recipes import recipe_of
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.jobs import prune_language, recover_language
from tests.simulator.large_models import write_large_model
from tests.sources.conftest import write_wordy_model
from tests.task_questions import write_questions

_MOST = 1.15
"""Largest estimate, to the peak."""
_MOST_OF_TRAINING = 1.17
"""Largest one of training: predictions are taken to be kept as the steps allow; a text may have fewer sequences."""
_VOCABULARY = 1024
_EVALUATION = 2 * 128
_SHAPE = {
    "vocab_size": _VOCABULARY, "hidden_size": 128, "intermediate_size": 344, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 4096,
}  # fmt: skip


def _estimate(
    folder: ModelFolder, method: str, pattern: str, calibration: int, window: int, parameters: dict[str, Any],
    budget: int = 2**30, **body: Any,
) -> int:  # fmt: skip
    """Return the bytes that the product says a job takes on a device, beside the device's context."""
    recipe = recipe_of(method=method, pattern=pattern, sparsity=share_of(pattern), parameters=parameters, **body)
    tokens = Tokens(calibration=calibration, evaluation=_EVALUATION, window=window)
    traced = traced_pass(folder.description, recipe, tokens, CUDA, budget)
    needs = estimate_resources(
        folder.description, recipe, tokens, device=LIKE_CUDA, activation_budget_bytes=budget, is_fetched=False,
        traced_bytes=None if traced is None else trace_pass(question_about(folder, traced)),
    )  # fmt: skip
    assert needs.peak_device_memory_bytes is not None and LIKE_CUDA.context_bytes is not None
    return needs.peak_device_memory_bytes - LIKE_CUDA.context_bytes


def question_about(folder: ModelFolder, traced: TracedPass) -> PassQuestion:
    """Return the question that a worker asks about a pass over a model of plain tensors."""
    files = folder.path.glob("*.safetensors")
    tensors = {name: (each.dtype, each.shape) for file in files for name, each in read_header(file).items()}
    return PassQuestion(config=folder.raw_config, tensors=tensors, traced=traced)


def _check(
    place: Path, method: str, pattern: str, *, sequences: int = 16, layers: int = 2, dtype: Any, **parameters: Any
) -> None:
    source = make_model(place / "model", "llama", dtype=dtype, num_hidden_layers=layers, **_SHAPE)
    parameters = small_parameters(method, pattern, parameters)
    with simulate(LIKE_CUDA) as (_, simulated):
        prune_language(
            source, place / "work", simulated.device, method, pattern,
            calibration=make_tokens(sequences, 128, vocabulary=_VOCABULARY),
            evaluation=make_tokens(2, 128, seed=9, vocabulary=_VOCABULARY), **parameters,
        )  # fmt: skip
        peak = simulated.peak
    estimate = _estimate(open_model(source), method, pattern, sequences * 128, 128, parameters)
    _require_close(estimate, peak)


def _require_close(estimate: int, peak: int, most: float = _MOST) -> None:
    assert peak <= estimate <= most * peak, f"{estimate:,} of {peak:,} bytes, {estimate / peak:.3f}"


@pytest.mark.parametrize(
    ("method", "pattern", "dtype", "parameters"),
    [
        ("wanda", "unstructured", torch.float32, {}),
        ("admm", "unstructured", torch.bfloat16, {"propagation": "two_pass"}),
        ("frontier", "unstructured", torch.bfloat16, {}),
        ("llm-pruner", "structured", torch.bfloat16, {"compensation": {"refit": 0}}),
        ("depth", "structured", torch.bfloat16, {"compensation": {"refit": 0}, "layers": 6, "sequences": 2}),
    ],
    ids=lambda value: str(value),
)
def test_a_job_takes_what_it_was_estimated_to(
    method: str, pattern: str, dtype: torch.dtype, parameters: dict[str, Any], tmp_path: Path
) -> None:
    _check(tmp_path, method, pattern, dtype=dtype, **parameters)


_REFITS = ({"refit": 0}, {"refit": 0.5, "ridge": 0.1})


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sequences", [2, 16, 48])
@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        *(("depth", {"compensation": refit, "layers": 6}) for refit in _REFITS),
        ("depth", {"compensation": _REFITS[0], "layers": 6, "criterion": "angular"}),
        *(
            (method, {"compensation": refit, "attention": attention} | ({"layers": 6} if method == "bonsai" else {}))
            for method in (
                "llm-pruner",
                "flap",
                "bonsai",
                "l2-structured",
                "random-structured",
                "loraprune",
                "lorashear",
            )
            for refit, attention in ((_REFITS[0], "kv_groups"), (_REFITS[1], "kv_groups"))
        ),
        ("frontier", {}),
        ("frontier", {"layers": 6}),
    ],
    ids=lambda value: str(value),
)
def test_every_method_that_removes_takes_what_it_was_estimated_to(
    method: str, parameters: dict[str, Any], sequences: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    _check(tmp_path, method, "structured", sequences=sequences, dtype=dtype, **parameters)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sequences", [2, 48])
@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        (method, pattern)
        for method, pattern in every_way("language-model", "weights")
        if pattern != "structured" and issubclass(get_method(method).parameters, AllocationOptions)
    ],
)
def test_every_method_that_zeroes_takes_what_it_was_estimated_to(
    method: str, pattern: str, sequences: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    _check(tmp_path, method, pattern, sequences=sequences, dtype=dtype)


def _check_training(
    place: Path, dtype: torch.dtype, *, sequences: int = 4, length: int = 128, layers: int = 6, budget: int = 0,
    **recovery: Any,
) -> None:  # fmt: skip
    shape = _SHAPE | {"num_hidden_layers": layers}
    recovery = {"steps": 3, "batch_size": sequences} | recovery
    with simulate(LIKE_CUDA) as (_, simulated):
        windows = make_tokens(6, length, vocabulary=_VOCABULARY)
        recover_language(place, simulated.device, dtype, shape=shape, windows=windows, budget=budget, **recovery)
        peak = simulated.peak
    folder = open_model(place / "pruned")
    completed = complete_recovery(Recovery.model_validate(recovery), folder.description, length).model_dump()
    estimate = _estimate(folder, "magnitude", "unstructured", 0, length, {}, budget, recovery=completed)
    _require_close(estimate, peak, _MOST_OF_TRAINING)


_TRAININGS: list[dict[str, Any]] = [
    {"method": "finetune"},
    {"method": "lora"},
    {"method": "distill", "lora": None},
    {"method": "distill", "lora": None, "train_embeddings": True},
    {"method": "distill"},
    {"method": "distill", "lora": None, "hidden_states": 1.0},
]


_TRAINING_SIZES: list[dict[str, int]] = [
    {}, {"budget": 2**30}, {"sequences": 20}, {"sequences": 1, "length": 512}, {"layers": 2, "sequences": 16},
]  # fmt: skip


def test_training_takes_what_it_was_estimated_to(tmp_path: Path) -> None:
    _check_training(tmp_path, torch.bfloat16, method="lora", layers=2)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (torch.float16, {}),
        *((dtype, size) for dtype in (torch.float32, torch.bfloat16) for size in _TRAINING_SIZES),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("recovery", _TRAININGS, ids=lambda value: str(value))
def test_every_training_takes_what_it_was_estimated_to(
    recovery: dict[str, Any], size: dict[str, int], dtype: torch.dtype, tmp_path: Path
) -> None:
    _check_training(tmp_path, dtype, **recovery, **size)


def _check_timing(place: Path, dtype: torch.dtype, tokens: int, **shape: int) -> None:
    folder = open_model(
        make_model(place / "model", "llama", dtype=dtype, **(_SHAPE | {"num_hidden_layers": 2} | shape))
    )
    with simulate(LIKE_CUDA) as (_, simulated):
        measure_latency(folder, folder, sequence_length=tokens, device=simulated.device)
        peak = simulated.peak
    _require_close(timing_bytes(folder.description, folder.description.bytes, tokens), peak)


def test_models_that_are_timed_take_what_they_were_estimated_to(tmp_path: Path) -> None:
    _check_timing(tmp_path, torch.bfloat16, 512)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [16, 128, 2048])
@pytest.mark.parametrize(
    "shape",
    [{}, {"num_hidden_layers": 6}, {"num_key_value_heads": 2}, {"intermediate_size": 256}, {"vocab_size": 32768}],
    ids=lambda value: str(value),
)
def test_models_of_any_shape_that_are_timed_take_what_they_were_estimated_to(
    shape: dict[str, int], tokens: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    _check_timing(tmp_path, dtype, tokens, **shape)


def _check_questions(
    place: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, task: str, questions: int, **shape: int
) -> None:
    from core.engine.evaluation import zero_shot  # slow to load, and for this alone

    folder = open_model(write_wordy_model(place / "model", dtype=dtype, **(_SHAPE | shape)))
    longest: list[int] = []

    def batch_size(tokens: int, vocabulary: int, nbytes: int) -> int:
        longest.append(tokens)
        return zero_shot_tasks.batch_size(tokens, vocabulary, nbytes)

    monkeypatch.setattr(zero_shot, "batch_size", batch_size)
    with simulate(LIKE_CUDA) as (_, simulated):
        zero_shot.measure_tasks(
            folder, {task: write_questions(place / "tasks", task, questions)}, limit=None, work=place / "work",
            device=simulated.device, on_progress=lambda share: None,
        )  # fmt: skip
        peak = simulated.peak
    _require_close(scoring_bytes(folder.description, max(longest), LIKE_CUDA.logits_bytes), peak)


def test_questions_take_what_they_were_estimated_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _check_questions(tmp_path, monkeypatch, torch.float32, "piqa", 100)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [{}, {"vocab_size": 128}, {"vocab_size": 16384}], ids=lambda value: str(value))
@pytest.mark.parametrize("task", ["boolq", "piqa", "arc_easy"])
def test_questions_to_any_model_take_what_they_were_estimated_to(
    task: str, shape: dict[str, int], dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_questions(tmp_path, monkeypatch, dtype, task, 200, **shape)


def _check_large(place: Path, size: str, method: str, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> None:
    """Check the pass over one block of a large model, of which a device without values has the shapes."""
    folder = open_model(write_large_model(place / "model", size))
    parameters = small_parameters(method, "unstructured", parameters)
    request = request_for(folder, method, 0.5, "unstructured", parameters)
    monkeypatch.setattr(ResumeStore, "add", lambda *block: None)  # so large a block is not written
    (place / "work").mkdir()
    with simulate(LIKE_CUDA, has_values=False) as (_, simulated):
        walk_for(
            folder, request, device=simulated.device, calibration=make_tokens(8, 2048, vocabulary=32000),
            work=place / "work", evaluations={"text": make_tokens(2, 128, seed=9, vocabulary=32000)},
            activation_budget_bytes=2**32,
        ).run()  # fmt: skip
        gc.collect()
        peak = simulated.peak
    estimate = _estimate(folder, method, "unstructured", 8 * 2048, 2048, parameters, 2**32)
    check = full_needs(folder.description, LIKE_CUDA).device_memory
    assert check < estimate, "the pass takes more than the check of so few blocks"
    assert peak <= estimate <= _MOST * peak, f"{estimate:,} of {peak:,} bytes, {estimate / peak:.3f}"


def test_a_block_of_llama_7b_takes_what_it_was_estimated_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _check_large(tmp_path, "7B", "wanda", monkeypatch)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("method", ["magnitude", "wanda", "sparsegpt", "admm", "frontier"])
@pytest.mark.parametrize("size", ["7B", "13B", "70B"])
def test_a_block_of_any_size_takes_what_it_was_estimated_to(
    size: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _check_large(tmp_path, size, method, monkeypatch)
