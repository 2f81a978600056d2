"""Sections of the model card of a language model: its figures, its training, and the code that opens it."""

from typing import ClassVar

from core.pipeline.reports.card_parts import ratio_of_times, with_errors
from core.pipeline.reports.markdown import plain
from core.pipeline.reports.report import RecoveryReport, Report, Verification
from secateur_wire.metrics import Latency, LossFigure, Metrics


class LanguageCard:
    """Sections of the card of a language model."""

    pipeline_tag: ClassVar[str] = "text-generation"
    tags: ClassVar[tuple[str, ...]] = ()

    def figures(self, metrics: Metrics, *, pruned: bool) -> list[str]:
        """Return the table rows of a language model's answers, perplexities, bits per byte, and accuracy on tasks."""
        lines = _answers(metrics)
        for name, figures in metrics.perplexity.items():
            rows: list[tuple[str, LossFigure]] = [
                (f"perplexity, {plain(name)}, {figures.sequence_length}-token windows", figures)
            ]
            bits = figures.bits_per_byte
            if bits is not None and bits.bytes is not None and bits.ratio is not None:
                rows.append((f"bits per byte, {plain(name)}", bits))
            lines += [
                f"| {what} | {figure.dense:.3f} | {figure.pruned:.3f} (× {figure.ratio:.3f}"
                f"{_error(figure)}{_before(figure) if pruned else ''}) |"
                for what, figure in rows
            ]
        return lines + _tasks(metrics)

    def recovery(self, recovery: RecoveryReport, *, has_zeros: bool) -> list[str]:
        sparsity = recovery.sparsity
        zeros = (
            f"Sparsity {sparsity.before:.4%} before, {sparsity.after:.4%} after: every pruned weight is still zero."
            if has_zeros
            else "What was removed stays removed: training changes the weights that are left, not their number."
        )
        texts = ", ".join(plain(text.name) for text in recovery.texts)
        errors = [error for _, error in recovery.hidden_states_error]
        matched = f" The error of the hidden states went from {errors[0]:.3g} to {errors[-1]:.3g}." if errors else ""
        return [
            f"Recovered with {recovery.method} ({recovery.trained}, {recovery.trained_parameters:,} parameters): "
            f"{recovery.steps:,} steps, {recovery.tokens:,} tokens of {texts}. {zeros}{matched}",
            "",
        ]

    def latencies(self, latency: Latency) -> list[str]:
        return [
            f"| prefill of {latency.sequence_length} tokens on {latency.device} "
            f"| {latency.dense_ms:.1f} ms | {latency.pruned_ms:.1f} ms ({ratio_of_times(latency)}) |"
        ]

    def how_to_open(self, report: Report) -> list[str]:
        verification = report.verification or Verification()
        trust = ", trust_remote_code=True" if verification.trust_remote_code else ""
        quantised = report.quantization is not None
        return [
            *(["The weights are codes that `pip install compressed-tensors` lets transformers open.", ""] * quantised),
            "```python",
            "from transformers import AutoModelForCausalLM",
            "",
            f'model = AutoModelForCausalLM.from_pretrained("path/to/this/folder"{trust})',
            "```",
            "",
        ]


def _answers(metrics: Metrics) -> list[str]:
    """Return table rows of the compared answers."""
    lines = []
    for name, figures in metrics.answers.items():
        on, length = plain(name), figures.length
        if figures.kl is not None:
            error = "" if figures.kl_stderr is None else f" ± {figures.kl_stderr:.2g}"
            lines.append(
                f"| KL a token along the dense answers, {on} | 0 | {figures.kl:.3f}{error} "
                f"(the same likeliest token for {figures.top_1 or 0:.0%}) |"
            )
        ratio = "" if length.ratio is None else f" (× {length.ratio:.2f}"
        if length.ratio is not None:
            ratio += ")" if length.ratio_stderr is None else f" ± {length.ratio_stderr:.2g})"
        lines.append(f"| tokens of an answer, {on} | {length.dense:.1f} | {length.pruned:.1f}{ratio} |")
        if figures.thoughts is not None:
            thought = figures.thoughts.length
            lines.append(f"| tokens of a thought, {on} | {thought.dense:.1f} | {thought.pruned:.1f} |")
        if figures.score is not None:
            score = figures.score
            lines.append(
                f"| right answers, {on} ({score.questions} questions) | {score.dense:.1%} | {score.pruned:.1%} |"
            )
    return lines


def _tasks(metrics: Metrics) -> list[str]:
    """Return table rows of zero-shot accuracy with standard errors, one for each task and one for their mean."""
    lines = []
    for name, figures in metrics.tasks.items():
        what = f"{name} ({figures.metric}, {figures.samples:,} questions)"
        lines.append(f"| {plain(what)} | {' | '.join(with_errors(figures))} |")
    average = metrics.task_mean
    if len(lines) > 1 and average is not None:
        lines.append(f"| mean of the {len(lines)} tasks | {average.dense:.2%} | {average.pruned:.2%} |")
    return lines


def _error(figures: LossFigure) -> str:
    return "" if figures.ratio_stderr is None else f" ± {figures.ratio_stderr:.2g}"


def _before(figures: LossFigure) -> str:
    before = figures.before_recovery
    return f"; {before:.3f} before recovery" if before is not None else ""
