"""The engine on the simulated accelerator, from opening to artifact: what it leaves is the CPU's, bit for bit."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.engine.models.folder import open_model
from core.engine.options.sensitivity import SensitivityOptions
from core.methods.sensitivity.language_pass import SensitivityPass
from core.pipeline.messages import ModelPlace, Spec, TextSource
from core.pipeline.plans import make_sensitivity_plan
from core.pipeline.stages.generate.spec import GenerateSpec
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.tasks.spec import TasksSpec
from core.pipeline.stages.write.spec import WriteSpec
from core.progress import Progress, WorkStopped
from tests.engine.sweeping import request_for
from tests.engine.tiny import make_tokens
from tests.engine.watching import Watching
from tests.families import LANGUAGE_MODELS, simulated_ways
from tests.simulator.backend import LIKE_CUDA, simulate
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on
from tests.simulator.jobs import model_folder, prune_language, recover_language
from tests.task_questions import write_questions

CPU = torch.device("cpu")
_RECOVERIES: list[dict[str, Any]] = [
    {"method": "finetune"},
    {"method": "lora", "lora": {"r": 2, "alpha": 4, "dropout": 0.1}},
    {"method": "distill", "lora": None},
]


def same_on_both(simulated: SimulatedDevice, work: Path, source: Path, *how: str, **parameters: Any) -> None:
    here = prune_language(source, work / "cpu", CPU, *how, **parameters)
    there = prune_language(source, work / "sim", simulated.device, *how, **parameters)
    assert there == here and simulated.counts.launches > 100
    gc.collect()
    assert simulated.allocated <= simulated.left, "all that was taken is given back"


@pytest.mark.parametrize(
    ("name", "method", "pattern", "parameters"),
    [
        *simulated_ways(LANGUAGE_MODELS),
        ("llama-untied", "sparsegpt", "unstructured", {"include_lm_head": True}),
    ],
    ids=lambda value: str(value),
)
def test_a_pruned_model_is_the_cpu_s(
    name: str, method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    same_on_both(simulated, tmp_path, model_folder(tmp_path, name), method, pattern, **parameters)


@pytest.mark.parametrize(
    ("method", "pattern", "parameters"),
    [
        ("depth", "structured", {"criterion": "perplexity"}),
        ("wanda", "2:4", {}),
        ("random", "unstructured", {"allocation": "fisher"}),
    ],
    ids=lambda value: str(value),
)
def test_hidden_states_that_waited_on_disk_are_on_the_device_again(
    method: str, pattern: str, parameters: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    source = model_folder(tmp_path)
    held = prune_language(source, tmp_path / "held", simulated.device, method, pattern, **parameters)
    assert prune_language(source, tmp_path / "spilt", simulated.device, method, pattern, budget=0, **parameters) == held


@pytest.mark.parametrize("recovery", _RECOVERIES, ids=lambda value: value["method"])
def test_a_recovered_model_is_the_cpu_s(recovery: dict[str, Any], simulated: SimulatedDevice, tmp_path: Path) -> None:
    here = recover_language(tmp_path / "cpu", CPU, **recovery)
    there = recover_language(tmp_path / "sim", simulated.device, **recovery)
    assert there == here and simulated.counts.launches > 100


def test_a_recovery_that_goes_on_ends_on_the_device_as_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"method": "distill", "lora": None, "steps": 6}  # so many that predictions are kept
    whole = recover_language(tmp_path / "cpu", CPU, **asked)
    with pytest.raises(WorkStopped):
        recover_language(tmp_path / "first", simulated.device, progress=Watching(stop_after=3), **asked)
    then = Watching()
    again = recover_language(
        tmp_path / "then", simulated.device, previous=[tmp_path / "first" / "work"], progress=then, **asked
    )
    assert then.logs == ["continuing after step 4 of 6"] and again == whole


def test_with_cuda_s_own_choices_a_16_bit_model_is_pruned_and_trained(tmp_path: Path) -> None:
    with simulate(LIKE_CUDA) as (_, simulated):
        source = model_folder(tmp_path, dtype=torch.bfloat16)
        result = prune_language(source, tmp_path / "pruned", simulated.device, "llm-pruner", "structured")
        assert result["reload"]["maximum_difference"] < 0.1
        recovered = recover_language(tmp_path, simulated.device, torch.bfloat16, method="lora")
        assert all(after >= before > 0 for before, after in recovered["zeros"].values())


def test_what_a_model_writes_and_answers_is_the_cpu_s(wordy: Path, simulated: SimulatedDevice, tmp_path: Path) -> None:
    model = ModelPlace(path=wordy)
    task = next(iter(TASKS))
    questions = TextSource(name=task, path=write_questions(tmp_path / "tasks", task), format="jsonl")

    def answers(device: torch.device) -> list[Any]:
        text = tmp_path / f"{device.type}.txt"
        place = str(device)
        specs: list[Spec] = [
            WriteSpec(
                device=place,
                threads=1,
                model=model,
                target=text,
                samples=2,
                sequence_length=16,
                seed=3,
                work=tmp_path / f"{device.type}-text",
            ),
            GenerateSpec(device=place, threads=1, models={"dense": model}, prompts=["w5 w6", "w7"], tokens=4),
            TasksSpec(
                device=place, threads=1, model=model, questions=[questions], limit=4, work=tmp_path / device.type
            ),
        ]
        with at_work_on(device):
            _, *outputs = [run_stage(spec, Progress(), lambda: 0) for spec in specs]
        return [*(each.model_dump(exclude={"peak_memory"}) for each in outputs), text.read_text()]

    assert answers(simulated.device) == answers(CPU)


def test_sensitivity_is_the_cpu_s(simulated: SimulatedDevice, tmp_path: Path) -> None:
    folder = open_model(model_folder(tmp_path))
    options = request_for(folder, "sensitivity", parameters={"method": "wanda", "rates": [0.3, 0.6]}).parameters
    assert isinstance(options, SensitivityOptions)

    def curves(device: torch.device) -> Any:
        work = tmp_path / device.type
        work.mkdir()
        plan = make_sensitivity_plan(folder, options, device=device)
        setting = {"calibration": make_tokens(3, 16), "evaluations": {"text": make_tokens(2, 16, seed=9)}}
        with at_work_on(device):
            return SensitivityPass(folder, plan, work=work, **setting).run()

    assert curves(simulated.device) == curves(CPU)
