"""Upper bound of device memory, against what jobs hold on a simulated device: 0.8 to 3 times their peak."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.accuracy import measure_accuracy
from core.engine.memory import training_bytes
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.models.folder import open_model
from core.engine.pruning.classifier_trace import trace_classifier
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.request import Recovery
from core.service.jobs.estimates.compute import ImageCounts, Tokens
from core.service.jobs.estimates.resources import classifier_needs, estimate_resources
from tests.engine.classifier_folders import CLASSES, image_shape, make_classifier
from tests.engine.classifying import random_images
from tests.engine.tiny import make_model, make_tokens
from tests.families import share_of, small_parameters
from tests.recipes import recipe_of
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.jobs import prune_language, prune_network, recover_language

_VOCABULARY = 1024
_SHAPE = {
    "vocab_size": _VOCABULARY, "hidden_size": 128, "intermediate_size": 344, "num_attention_heads": 4,
    "num_key_value_heads": 4, "head_dim": 32, "max_position_embeddings": 4096,
}  # fmt: skip


def _require_bound(bound: int, peak: int) -> None:
    assert 0.8 * peak <= bound <= 3 * peak, f"{bound:,} of {peak:,} bytes, {bound / peak:.2f}"


@pytest.mark.parametrize(
    ("method", "pattern", "dtype", "parameters"),
    [
        ("sparsegpt", "unstructured", torch.float32, {}),
        ("frontier", "unstructured", torch.bfloat16, {}),
        ("frontier", "structured", torch.bfloat16, {}),
        ("depth", "structured", torch.bfloat16, {"compensation": {"refit": 0}}),
    ],
    ids=lambda value: str(value),
)
def test_a_pass_over_a_language_model(
    method: str, pattern: str, dtype: torch.dtype, parameters: dict[str, Any], tmp_path: Path
) -> None:
    source = make_model(tmp_path / "model", "llama", dtype=dtype, num_hidden_layers=6, **_SHAPE)
    parameters = small_parameters(method, pattern, parameters)
    with simulate(LIKE_CUDA) as (_, simulated):
        prune_language(
            source, tmp_path / "work", simulated.device, method, pattern,
            calibration=make_tokens(16, 128, vocabulary=_VOCABULARY),
            evaluation=make_tokens(2, 128, seed=9, vocabulary=_VOCABULARY), **parameters,
        )  # fmt: skip
        peak = simulated.peak
    needs = estimate_resources(
        open_model(source).description,
        recipe_of(method=method, pattern=pattern, sparsity=share_of(pattern), parameters=parameters),
        Tokens(calibration=16 * 128, evaluation=2 * 128, window=128),
        device=LIKE_CUDA, activation_budget_bytes=2**30, is_fetched=False,
    )  # fmt: skip
    assert needs.peak_device_memory_bytes is not None and LIKE_CUDA.context_bytes is not None
    _require_bound(needs.peak_device_memory_bytes - LIKE_CUDA.context_bytes, peak)


@pytest.mark.parametrize("recovery", [{"method": "lora"}, {"method": "distill", "lora": None}])
def test_training_of_a_language_model(recovery: dict[str, Any], tmp_path: Path) -> None:
    shape = _SHAPE | {"num_hidden_layers": 6}
    recovery = {"steps": 3, "batch_size": 4} | recovery
    with simulate(LIKE_CUDA) as (_, simulated):
        windows = make_tokens(6, 128, vocabulary=_VOCABULARY)
        recover_language(tmp_path, simulated.device, torch.bfloat16, shape=shape, windows=windows, **recovery)
        peak = simulated.peak
    description = open_model(tmp_path / "pruned").description
    completed = complete_recovery(Recovery.model_validate(recovery), description, 128)
    _require_bound(training_bytes(description, completed, frozen_bytes=2, budget_bytes=0), peak)


@pytest.mark.parametrize(
    ("name", "method", "pattern"),
    [
        ("resnet", "filter-taylor", "structured"),
        ("vit", "sparsegpt", "unstructured"),
    ],
)
def test_a_job_on_an_image_classifier(name: str, method: str, pattern: str, tmp_path: Path) -> None:
    source = make_classifier(tmp_path / "model", name)
    opened = open_classifier(source)
    passes = trace_classifier(opened, image_shape(name))
    description = opened.description.model_copy(update={"passes": passes})
    recipe = recipe_of(method=method, pattern=pattern, sparsity=0.3)
    counts = ImageCounts(calibration=16, evaluation=140)
    with simulate(LIKE_CUDA) as (_, simulated):
        measure_accuracy(
            load_classifier(opened, simulated.device), random_images(140, image_shape(name), classes=CLASSES)
        )
        gc.collect()
        prune_network(source, name, tmp_path / "work", simulated.device, method, pattern)
        peak = simulated.peak
    bound = classifier_needs(description, recipe, counts, device=LIKE_CUDA, is_fetched=False).peak_device_memory_bytes
    assert bound is not None and LIKE_CUDA.context_bytes is not None
    _require_bound(bound - LIKE_CUDA.context_bytes, peak)
