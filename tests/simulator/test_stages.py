"""Whole stages of jobs on the simulated accelerator, as a runner is told of them: what they leave is the CPU's."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers import dynamic_module_utils

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import read_header
from core.pipeline.messages import (
    ImageSource,
    JobSpec,
    ModelSource,
    PruneOutput,
    Spec,
    TaskOutput,
    TextSource,
)
from core.pipeline.stages.add_export.spec import AddedExportOutput, AddExportSpec
from core.pipeline.stages.classifier.spec import PruneClassifierSpec
from core.pipeline.stages.discover import discover_and_test
from core.pipeline.stages.measure.spec import MeasureSpec
from core.pipeline.stages.prune.spec import PruneSpec
from core.pipeline.stages.recover.spec import RecoverSpec, RecoveryOutput
from core.pipeline.stages.run import run_stage
from core.pipeline.stages.search.spec import SearchSpec
from core.pipeline.stages.sensitivity.spec import SensitivitySpec
from core.pipeline.stages.verify.spec import VerificationOutput, VerifySpec
from core.progress import Progress
from secateur_wire.errors import LatencyTooNoisy, TargetUnreachable
from tests.engine.classifier_folders import CLASSES, image_shape, make_classifier
from tests.families import small_parameters
from tests.gguf.trained import save_trained
from tests.image_sets import encoded, write_folder
from tests.recipes import recipe_of
from tests.simulator.devices import SimulatedDevice
from tests.simulator.host_work import at_work_on
from tests.simulator.jobs import digests, prune_language

_TEXT = {"dataset": "words", "samples": 4, "sequence_length": 16}
_EVALUATION = {"datasets": ["words"], "samples": 3, "sequence_length": 16}
_TRAINING = {"dataset": "words", "sequence_length": 16, "steps": 3, "batch_size": 2, "learning_rate": 1e-2}
_LANGUAGE: dict[str, dict[str, Any]] = {
    "wanda": {"method": "wanda", "sparsity": 0.5},
    "generated": {"method": "sparsegpt", "sparsity": 0.5, "calibration": {**_TEXT, "generated": 2}},
    "finetune": {"method": "magnitude", "sparsity": 0.5, "recovery": {"method": "finetune", **_TRAINING}},
    "stages": {
        "method": "lorashear", "sparsity": 0.25,
        "recovery": {
            "method": "lora", "sequence_length": 16, "batch_size": 2,
            "stages": [{"datasets": ["words"], "steps": 2}, {"datasets": ["words"], "steps": 1}],
        },
    },
    "distill": {"method": "flap", "sparsity": 0.25, "pattern": "structured",
                "recovery": {"method": "distill", "hidden_states": 0.5, **_TRAINING}},
    "sensitivity": {"method": "sensitivity",
                    "parameters": {"method": "wanda", "pattern": "unstructured", "rates": [0.3, 0.6]}},
}  # fmt: skip
"""One job of each kind of stage on a language model."""
_EPOCH = {"dataset": "dots", "steps": 2, "batch_size": 8}
_CLASSIFIERS: dict[str, dict[str, Any]] = {
    "filter-taylor": {"method": "filter-taylor", "sparsity": 0.3},
    "hashed": {"method": "magnitude", "sparsity": 0.5, "output": {"format": "hashed", "compression": 0.5}},
    "finetune": {"method": "obd", "sparsity": 0.5, "recovery": {"method": "finetune", **_EPOCH}},
    "distill": {"method": "magnitude", "sparsity": 0.5, "recovery": {"method": "distill", **_EPOCH}},
    "no images": {"method": "magnitude", "sparsity": 0.5, "calibration": None, "evaluation": {"datasets": []}},
    "sensitivity": {"method": "sensitivity",
                    "parameters": {"method": "magnitude", "pattern": "unstructured", "rates": [0.3, 0.6]}},
}  # fmt: skip
"""The same on an image classifier."""
_FEW_LAUNCHES = 10
"""Launches on the device that a stage which runs a model has at least: one that ran on the CPU would have none."""


@dataclass(frozen=True)
class Stages:
    """Stages of one job on one device, run one by one, with a count of what each did there."""

    device: torch.device
    simulated: SimulatedDevice

    def run(self, spec: Spec) -> TaskOutput:
        AcceleratorState._reset_state(reset_partial_state=True)
        torch.manual_seed(self.device.index or 0)  # nothing may hang on what the process has drawn before
        with self.simulated.counting() as counts, at_work_on(self.device):
            output = run_stage(spec, Progress(), lambda: 0)
        assert (counts.launches > _FEW_LAUNCHES) == (self.device.type != "cpu"), spec
        return output


def _figures(output: TaskOutput) -> Any:
    """Return what a stage has measured of the model, without what differs from one run to the next."""
    if isinstance(output, PruneOutput):
        metrics = output.metrics.model_dump(mode="json", exclude={"peak_memory_bytes"})
        return metrics, output.report.model_dump(mode="json")["layers"], output.notes
    assert isinstance(output, RecoveryOutput)
    recovery = output.recovery
    curves = recovery.loss, recovery.hidden_states_error
    return output.perplexity, output.zeros, curves, output.notes


def _bytes_of(file: Path | None) -> str | None:
    return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()


def _on_both(simulated: SimulatedDevice, job: Callable[[Stages, Path], Any], folder: Path) -> None:
    assert job(Stages(simulated.device, simulated), folder / "sim") == job(
        Stages(torch.device("cpu"), simulated), folder / "cpu"
    )


def _spec(kind: type[JobSpec], device: torch.device, body: dict[str, Any], model: Path, work: Path, **more: Any) -> Any:
    work.mkdir(parents=True, exist_ok=True)
    parameters = small_parameters(body["method"], body.get("pattern"), body.get("parameters", {}))
    return kind.model_validate(
        {
            "job": "job_1", "attempt": 1, "recipe": recipe_of(**body | {"parameters": parameters}),
            "model": ModelSource(path=model, name="m", revision="1"), "work": work, "previous": [],
            "artifact": work / "artifact", "device": str(device), "threads": 1, **more,
        }
    )  # fmt: skip


def _check(spec: JobSpec, expected: Path, folder: Path) -> VerifySpec:
    return VerifySpec(
        artifact=spec.artifact_place, expected=expected, modules=folder / "modules", offload=folder / "offload",
        device=spec.device, threads=spec.threads,
    )  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> TextSource:
    file = tmp_path_factory.mktemp("texts") / "words.txt"
    file.write_text("\n".join(" ".join(f"w{(n * n + 7 * line) % 96}" for n in range(20)) for line in range(60)))
    return TextSource(name="words", path=file, format="text")


@pytest.fixture(scope="module")
def dots(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Images of LeNet-5's size, all different."""
    generator = torch.Generator().manual_seed(0)
    images = [encoded(torch.randint(256, (28, 28), generator=generator, dtype=torch.uint8).numpy()) for _ in range(40)]
    folder = write_folder(tmp_path_factory.mktemp("images") / "dots", images, [str(each) for each in range(CLASSES)])
    return ImageSource(name="dots", path=folder, format="image_folder", sha256="0" * 64)


@pytest.mark.nightly
@pytest.mark.parametrize("body", _LANGUAGE.values(), ids=list(_LANGUAGE))
def test_stages_of_a_language_model_leave_what_the_cpu_leaves(
    body: dict[str, Any], simulated: SimulatedDevice, wordy: Path, words: TextSource, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    body = {"calibration": _TEXT, "evaluation": _EVALUATION, **body}
    recovery = body.get("recovery")
    distills = recovery is not None and recovery["method"] == "distill"
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))

    def job(stages: Stages, work: Path) -> Any:
        kind = SensitivitySpec if body["method"] == "sensitivity" else PruneSpec
        spec: PruneSpec | SensitivitySpec = _spec(
            kind, stages.device, body, wordy, work, calibration=words,
            generated=words if "generated" in body["calibration"] else None, evaluation=[words],
            recovery=[words] * len(recovery.get("stages", [None])) if recovery else [],
            teacher=ModelSource(path=wordy, name="m", revision="1") if distills else None,
            activation_budget_bytes=2**30,
        )  # fmt: skip
        found = [stages.run(spec)]
        if recovery:
            found.append(stages.run(RecoverSpec.of(spec, task="recover")))
        expected = [each.expected for each in found if isinstance(each, PruneOutput | RecoveryOutput)]
        if expected[-1] is not None:
            pair = {"dense": spec.model.place, "pruned": spec.artifact_place}
            common = {"device": spec.device, "threads": 1}
            stages.run(MeasureSpec.model_validate({**common, **pair, "sequence_length": 16}))
            again = stages.run(_check(spec, expected[-1], tmp_path))
            assert isinstance(again, VerificationOutput)
            assert again.verification.maximum_difference == 0, "it is what was measured, on the same device"
        return [*map(_figures, found)], [*map(_bytes_of, expected)], digests(spec.artifact)

    _on_both(simulated, job, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("body", _CLASSIFIERS.values(), ids=list(_CLASSIFIERS))
def test_stages_of_a_classifier_leave_what_the_cpu_leaves(
    body: dict[str, Any], simulated: SimulatedDevice, dots: ImageSource, tmp_path: Path
) -> None:
    source = make_classifier(tmp_path / "model", "lenet-5")
    images = {"dataset": "dots", "samples": 16}
    body = {"calibration": images, "evaluation": {"datasets": ["dots"], "samples": 10}, **body}

    def job(stages: Stages, work: Path) -> Any:
        spec: PruneClassifierSpec = _spec(
            PruneClassifierSpec, stages.device, body, source, work, calibration=body["calibration"] and dots,
            evaluation=[dots] * len(body["evaluation"]["datasets"]), recovery=dots if "recovery" in body else None,
        )  # fmt: skip
        output = stages.run(spec)
        assert isinstance(output, PruneOutput)
        if output.expected is not None:
            pair = {"dense": spec.model.place, "pruned": spec.artifact_place}
            common = {"device": spec.device, "threads": 1}
            stages.run(MeasureSpec.model_validate({**common, **pair, "image_shape": image_shape("lenet-5")}))
            stages.run(_check(spec, output.expected, tmp_path))
        return _figures(output), _bytes_of(output.expected), digests(spec.artifact)

    _on_both(simulated, job, tmp_path)


@pytest.mark.nightly
def test_a_file_for_llama_cpp_is_compared_with_what_the_device_predicts(
    simulated: SimulatedDevice, tmp_path: Path
) -> None:
    artifact = save_trained(tmp_path / "artifact")

    def job(stages: Stages, work: Path) -> Any:
        spec = _spec(
            AddExportSpec, stages.device, {"method": "none"}, artifact, work / "job", calibration=None, evaluation=[],
            activation_budget_bytes=2**30, form="gguf", types=["F16"],
        ).model_copy(update={"artifact": artifact})  # fmt: skip
        output = stages.run(spec)
        assert isinstance(output, AddedExportOutput)
        return output.files

    _on_both(simulated, job, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("method", ["depth", "l2-structured"])
def test_shapes_are_timed_on_the_device(method: str, simulated: SimulatedDevice, wordy: Path, tmp_path: Path) -> None:
    body = {"method": method, "target": {"latency_ratio": 0.99}, "calibration": _TEXT}
    spec = _spec(
        SearchSpec, simulated.device, body, wordy, tmp_path, calibration=None, evaluation=[],
        activation_budget_bytes=2**30,
    )  # fmt: skip
    with (
        simulated.counting() as counts,
        at_work_on(simulated.device),
        suppress(LatencyTooNoisy, TargetUnreachable),
    ):
        run_stage(spec, Progress(), lambda: 0)
    assert counts.launches > _FEW_LAUNCHES


@pytest.fixture(scope="module")
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Architecture]:
    """A tiny mixture of experts, and its architecture as a worker finds it."""
    folder = tmp_path_factory.mktemp("mixtures") / request.param
    tiny_model(request.param, 0).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    drawn = torch.get_rng_state()
    architecture = discover_and_test(config, read_header(folder / "model.safetensors"))
    assert torch.equal(torch.get_rng_state(), drawn), "a discovery draws from generators of its own"
    return folder, architecture


def _same_mixture_on_both(
    mixture: tuple[Path, Architecture], simulated: SimulatedDevice, work: Path, *how: str, **parameters: Any
) -> None:
    source, architecture = mixture

    def pruned(device: torch.device) -> dict[str, Any]:
        return prune_language(source, work / device.type, device, *how, discovered=architecture, **parameters)

    assert pruned(simulated.device) == pruned(torch.device("cpu")) and simulated.counts.launches > 100


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("method", "pattern", "parameters"),
    [("sparsegpt", "unstructured", {}), ("frontier", "unstructured", {}), ("frontier", "structured", {}),
     ("flap", "structured", {}), ("llm-pruner", "structured", {}),
     ("expert-drop", "structured", {"compensation": {"refit": 0.5}}),
     ("expert-drop", "structured", {"score": "random", "merge": True})],
)  # fmt: skip
@pytest.mark.parametrize("mixture", ["mixtral", "gpt_oss"], indirect=True)
def test_a_pruned_mixture_is_the_cpu_s(
    method: str, pattern: str, parameters: dict[str, Any], mixture: tuple[Path, Architecture],
    simulated: SimulatedDevice, waits: Counter[str], tmp_path: Path,
) -> None:  # fmt: skip
    _same_mixture_on_both(mixture, simulated, tmp_path, method, pattern, **parameters)
    assert not waits["methods/expert_drop/method.py ExpertDrop._merged"], "experts are compared in main memory"


@pytest.mark.nightly
@pytest.mark.parametrize("mixture", ["deepseek_v3"], indirect=True)
def test_channels_that_go_beside_those_of_experts_are_the_cpu_s(
    mixture: tuple[Path, Architecture], simulated: SimulatedDevice, tmp_path: Path
) -> None:
    _same_mixture_on_both(mixture, simulated, tmp_path, "frontier", "structured")
