"""Parts of the model card that only image classifiers have: their figures, and the code that opens them."""

from core.engine.checkpoints.files import ONNX_FILE
from core.engine.options.latency_budget import latency_noise
from core.pipeline.reports.markdown import plain
from core.pipeline.reports.report import RecoveryReport, Report, Verification
from secateur_wire.metrics import Accuracy, Latency, MeasuredAccuracy, Metrics, Timing

TASK = "image-classification"


def figures(metrics: Metrics) -> list[str]:
    """Return table rows of accuracy and loss by data set, FLOPs, and bytes of the ONNX file, as far as measured."""
    lines = []
    for name, figure in metrics.accuracy.items():
        dense, pruned = with_errors(figure)
        change = f"{100 * (figure.change or 0.0):+.2f} points{_before(figure)}"
        what = f"{plain(name)} ({figure.samples:,} images)"
        lines.append(f"| top-1 accuracy, {what} | {dense} | {pruned} ({change}) |")
        lines.append(f"| cross-entropy, {what} | {figure.dense_loss:.4f} | {figure.pruned_loss:.4f} |")
    if metrics.flops is not None:
        lines.append(f"| FLOPs for an image | {metrics.flops.dense:,} | {metrics.flops.pruned:,} |")
    if metrics.bytes is not None and metrics.bytes.onnx is not None:
        lines.append(f"| bytes of {ONNX_FILE} | | {metrics.bytes.onnx:,} |")
    return lines


def with_errors(figure: MeasuredAccuracy) -> tuple[str, str]:
    """Return the accuracy of both models, each with its standard error."""
    return f"{figure.dense:.2%} ± {figure.dense_stderr:.2%}", f"{figure.pruned:.2%} ± {figure.pruned_stderr:.2%}"


def recovery(recovered: RecoveryReport, *, has_zeros: bool) -> list[str]:
    """Return how it was trained after pruning, and that its zeros stayed where pruning made them."""
    sparsity = recovered.sparsity
    line = f"Recovered with {recovered.method}: {recovered.steps:,} steps."
    if has_zeros and sparsity.before:
        line += f" Sparsity {sparsity.before:.4%} before, {sparsity.after:.4%} after."
    return [line, ""]


def latencies(latency: Latency) -> list[str]:
    """Return a table row for each engine and batch that was timed."""
    return [
        f"| {row.batch} image{'' if row.batch == 1 else 's'} of {_by(latency.image_shape or [])} in {row.engine} "
        f"on {row.device} | {row.dense_ms:.2f} ms | {row.pruned_ms:.2f} ms ({ratio_of_times(row)}) |"
        for row in latency.rows
    ]


def ratio_of_times(row: Timing) -> str:
    """Return pruned ÷ dense with its noise, called unproven where the difference is no larger."""
    ratio, noise = row.ratio, latency_noise(row.spread)
    if ratio is None:
        return "not measured"
    return f"× {ratio:.3f} ± {noise:.1%}{', unproven' if abs(ratio - 1) <= noise else ''}"


def how_to_open(report: Report) -> list[str]:
    """Return the code that opens the folder: `from_pretrained` where that builds the network, onnxruntime always."""
    verification = report.verification or Verification()
    lines = [
        "`from_pretrained` does not build this network; other jobs take it as `job:ID`. Its ONNX file runs anywhere:"
    ]
    if verification.from_pretrained:
        lines = [
            "```python",
            "from transformers import AutoModelForImageClassification",
            "",
            'model = AutoModelForImageClassification.from_pretrained("path/to/this/folder")',
            "```",
            "",
            "The ONNX file gives the same logits without PyTorch:",
        ]
    shape = ", ".join(map(str, verification.image_shape))
    return [
        *lines,
        "",
        "```python",
        "import numpy",
        "import onnxruntime",
        "",
        f'session = onnxruntime.InferenceSession("path/to/this/folder/{ONNX_FILE}")',
        f"images = numpy.zeros((1, {shape}), numpy.float32)  # any number, normalised as the model was trained",
        '(logits,) = session.run(["logits"], {"pixel_values": images})',
        "```",
        "",
    ]


def _before(figure: Accuracy) -> str:
    before = figure.before_recovery
    return f"; {before:.2%} before recovery" if before is not None else ""


def _by(shape: list[int]) -> str:
    return " × ".join(map(str, shape))
