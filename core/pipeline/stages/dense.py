"""Facts that the dense model's figures depend on: under equal facts a job reuses them instead of measuring again."""

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version

import torch
from torch import Tensor

from core.engine.datasets.image_set import ImageSet
from core.engine.evaluation.accuracy import Accuracy, measure_accuracy
from core.engine.models.classifier import ClassifierFolder
from core.engine.models.folder import ModelFolder
from core.engine.resume.fingerprint import tensors_sha256
from core.pipeline.dense_measurements import DenseMeasurements
from core.pipeline.messages import ClassifierSpec, JobSpec, LanguageSpec
from core.pipeline.reports.dense_figures import DenseKind, Facts
from core.progress import Progress

_RELEASES = ("torch", "transformers")


def dense_figures(spec: JobSpec, progress: Progress) -> DenseMeasurements:
    """Return the dense figures of this job; each measurement reports a `dense_evaluation` metric, numbered from 1."""

    def count(kind: DenseKind, name: str, before: int) -> None:
        progress.metric("dense_evaluation", before, before + 1)

    return DenseMeasurements(spec.baseline, spec.job, log=progress.log, count=count)


def text_facts(
    spec: LanguageSpec, folder: ModelFolder, tokens: Mapping[str, Tensor], device: torch.device
) -> dict[str, Facts]:
    """Return the facts of the dense perplexity on each evaluation set; `tokens` are ids [windows, time]."""
    hashes = {text.name: text.sha256 for text in spec.evaluation}
    return {
        name: {
            "model": spec.model.revision,
            "dataset": hashes[name],
            "tokens": tensors_sha256(tokens_NT),
            "samples": tokens_NT.shape[0],
            "sequence_length": tokens_NT.shape[1],
            "dtype": folder.description.dtype,
            "device": device.type,
            **_releases(),
        }
        for name, tokens_NT in tokens.items()
    }


def dense_accuracy(
    spec: ClassifierSpec,
    folder: ClassifierFolder,
    model: torch.nn.Module,
    evaluation: Mapping[str, ImageSet],
    figures: DenseMeasurements,
) -> dict[str, Accuracy]:
    """Return the dense classifier's accuracy on each set, reused from an earlier job or measured."""
    sources = {each.name: each for each in spec.evaluation}
    accuracies = {}
    for name, images in evaluation.items():
        facts: Facts = {
            "model": spec.model.revision,
            "dataset": sources[name].sha256,
            "image_field": sources[name].image_field,
            "label_field": sources[name].label_field,
            "samples": len(images),
            "dtype": folder.description.dtype,
            "device": next(model.parameters()).device.type,
            **_releases(),
        }
        known = figures.take("accuracy", name, facts)
        if known is not None:
            values = known.values
            accuracies[name] = Accuracy(values["top1"], values["loss"], int(values["samples"]))
            continue
        accuracies[name] = measure_accuracy(model, images)
        figures.add("accuracy", name, facts, asdict(accuracies[name]))
    return accuracies


def _releases() -> Facts:
    return {name: version(name) for name in _RELEASES}
