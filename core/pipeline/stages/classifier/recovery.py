"""Recovery of an image classifier: training of what was pruned, with its zeros held."""

import torch
from torch import Tensor, nn

from core.engine.architectures.layer_shape import LinearShape
from core.engine.datasets.image_set import ImageSet
from core.engine.pruning.iterative.retraining import retrain
from core.engine.pruning.network import Network, weight_of, weights_of
from core.engine.resume.fingerprint import Runtime, fingerprint, tensors_sha256
from core.engine.resume.store import JsonObject, ResumeStore
from core.errors import ZerosRefilled
from core.pipeline.messages import ClassifierSpec
from core.pipeline.reports.report import RecoveryReport
from core.pipeline.stages.report import described_source, loss_curve
from core.progress import PartialProgress, Progress

PRUNED, MEASURED = 0.45, 0.9
"""Shares of the task's progress at which recovery begins, where there is one, and what is left is measured."""


def prune_facts(spec: ClassifierSpec) -> JsonObject:
    """Return what the rounds of a method depend on."""
    return {
        **spec.recipe.model_dump(mode="json", include={"method", "sparsity", "pattern", "parameters", "calibration"}),
        "revision": spec.model.revision,
        "images": None if spec.calibration is None else spec.calibration.sha256,
    }


def resume_store(spec: ClassifierSpec, stage: str, facts: JsonObject, device: torch.device) -> ResumeStore:
    """Return the store of what a stage resumes from; classifiers are float32."""
    return ResumeStore(spec.work, fingerprint(stage, facts, Runtime.of(device, torch.float32)), spec.previous)


def recover_classifier(
    spec: ClassifierSpec,
    network: Network,
    images: ImageSet,
    teacher: nn.Module | None,
    progress: Progress,
) -> tuple[RecoveryReport, dict[str, Tensor]]:
    """Train; return the report's part on it, and the zeros of each layer that had to stay."""
    recovery = spec.recipe.recovery
    assert recovery is not None and spec.recovery is not None
    pruned_weights = weights_of(network.model, [layer for layer in network.layers if _has_zeros(network.model, layer)])
    zeros = {name: each.detach() == 0 for name, each in pruned_weights.items()}
    facts = {
        "recovery": recovery.model_dump(mode="json"),
        "images": spec.recovery.sha256,
        "weights": tensors_sha256(*network.model.parameters()),
    }
    losses = retrain(
        network.model,
        images,
        recovery,
        pruned_weights,
        teacher=teacher,
        store=resume_store(spec, "recover", facts, network.device),
        progress=_Training(progress, recovery.steps),
    )
    total = sum(layer.numel for layer in network.layers)
    kept = sum(int(mask.sum()) for mask in zeros.values())
    report = {
        "method": recovery.method,
        "trained": "every parameter",
        "trained_parameters": sum(each.numel() for each in network.model.parameters()),
        "steps": len(losses),
        "images": len(losses) * recovery.batch_size,
        "texts": [described_source(spec.recovery)],
        "loss": loss_curve(losses),
        "sparsity": {"before": kept / total, "after": kept / total},
    }
    return RecoveryReport.model_validate(report), zeros


class _Training(PartialProgress):
    """Progress of training, with some 200 points of its loss curve."""

    def __init__(self, outer: Progress, steps: int) -> None:
        super().__init__(outer, PRUNED, MEASURED)
        self._steps = steps

    def metric(self, name: str, step: int, value: float) -> None:
        if step % max(1, self._steps // 200) == 0 or step == self._steps:
            self.outer.metric(name, step, value)


def _has_zeros(model: nn.Module, layer: LinearShape) -> bool:
    return bool((weight_of(model, layer.name) == 0).any())


def require_zeros(model: nn.Module, layers: list[LinearShape], zero_masks: dict[str, Tensor]) -> None:
    """Require that recovery left pruned weights zero. Raises ZerosRefilled naming the first layer where it did not."""
    for layer in layers:
        zeros = zero_masks.get(f"{layer.name}.weight")
        if zeros is not None and bool((weight_of(model, layer.name)[zeros] != 0).any()):
            raise ZerosRefilled(f"recovery refilled pruned weights of {layer.name}")
