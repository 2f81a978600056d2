"""Needs of a job by the formula alone, before any job of the fleet has been measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from core.device_kinds import CPU, CUDA, DeviceKind
from core.engine.architectures.description import ModelDescription, inspect_folder
from core.engine.architectures.layer_shape import LinearShape
from core.engine.evaluation.reload_memory import ReloadRoom
from core.engine.recovery.completion import complete_recovery
from core.engine.recovery.request import Recovery
from core.pipeline.recipes.recipe import Recipe
from core.service.jobs.estimates.compute import Tokens, compute_cost
from core.service.jobs.estimates.resources import compare, estimate_resources
from tests.engine.tiny import make_model
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


def test_two_models_that_are_timed_count_where_a_worker_holds_both_and_for_a_target_in_any_case() -> None:
    model = _llama(32)
    timed, plain = 2 * model.bytes, _needs(model).peak_device_memory_bytes
    rooms = {gigabytes: [ReloadRoom(100 * _GIB, gigabytes * _GIB)] for gigabytes in (24, 80)}
    assert _needs(model, rooms=rooms[24]).peak_device_memory_bytes == plain < timed
    assert timed < _needs(model, rooms=rooms[80]).peak_device_memory_bytes < 1.1 * timed
    cut = {"method": "depth", "sparsity": 0.25, "target": {"latency_ratio": 0.8}}
    assert _needs(model, rooms=rooms[24], **cut).peak_device_memory_bytes > timed


def test_questions_need_the_logits_of_three_batches_at_a_time() -> None:
    model = _llama(2)
    for task, tokens in (("winogrande", 64 * 38), ("boolq", 12 * 1291)):  # 4 GiB hold 12 answers of so many tokens
        needs = _needs(model, tokens=Tokens(0, 0, 128), method="magnitude", evaluation={"tasks": [task]})
        logits = 3 * tokens * model.vocabulary_size * 2
        taken = needs.peak_device_memory_bytes - CUDA.context_bytes - model.bytes
        assert logits < taken < 1.2 * (logits + model.bytes)


def test_the_7b_model_needs_what_one_would_expect() -> None:
    needs = _needs(_llama(32))
    assert 13 * _GIB < needs.peak_device_memory_bytes < 24 * _GIB
    assert _needs(_llama(32), device=CPU).peak_device_memory_bytes is None


@pytest.mark.parametrize(
    "more",
    [Tokens(2 * 128 * 2048, 0, 2048), Tokens(128 * 2048, 64 * 2048, 2048)],
    ids=["calibration", "evaluation"],
)
def test_more_tokens_need_more_time_and_disk(more: Tokens) -> None:
    before, after = _needs(_llama(4)), _needs(_llama(4), tokens=more)
    assert after.seconds > before.seconds
    assert after.disk_bytes > before.disk_bytes


def test_added_files_take_disk_time_and_memory_and_more_where_they_are_timed() -> None:
    def needs(*types: str, **changes: Any) -> Any:
        output = {"exports": [{"format": "gguf", "types": list(types)}]} if types else {}
        return _needs(_llama(4), device=CPU, output=output, **changes)

    parameters = _llama(4).parameters
    none, first, second = needs(), needs("Q8_0"), needs("Q8_0", "Q4_K_M")
    first_bytes = first.disk_bytes - none.disk_bytes
    assert first_bytes >= (2 + 2 * 1) * parameters, "F16 is written first, and Q8_0 is copied to the store"
    assert second.disk_bytes > first.disk_bytes and second.seconds > first.seconds > none.seconds
    cut = {"method": "depth", "sparsity": 0.25}
    cut_seconds = needs("Q8_0", **cut).seconds - needs(**cut).seconds
    assert cut_seconds > first.seconds - none.seconds, "where weights go, it is timed against the dense model"
    output = {"exports": [{"format": "gguf", "types": ["F16"]}]}
    whole = [_needs(_llama(32), device=CPU, tokens=_FEW_TOKENS, output=each).peak_memory_bytes for each in ({}, output)]
    assert whole[1] > whole[0], "llama.cpp has the file in memory, and the runner predictions to compare"


def test_work_counts_each_walk_and_the_solver() -> None:
    description = _llama(2)
    once = compute_cost(description, _job(), _TOKENS, CUDA)
    twice = compute_cost(description, _job(parameters={"propagation": "two_pass"}), _TOKENS, CUDA)
    assert twice.passes - once.passes == _TOKENS.calibration
    assert once.operations == 2 * once.passes * description.prunable_parameters
    assert compute_cost(description, _job(method="sparsegpt"), _TOKENS, CUDA).operations > once.operations


@pytest.mark.parametrize("method", ["random-structured", "l2-structured", "llm-pruner", "bonsai", "depth"])
def test_a_refit_takes_both_models_the_calibration_tokens(method: str) -> None:
    """Dense, and what is left of it, with the statistics of one input beside: not with the depth of the model."""
    parameters = {"compensation": {"refit": "auto"}}
    plain, refit = (
        compute_cost(_llama(4), _job(method=method, sparsity=0.2, parameters=each), _TOKENS, CUDA)
        for each in ({}, parameters)
    )
    assert refit.passes - plain.passes == 2 * _TOKENS.calibration and refit.operations > plain.operations
    for_nothing = {"compensation": {"refit": 0}}
    assert (
        compute_cost(_llama(4), _job(method=method, sparsity=0.2, parameters=for_nothing), _TOKENS, CUDA).passes
        == plain.passes
    )
    if method == "random-structured":
        extra = [
            _needs(_llama(layers), device=CPU, method=method, sparsity=0.2, parameters=parameters).peak_memory_bytes
            for layers in (4, 8)
        ]
        assert extra[0] == extra[1] > _needs(_llama(4), device=CPU, method=method, sparsity=0.2).peak_memory_bytes


def test_a_refit_of_a_shape_that_a_device_does_not_have_is_estimated_all_the_same(tmp_path: Path) -> None:
    description = inspect_folder(make_model(tmp_path, intermediate_size=192))
    channels = {"attention": "none", "compensation": {"refit": 0.5}}
    job = _job(method="llm-pruner", pattern="structured", parameters=channels)
    assert job.removal is not None
    most = job.removal.reachable(job.request.cut(description))[-1]
    target = {"parameters": round(description.parameters * (1 - most))}

    def peak(sparsity: float, **more: Any) -> int:
        return int(
            _needs(
                description, method="llm-pruner", pattern="structured", sparsity=sparsity, parameters=channels, **more
            ).peak_device_memory_bytes
        )

    assert peak(most, target=target) >= peak(most) > 0, "8 channels are left on a CPU; of CUDA's 64 it is not known"


def test_what_is_written_after_prompts_takes_longer_than_what_is_read() -> None:
    description = _llama(2)
    without, read, written = (
        compute_cost(description, _job(), Tokens(0, 0, 2048, prompts=prompts, written=new), CUDA)
        for prompts, new in ((0, 0), (100, 0), (0, 100))
    )
    assert read.passes - without.passes == written.passes - without.passes == 200, "dense and pruned"
    assert written.operations - without.operations > 5 * (read.operations - without.operations) > 0


def test_bonsai_holds_the_model_and_runs_every_mask_forward() -> None:
    description = _llama(32)
    blocks = 2 * description.prunable_parameters
    whole = blocks + 2 * 2 * 32000 * 4096
    streamed, held = (
        _needs(description, tokens=Tokens(32 * 512, 0, 512), method=method, sparsity=0.2)
        for method in ("l2-structured", "bonsai")
    )
    assert whole < held.peak_device_memory_bytes - 600 * 2**20 < 1.4 * whole
    assert 0.8 * whole < streamed.peak_device_memory_bytes - 600 * 2**20 < 0.85 * whole, "the check opens what is left"

    def passes(**parameters: Any) -> int:
        job = _job(method="bonsai", sparsity=0.2, parameters={"round_share": 0.1} | parameters)
        return compute_cost(description, job, _TOKENS, CUDA).passes

    assert passes(masks_per_round=400) - passes(masks_per_round=200) == 3 * 200 * 32 * 2048
    assert passes(sequences=64) - passes() == 3 * 201 * 32 * 2048
    assert passes(budget="quick") < passes() / 10


def test_writing_text_takes_longer_than_calibrating_on_it() -> None:
    more = (Tokens(2**18, 0, 512), Tokens(2**19, 0, 512), Tokens(2**18, 0, 512, own_text=2**18))
    plain, read, written = (_needs(_llama(2), device=CPU, tokens=tokens).seconds for tokens in more)
    assert written - plain > 2 * (read - plain) > 0


def test_gradients_that_allocate_count() -> None:
    uniform, fisher = (
        compute_cost(
            _llama(2), _job(parameters={"allocation": allocation, "fisher_sequences": 2}), _TOKENS, CUDA
        ).passes
        for allocation in ("uniform", "fisher")
    )
    assert fisher == uniform + 4 * 2 * 2048


def test_the_report_compares_figure_by_figure() -> None:
    estimate = {"peak_memory_bytes": 100, "peak_device_memory_bytes": None, "seconds": 10.0, "basis": {"jobs": 4}}
    measured = {"peak_memory_bytes": 150, "peak_device_memory_bytes": 7, "seconds": 5.0, "disk_bytes": 1}
    assert compare(estimate, measured) == {
        "peak_memory_bytes": {"estimated": 100, "actual": 150, "ratio": 1.5},
        "seconds": {"estimated": 10.0, "actual": 5.0, "ratio": 0.5},
        "jobs_it_came_from": 4,
    }
    assert compare(None, measured) is None


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
