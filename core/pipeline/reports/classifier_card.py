"""Sections of the model card of an image classifier: its figures, and the code that opens it."""

from typing import ClassVar

from core.engine.architectures.description import CLASSIFICATION
from core.engine.checkpoints.files import ONNX_FILE
from core.pipeline.reports.card_parts import ratio_of_times, with_errors
from core.pipeline.reports.markdown import plain
from core.pipeline.reports.report import RecoveryReport, Report, Verification
from secateur_wire.metrics import Accuracy, Latency, Metrics


class ClassifierCard:
    """Sections of the card of an image classifier."""

    pipeline_tag: ClassVar[str] = CLASSIFICATION
    tags: ClassVar[tuple[str, ...]] = ("onnx",)

    def figures(self, metrics: Metrics, *, pruned: bool) -> list[str]:
        """Return table rows of accuracy and loss by data set, of FLOPs, and of the ONNX file's bytes, if measured."""
        lines = []
        for name, figure in metrics.accuracy.items():
            dense, left = with_errors(figure)
            change = f"{100 * (figure.change or 0.0):+.2f} points{_before(figure)}"
            what = f"{plain(name)} ({figure.samples:,} images)"
            lines.append(f"| top-1 accuracy, {what} | {dense} | {left} ({change}) |")
            lines.append(f"| cross-entropy, {what} | {figure.dense_loss:.4f} | {figure.pruned_loss:.4f} |")
        if metrics.flops is not None:
            lines.append(f"| FLOPs for an image | {metrics.flops.dense:,} | {metrics.flops.pruned:,} |")
        if metrics.bytes is not None and metrics.bytes.onnx is not None:
            lines.append(f"| bytes of {ONNX_FILE} | | {metrics.bytes.onnx:,} |")
        return lines

    def recovery(self, recovery: RecoveryReport, *, has_zeros: bool) -> list[str]:
        """Return how the classifier was trained after pruning, and that its zeros stayed in place."""
        sparsity = recovery.sparsity
        line = f"Recovered with {recovery.method}: {recovery.steps:,} steps."
        if has_zeros and sparsity.before:
            line += f" Sparsity {sparsity.before:.4%} before, {sparsity.after:.4%} after."
        return [line, ""]

    def latencies(self, latency: Latency) -> list[str]:
        """Return a table row for each engine and batch size that was timed."""
        return [
            f"| {row.batch} image{'' if row.batch == 1 else 's'} of {_by(latency.image_shape or [])} in {row.engine} "
            f"on {row.device} | {row.dense_ms:.2f} ms | {row.pruned_ms:.2f} ms ({ratio_of_times(row)}) |"
            for row in latency.rows
        ]

    def how_to_open(self, report: Report) -> list[str]:
        """Return the code that opens the folder: by onnxruntime, and by `from_pretrained` if it builds the network."""
        verification = report.verification or Verification()
        lines = [
            "`from_pretrained` does not build this network; other jobs take it as `job:ID`. Its ONNX file runs "
            "anywhere:"
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
