"""Recovery of a language model: train the pruned model, write it, and measure it as the pruned one was measured."""

import math
from collections import defaultdict
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.tensors import DTYPES
from core.engine.pruning.streams.measure import measure
from core.engine.recovery.language import Recovered, recover
from core.engine.recovery.request import Recovery
from core.engine.recovery.sampling import Source
from core.engine.recovery.trainable import Teacher
from core.engine.removals.weights import LayerSelection, prunable_linears
from core.engine.resume.store import versions
from core.methods.registry import get_method
from core.pipeline.messages import LanguageSpec, ModelSource
from core.pipeline.reports.report import RecoveryReport
from core.pipeline.stages.context import StageContext
from core.pipeline.stages.inputs import (
    compared_sets,
    open_place,
    recovery_set,
    spans_of,
    training_set,
    windows_of,
)
from core.pipeline.stages.pruning_spec import RecoverSpec, RecoveryOutput
from core.pipeline.stages.report import described_source, loss_curve, loss_stride, mean_loss
from core.progress import PartialProgress, Progress
from secateur_wire.errors import TooLittleText

_CLOCKED_STRIDE = 5
"""Steps between two points of the curve if the total number of steps is not known."""
_HOLDOUT_SEQUENCES = 8
"""Largest number of hold-out sequences of a stage's text: the model is measured on them, not trained."""


def recover_model(spec: RecoverSpec, context: StageContext) -> RecoveryOutput:
    """Train the pruned model, write the result and measure it.

    Raises WorkStopped if it is asked to stop, after the current step is saved.
    """
    progress, device = context.progress, context.device
    progress.stage("recover")
    folder = open_place(spec.place_of(spec.pruned))
    tokenizer = folder.tokenizer()
    recovery = spec.recipe.recovery
    assert recovery is not None
    sources: list[Source] = []
    notes: list[str] = []
    if recovery.stages:
        sources = _stage_sources(spec, recovery, tokenizer, device, notes)
        windows_NT = torch.cat([source.windows_NT for source in sources])
    else:
        windows_NT = recovery_set(spec, recovery, tokenizer, notes)
    _, sets = compared_sets(spec, tokenizer)
    selection = LayerSelection(include_lm_head=not folder.description.tied_embeddings)
    linears = [each for each in prunable_linears(folder.description, selection) if each.experts is None]
    recovered = recover(
        folder,
        recovery,
        windows_NT,
        linears=[linear.name for linear in linears],
        work=spec.work,
        previous=spec.previous,
        teacher=_teacher(spec.teacher),
        sources=sources,
        removed_layers=spec.removed_layers,
        device=device,
        progress=_TrainingProgress(progress, recovery),
        activation_budget_bytes=spec.activation_budget_bytes,
    )
    write_checkpoint(
        recovered.files,
        recovered.unchanged,
        spec.pruned,
        spec.trained,
        discovered=folder.description.discovered,
    )
    progress.stage("evaluate")
    propagation = spec.recipe.parameters.propagation_options
    measured = measure(
        open_place(spec.place_of(spec.trained)),
        windows_of(sets),
        work=spec.work / "measuring",
        device=device,
        dtype=DTYPES[open_place(spec.source).description.dtype],
        micro_batch=None if propagation is None else propagation.micro_batch,
        activation_budget_bytes=spec.activation_budget_bytes,
        spans=spans_of(sets),
    )
    return RecoveryOutput(
        perplexity=measured.perplexity,
        window_losses=measured.window_losses,
        zeros=recovered.zeros,
        expected=measured.verification,
        peak_memory=context.peak_memory(),
        notes=notes,
        recovery=_report(spec, recovery, recovered, windows_NT, sum(linear.numel for linear in linears)),
    )


def _stage_sources(
    spec: LanguageSpec, recovery: Recovery, tokenizer: PreTrainedTokenizerBase, device: torch.device, notes: list[str]
) -> list[Source]:
    """Return each stage's texts; some sequences are held out, with the dense model's loss on them as reference.

    If nothing was pruned, the teacher takes the place of the dense model; without one, or if it has other tokens, there
    is no reference.

    Raises TooLittleText if a text has fewer than two sequences.
    """
    assert recovery.stages is not None
    stages = [(number, stage) for number, stage in enumerate(recovery.stages) for _ in stage.datasets]
    sources = []
    for (stage_number, stage), text in zip(stages, spec.recovery, strict=True):
        most = stage.steps * recovery.batch_size + _HOLDOUT_SEQUENCES
        windows_NT = training_set(text, recovery, tokenizer, samples=None, most=most, notes=notes)
        if len(windows_NT) < 2:
            raise TooLittleText(
                f"recovery.stages.{stage_number}: {text.name!r} has only one sequence of {windows_NT.shape[1]} "
                "tokens, but two are needed, because one is kept apart to measure on: register more text, or use "
                "shorter sequences",
                param=f"recovery.stages.{stage_number}.datasets",
            )
        holdout = min(_HOLDOUT_SEQUENCES, max(1, len(windows_NT) // 5))
        sources.append(Source(text.name, stage_number, windows_NT[holdout:], windows_NT[:holdout], 0.0))
    reference = spec.source if get_method(spec.recipe.method).prunes else spec.teacher
    if reference is None:
        return sources
    reference_folder = open_place(reference)
    if reference_folder.description.vocabulary_size != open_place(spec.source).description.vocabulary_size:
        return sources  # a teacher that has other tokens reads other sequences
    dense = measure(
        reference_folder,
        {str(number): source.holdout_NT for number, source in enumerate(sources)},
        work=spec.work / "dense",
        device=device,
        activation_budget_bytes=spec.activation_budget_bytes,
    ).perplexity
    return [replace(source, reference=math.log(dense[str(number)])) for number, source in enumerate(sources)]


def _teacher(source: ModelSource | None) -> Teacher | None:
    if source is None:
        return None
    return Teacher(open_place(source), source.revision)


class _TrainingProgress(PartialProgress):
    """Progress of training, which collects the points of its curves."""

    def __init__(self, outer: Progress, recovery: Recovery) -> None:
        super().__init__(outer, end=0.95)
        self._steps = recovery.steps
        by_clock = recovery.minutes is not None  # it may end before most steps
        self._stride = _CLOCKED_STRIDE if by_clock else loss_stride(recovery.steps)
        self._since: defaultdict[str, list[float]] = defaultdict(list)

    def metric(self, name: str, step: int, value: float) -> None:
        self._since[name].append(value)
        if step % self._stride == 0 or step == self._steps:
            self.outer.metric(name, step, mean_loss(self._since.pop(name)))


def _report(
    spec: LanguageSpec, recovery: Recovery, recovered: Recovered, windows_NT: Tensor, prunable: int
) -> RecoveryReport:
    before, after = (sum(pair[place] for pair in recovered.zeros.values()) for place in (0, 1))
    curve = loss_curve(recovered.losses)
    return RecoveryReport.model_validate(
        {
            "method": recovery.method,
            "trained": recovered.trained,
            "trained_parameters": recovered.trained_parameters,
            "steps": len(recovered.losses),
            "rounds": recovered.rounds,
            "tokens": recovered.tokens,
            "windows": list(windows_NT.shape),
            "texts": [described_source(text) for text in spec.recovery],
            "own_text": described_source(spec.own_text),
            "teacher": None if spec.teacher is None else {"name": spec.teacher.name, "revision": spec.teacher.revision},
            "loss": curve,
            "loss_seconds": [recovered.loss_seconds[step - 1] for step, _ in curve],
            "hidden_states_error": loss_curve(recovered.hidden_errors),
            "ended_by": recovered.ending,
            "seconds": recovered.seconds,
            "resumed_from_step": recovered.resumed_from,
            "processes": recovered.processes,
            "zeros": {"before": before, "after": after},
            "sparsity": {"before": before / prunable, "after": after / prunable},
            "versions": versions(),
        }
    )
