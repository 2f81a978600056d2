"""Needs of a job by the formula alone, before any job of the fleet has been measured."""

from collections.abc import Sequence
from typing import Any

import pytest

from core.device_kinds import CUDA, DeviceKind
from core.engine.architectures.description import ModelDescription
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.reload_memory import ReloadRoom
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.request import Recovery
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.compute import Tokens, compute_cost
from core.service.jobs.estimates.resources import estimate_resources
from tests.recipes import recipe_of

_GIB = 2**30


def _llama(layers: int) -> ModelDescription:
    """Return the description of a model like Llama-2-7B, which has 32 layers, with so many."""
    shapes = [("self_attn.q_proj", 4096, 4096), ("self_attn.k_proj", 4096, 4096), ("self_attn.v_proj", 4096, 4096)]
    shapes += [("self_attn.o_proj", 4096, 4096), ("mlp.gate_proj", 11008, 4096), ("mlp.up_proj", 11008, 4096)]
    shapes += [("mlp.down_proj", 4096, 11008)]
    linears = [
        LinearShape(name=f"model.layers.{layer}.{name}", layer=layer, out_features=rows, in_features=columns)
        for layer in range(layers)
        for name, rows, columns in shapes
    ]
    prunable = sum(linear.numel for linear in linears)
    parameters = prunable + 2 * 32000 * 4096
    return ModelDescription(
        family="Llama", architecture="LlamaForCausalLM", parameters=parameters, prunable_parameters=prunable,
        bytes=2 * parameters, dtype="float16", layers=layers, hidden_size=4096, vocabulary_size=32000,
        context_length=4096, tied_embeddings=False, linears=linears,
    )  # fmt: skip


def _job(**changes: Any) -> Recipe:
    return recipe_of(**{"sparsity": 0.5} | changes)


_TOKENS = Tokens(calibration=128 * 2048, evaluation=0, window=2048)
_FEW_TOKENS = Tokens(calibration=16 * 2048, evaluation=0, window=2048)


def _needs(
    description: ModelDescription,
    *,
    tokens: Tokens = _TOKENS,
    device: DeviceKind = CUDA,
    rooms: Sequence[ReloadRoom] = (),
    **changes: Any,
) -> Any:
    return estimate_resources(
        description, _job(**changes), tokens, device=device, activation_budget_bytes=4 * _GIB, is_fetched=False,
        rooms=rooms,
    )  # fmt: skip


def test_the_prune_stage_does_not_grow_with_depth_but_whole_models_do() -> None:
    shallow, deep = (_needs(_llama(layers), tokens=_FEW_TOKENS) for layers in (32, 64))
    assert deep.peak_memory_bytes > 1.7 * shallow.peak_memory_bytes, "the check opens the model in main memory"
    assert deep.peak_device_memory_bytes > 1.8 * shallow.peak_device_memory_bytes, "and moves it to the device"
    assert deep.disk_bytes > 1.8 * shallow.disk_bytes
    assert deep.seconds > 1.8 * (shallow.seconds - 18)


@pytest.mark.parametrize(
    "room", [ReloadRoom(2 * _GIB, None), ReloadRoom(None, 24 * _GIB)], ids=["main memory", "device memory"]
)
def test_where_no_worker_holds_the_whole_model_nothing_but_the_disk_grows_with_depth(room: ReloadRoom) -> None:
    shallow, deep = (_needs(_llama(layers), rooms=[room]) for layers in (64, 128))
    assert deep.peak_device_memory_bytes == pytest.approx(shallow.peak_device_memory_bytes, rel=0.01)
    assert deep.peak_memory_bytes == shallow.peak_memory_bytes < 4 * _GIB
    assert deep.disk_bytes > 1.8 * shallow.disk_bytes
    roomy = ReloadRoom(40 * _GIB, 40 * _GIB)
    assert _needs(_llama(64), rooms=[room, roomy]) == _needs(_llama(64)), "it goes to one that does, where there is one"
    assert shallow.seconds > _needs(_llama(64)).seconds, "each matrix is read whenever it is used"


def test_training_needs_grow_with_what_is_trained_and_a_teacher() -> None:
    def peak(**recovery: Any) -> int:
        completed = complete_recovery(Recovery.model_validate(recovery), _llama(32), 512)
        return int(_needs(_llama(32), recovery=completed.model_dump()).peak_device_memory_bytes)

    parameters = _llama(32).parameters
    everything, adapters = peak(method="finetune"), peak(method="lora")
    assert 16 * parameters < everything < 20 * parameters
    assert 4 * parameters < adapters < 6 * parameters, "float16 is trained from float32"
    assert peak(method="distill") > adapters + 4 * parameters
    assert peak(method="distill", hidden_states=1.0) > peak(method="distill"), "both models' hidden states are compared"
    work = {
        steps: compute_cost(
            _llama(32), _job(recovery={"method": "lora", "steps": steps, "sequence_length": 512}), _TOKENS, CUDA
        )
        for steps in (100, 200)
    }
    more = work[200].operations - work[100].operations
    assert work[200].passes - work[100].passes == 100 * 8 * 512
    assert more == pytest.approx(8 * 100 * 8 * 512 * parameters, rel=0.05)

    trained = _needs(_llama(32), recovery=complete_recovery(Recovery(method="finetune"), _llama(32), 512).model_dump())
    plain = _needs(_llama(32))
    assert trained.disk_bytes > plain.disk_bytes + 2 * 12 * parameters, "two checkpoints, while one replaces the other"
    assert trained.seconds > plain.seconds
