"""Gates: limits on a job's figures, the figure for each limit, and the measurement that each needs."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.engine.architectures.description import ModelTask
from secateur_wire.errors import GateMissed, InvalidRequest
from secateur_wire.job_body import Evaluation, Gates
from secateur_wire.metrics import NOT_WELL, Metrics, TaskMean, is_noisy, latency_noise
from secateur_wire.reports import GateResult, GateResults

TASK_MEAN: Final = "task_mean"
"""Name of the mean over all tasks; it stands where a task's name would."""


@dataclass(frozen=True)
class _Measured:
    """A figure from the metrics, with an explanatory detail and its relative measurement error.

    `limit` is that of a gate whose limit is measured too, and not given.
    """

    value: float | None
    on: str | None = None
    detail: str = ""
    margin: float = 0.0
    limit: float | None = None


@dataclass(frozen=True)
class _Gate:
    """Kind of gate: the name of its figure, and the place of the figure in the metrics.

    `models` is the kind of model that has the figure (None: all). `needs` is the field of `evaluation` that must be set
    to measure it (None: it is always measured).
    """

    figure: str
    find: Callable[[Metrics], Iterator[_Measured]]
    models: Literal["language models", "image classifiers"] | None = None
    needs: Literal["datasets", "tasks", "answers"] | None = None
    instead: str = ""
    """The gate with the same purpose for other kinds of models."""


def evaluate_gates(gates: Gates, metrics: Metrics) -> list[GateResult]:
    """Return the result of every limit, on every dataset and task to which it applies."""
    results = []
    for name, limit in gates.model_dump(exclude_none=True).items():
        kind = _GATES[name]
        measurements = list(kind.find(metrics)) or [
            _Measured(None, detail="it was not measured: see the report's notes", limit=0.0 if limit is True else None)
        ]
        results += [
            _result(name, limit if measured.limit is None else measured.limit, kind.figure, measured)
            for measured in measurements
        ]
    return results


def gated_figure(name: str, metrics: Metrics) -> float | None:
    """Return the figure that the gate of this name compares with its limit.

    Of several figures it is the largest, and it includes the measurement error. None where one of them is unknown, or
    there is none.
    """
    measurements = list(_GATES[name].find(metrics))
    known = [
        each.value * (1 + each.margin) for each in measurements if each.value is not None and math.isfinite(each.value)
    ]
    return max(known) if known and len(known) == len(measurements) else None


def missed_gates(results: Sequence[GateResult]) -> GateMissed | None:
    """Return all missed gates as one error; its `param` names the first. None where no gate was missed."""
    missed = [result for result in results if not result.kept]
    return GateMissed("; ".join(each.message for each in missed), param=missed[0].param) if missed else None


def gates_report(gates: Gates, results: Sequence[GateResult]) -> GateResults:
    """Return the `gates` section of the report: the limits, a row for each limited figure, and the text of `missed`."""
    missed = missed_gates(results)
    return GateResults.model_validate(
        {"missed": missed and missed.message, "rows": list(results), **gates.model_dump(mode="json")}
    )


def require_measured(
    gates: Gates, evaluation: Evaluation, task: ModelTask, *, has_exports: bool = False, is_stored: bool = False
) -> None:
    """Require that the job measures the figure of every gate; raises InvalidRequest that names the missing field.

    `is_stored`: the job changes no weight, and its files are themselves those of the dense model.
    """
    if gates.beats_dense_at_equal_bytes and is_stored:
        raise InvalidRequest(
            "gates.beats_dense_at_equal_bytes compares a model with files of the dense one, which this job makes: "
            "leave it out, or choose a method that prunes",
            param="gates.beats_dense_at_equal_bytes",
        )
    if gates.max_export_kl is not None and _GATES["max_export_kl"].models == task.models and not has_exports:
        raise InvalidRequest(
            'gates.max_export_kl needs added files to compare: add "output": {"exports": [{"format": "gguf", '
            '"types": ["Q8_0"]}]}',
            param="gates.max_export_kl",
        )
    for name in gates.model_dump(exclude_none=True):
        kind, param = _GATES[name], f"gates.{name}"
        if kind.models not in (None, task.models):
            instead = f": use {kind.instead}" if kind.instead else ""
            raise InvalidRequest(f"{param} is only for {kind.models}, not for this model{instead}", param=param)
        if kind.needs is not None and not getattr(evaluation, kind.needs):
            what = task.texts if kind.needs == "datasets" else "questions"
            example = '{"datasets": ["NAME"]}' if kind.needs == "answers" else '["NAME"]'
            raise InvalidRequest(
                f'{param} needs {what} to measure on: add "evaluation": {{"{kind.needs}": {example}}}', param=param
            )


def _result(name: str, limit: float, figure: str, measured: _Measured) -> GateResult:
    value = measured.value if measured.value is not None and math.isfinite(measured.value) else None
    on = "" if measured.on is None else " of all tasks" if measured.on == TASK_MEAN else f" on {measured.on}"
    if value is None:
        message = f"{figure}{on} is unknown" + (f", {measured.detail}" if measured.detail else "")
    else:
        message = f"{figure}{on} is {_shown(value)}" + (f" ({measured.detail})" if measured.detail else "")
    most = limit / (1 + measured.margin)
    kept = value is not None and value <= most
    allowed = f"{message}; the gate allows {_shown(limit)}"
    if measured.margin and value is not None and most < value <= limit:
        allowed += f", which is unproven: with this noise {_shown(most)} keeps it"
    return GateResult(
        gate=name, limit=limit, figure=value, on=measured.on, kept=kept, message=allowed, margin=measured.margin
    )


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _perplexity_ratios(metrics: Metrics) -> Iterator[_Measured]:
    for name, figures in metrics.perplexity.items():
        yield _Measured(figures.ratio, name, "" if figures.ratio is not None else "it is not finite")


def _bits_per_byte_ratios(metrics: Metrics) -> Iterator[_Measured]:
    for name, figures in metrics.perplexity.items():
        bits = figures.bits_per_byte
        if bits is None or bits.ratio is None:
            yield _Measured(None, name, "it was not measured" if bits is None else "it is not finite")
        elif bits.dense is None or bits.pruned is None:
            yield _Measured(bits.ratio, name)
        else:
            yield _Measured(bits.ratio, name, f"from {bits.dense:.4g} to {bits.pruned:.4g} bits per byte")


def _drops(accuracies: Mapping[str, TaskMean]) -> Iterator[_Measured]:
    for name, figures in accuracies.items():
        dense, pruned = figures.dense, figures.pruned
        if dense is None or pruned is None:
            yield _Measured(None, name)
            continue
        drop = round(dense - pruned, 9)  # In binary, 0.93 - 0.92 is more than 0.01.
        yield _Measured(drop, name, f"from {dense:.2%} to {pruned:.2%}")


def _accuracy_drops(metrics: Metrics) -> Iterator[_Measured]:
    return _drops(metrics.accuracy)


def _task_accuracy_drops(metrics: Metrics) -> Iterator[_Measured]:
    """Yield the accuracy drop of each task, and of their mean where there are several."""
    average = {TASK_MEAN: metrics.task_mean} if len(metrics.tasks) > 1 and metrics.task_mean is not None else {}
    return _drops({**metrics.tasks, **average})


def _answer_kls(metrics: Metrics) -> Iterator[_Measured]:
    for name, figures in metrics.answers.items():
        error = "" if figures.kl_stderr is None else f" ± {figures.kl_stderr:.2g}"
        yield _Measured(figures.kl, name, f"nats a token{error}, over {figures.questions} answers")


def _length_factors(metrics: Metrics) -> Iterator[_Measured]:
    """Yield the factor between the lengths of the answers of each set, and of the thoughts where models think."""
    for name, figures in metrics.answers.items():
        lengths = {name: figures.length}
        if figures.thoughts is not None:
            lengths[f"{name}, thoughts"] = figures.thoughts.length
        for on, length in lengths.items():
            yield _Measured(length.factor, on, f"from {length.dense:.4g} to {length.pruned:.4g} tokens")


def _latency_ratio(metrics: Metrics) -> Iterator[_Measured]:
    latency = metrics.latency
    if latency is not None and latency.ratio is not None:
        noise = latency_noise(latency.spread)
        noisy = NOT_WELL if is_noisy(noise) else f"noise ± {noise:.1%}"
        detail = f"{latency.dense_ms:.4g} ms dense, {latency.pruned_ms:.4g} ms pruned, {noisy}"
        yield _Measured(latency.ratio, detail=detail, margin=noise)


def _bytes(metrics: Metrics) -> Iterator[_Measured]:
    if metrics.bytes is not None and metrics.bytes.stored is not None:
        yield _Measured(metrics.bytes.stored)


def _bytes_ratio(metrics: Metrics) -> Iterator[_Measured]:
    sizes = metrics.bytes
    if sizes is not None and sizes.stored is not None and sizes.dense:
        yield _Measured(sizes.stored / sizes.dense, detail=f"{sizes.stored:,} of {sizes.dense:,} bytes")


def _parameters(metrics: Metrics) -> Iterator[_Measured]:
    if metrics.parameters is not None:
        yield _Measured(metrics.parameters.nonzero)


def _export_kls(metrics: Metrics) -> Iterator[_Measured]:
    for each in metrics.exports:
        yield _Measured(each.kl, each.file)


def _differences_at_equal_bytes(metrics: Metrics) -> Iterator[_Measured]:
    """Yield the difference of bits per byte from the best dense file of no more bytes; its error is the limit."""
    for name, compared in metrics.equal_bytes.items():
        if compared.outcome is None:
            yield _Measured(None, name, compared.reason or "", limit=0.0)
        else:
            yield _Measured(compared.difference, name, compared.words, limit=compared.stderr)


_GATES: Final[Mapping[str, _Gate]] = {
    "max_perplexity_ratio": _Gate(
        "the perplexity ratio", _perplexity_ratios, "language models", "datasets", "max_accuracy_drop"
    ),
    "max_bits_per_byte_ratio": _Gate(
        "the ratio of bits per byte", _bits_per_byte_ratios, "language models", "datasets", "max_accuracy_drop"
    ),
    "max_accuracy_drop": _Gate(
        "the fall in top-1 accuracy", _accuracy_drops, "image classifiers", "datasets", "max_perplexity_ratio"
    ),
    "max_task_accuracy_drop": _Gate(
        "the fall in accuracy", _task_accuracy_drops, "language models", "tasks", "max_accuracy_drop"
    ),
    "max_answer_kl": _Gate("the KL divergence of the answers", _answer_kls, "language models", "answers"),
    "max_length_ratio": _Gate("the factor between lengths of answers", _length_factors, "language models", "answers"),
    "max_latency_ratio": _Gate("the latency ratio", _latency_ratio),
    "max_bytes": _Gate("the number of stored bytes", _bytes),
    "max_bytes_ratio": _Gate("the ratio of stored bytes", _bytes_ratio),
    "max_parameters": _Gate("the number of parameters that are not zero", _parameters),
    "max_export_kl": _Gate("the mean KL divergence", _export_kls, "language models"),
    "beats_dense_at_equal_bytes": _Gate(
        "the difference of bits per byte from the best dense file of no more bytes",
        _differences_at_equal_bytes,
        "language models",
        "datasets",
    ),
}
assert _GATES.keys() == Gates.model_fields.keys()
