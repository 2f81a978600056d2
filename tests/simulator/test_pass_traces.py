"""Traces of passes without values: never below what a pass takes on a device, and at most 15 % above."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from core.device_kinds import CUDA
from core.engine.evaluation.forward_memory import SMALL_TENSORS
from core.engine.models.casting import folder_as_stored
from core.engine.models.folder import open_model
from core.engine.models.tracing.without_values import META, ValueNeeded, device_without_values
from core.methods.registry import METHODS
from core.pipeline.messages import PassAnswer, PassQuestion, TracedPass
from core.pipeline.passes import walk_for
from core.pipeline.recipes.validation import ResolvedRequest
from core.pipeline.stages.trace import answer
from secateur_wire.job_body import Quantization, StoredDtype
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_model, make_tokens
from tests.families import share_of, small_parameters
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.test_memory_estimates import _SHAPE, _VOCABULARY, question_about

_MOST = 1.15
_WINDOW = 128


def _question(
    source: Path,
    request: ResolvedRequest,
    sequences: int,
    stored: StoredDtype = "keep",
    chosen: Quantization | None = None,
) -> PassQuestion:
    """Return the question about a pass that is driven by so many sequences and evaluated on two."""
    traced = TracedPass(
        method=request.method, pattern=request.pattern, sparsity=request.sparsity,
        parameters=request.parameters.model_dump(mode="json"), layout=request.layout, at_least=False,
        calibration=(sequences, _WINDOW), evaluations=((2, _WINDOW),), activation_budget_bytes=2**30, device=CUDA.name,
        dtype=stored, quantization=chosen,
    )  # fmt: skip
    return question_about(open_model(source), traced)


def _traced(question: PassQuestion) -> int:
    answered = answer(PassQuestion.model_validate_json(question.model_dump_json()))
    assert isinstance(answered, PassAnswer) and answered.peak_bytes is not None, answered
    return answered.peak_bytes


def _check(
    place: Path,
    method: str,
    pattern: str,
    dtype: torch.dtype,
    *,
    sequences: int = 16,
    layers: int = 2,
    stored: StoredDtype = "keep",
    chosen: Quantization | None = None,
    **given: Any,
) -> None:
    source = make_model(place / "model", "llama", dtype=dtype, num_hidden_layers=layers, **_SHAPE)
    folder = open_model(source)
    request = request_for(folder, method, share_of(pattern), pattern, small_parameters(method, pattern, given))
    (place / "work").mkdir()
    with simulate(LIKE_CUDA) as (_, simulated):
        walk_for(
            folder, request, device=simulated.device, work=place / "work", activation_budget_bytes=2**30,
            calibration=make_tokens(sequences, _WINDOW, vocabulary=_VOCABULARY),
            evaluations={"text": make_tokens(2, _WINDOW, seed=9, vocabulary=_VOCABULARY)},
            stored=folder_as_stored(folder, stored), quantization=chosen,
        ).run()  # fmt: skip
        gc.collect()
        peak = simulated.peak
    estimate = SMALL_TENSORS * _traced(_question(source, request, sequences, stored, chosen))
    assert peak <= estimate <= _MOST * peak, f"{estimate:,} of {peak:,} bytes, {estimate / peak:.3f}"


@pytest.mark.parametrize(
    ("method", "pattern", "dtype", "given"),
    [
        ("wanda", "unstructured", torch.float32, {"allocation": "owl"}),
        ("sparsegpt", "2:4", torch.bfloat16, {}),
        ("admm", "unstructured", torch.bfloat16, {"propagation": "two_pass"}),
        ("llm-pruner", "structured", torch.bfloat16, {"compensation": {"refit": 0}}),
        ("frontier", "structured", torch.bfloat16, {}),
        ("wanda", "unstructured", torch.float32, {"stored": "bfloat16"}),
        ("l2-structured", "structured", torch.float32, {"stored": "float16"}),
        ("wanda", "unstructured", torch.bfloat16, {"chosen": Quantization(scheme="int8", rounding="gptq")}),
        ("sparsegpt", "unstructured", torch.bfloat16, {"chosen": Quantization(scheme="int8", rounding="gptq")}),
    ],
    ids=str,
)
def test_a_pass_without_values_holds_what_one_with_values_does(
    method: str, pattern: str, dtype: torch.dtype, given: dict[str, Any], tmp_path: Path
) -> None:
    _check(tmp_path, method, pattern, dtype, **given)


_TRAINS = {name for name, method in METHODS.items() if method.needs.training}
"""Methods that train a model to choose: accelerate has no device without values."""


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sequences", [2, 48])
@pytest.mark.parametrize(
    ("method", "pattern"),
    [
        (name, "2:4" if pattern == "n:m" else pattern)
        for name, method in METHODS.items()
        if "language-model" in method.task_families and method.prunes and name not in {*_TRAINS, "expert-drop"}
        for pattern in method.patterns
    ],
)
def test_every_pass_without_values_holds_what_one_with_values_does(
    method: str, pattern: str, sequences: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    _check(tmp_path, method, pattern, dtype, sequences=sequences)


_DEEP = (
    ("llm-pruner", {"compensation": {"refit": 0.5}, "importance": "mixed"}),
    ("llm-pruner", {"compensation": {"refit": 0}}),
    ("flap", {}),
    ("l2-structured", {"compensation": {"refit": 0.5, "ridge": 0.1}}),
    ("bonsai", {"compensation": {"refit": 0}}),
    ("depth", {"compensation": {"refit": 0}}),
    ("depth", {"compensation": {"refit": 0.5}, "criterion": "angular"}),
    ("frontier", {"drop_layers": 0}),
)


@pytest.mark.nightly
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "given"), _DEEP, ids=str)
def test_every_deep_model_is_traced_by_few_of_its_blocks(
    method: str, given: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    _check(tmp_path, method, "structured", dtype, layers=10, **given)


def test_a_deep_model_is_traced_by_few_of_its_blocks(tmp_path: Path) -> None:
    _check(tmp_path, "llm-pruner", "structured", torch.bfloat16, layers=10, compensation={"refit": 0})


def test_a_read_that_is_not_declared_is_named() -> None:
    with device_without_values(CUDA), pytest.raises(ValueNeeded, match="unique"):
        torch.zeros(2**20, device=META).unique()


def test_a_trace_that_fails_says_why(tmp_path: Path) -> None:
    source = make_model(tmp_path / "model", "llama", **_SHAPE)
    request = request_for(open_model(source), "wanda", 0.5, "unstructured", {})
    question = _question(source, request, 2)
    answered = answer(question.model_copy(update={"tensors": {}}))
    assert isinstance(answered, PassAnswer) and answered.peak_bytes is None and answered.error is not None


def test_what_gradients_of_all_blocks_take_counts_for_blocks_that_are_not_run(tmp_path: Path) -> None:
    given = {"allocation": "fisher", "fisher_sequences": 16}
    _check(tmp_path, "magnitude", "unstructured", torch.float32, layers=12, **given)
