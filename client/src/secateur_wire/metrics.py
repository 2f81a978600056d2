"""Figures of a job from its last attempt; the runner fills them in."""

import math
from typing import Final

from pydantic import Field

from secateur_wire.answers import AnswerFigures
from secateur_wire.base import JsonObject, Number, Record
from secateur_wire.equal_bytes import EqualBytes
from secateur_wire.weights import RESTORED

MOST_NOISE: Final = 0.5
"""Relative noise of a speed or a time beyond which it does not count as measured."""
NOT_WELL: Final = "not measured well enough"
NOISE: Final = 0.05
"""Relative difference of times up to which two runs of one model may differ, even if the rounds of each run agree."""
_LEAST_IN_TENTHS: Final = 1e-3
"""Noise from which it is shown with a tenth of a per cent."""


def latency_noise(spread: float | None) -> float:
    """Return the largest relative difference of two times that does not show a difference between the models.

    It is the `spread` between the rounds of one model where that is known, and at least `NOISE`.
    """
    return max(NOISE, float(spread or 0.0))


def is_noisy(noise: float | None) -> bool:
    """Return whether a relative noise is so large that its figure does not count as measured."""
    return noise is not None and noise > MOST_NOISE


def with_noise(shown: str, noise: float | None, ratio: float | None = None) -> str:
    """Return a figure with its relative noise as text; it is called unproven where its `ratio` to another is within."""
    if noise is None:
        return shown
    if is_noisy(noise):
        return NOT_WELL
    width = f"{noise:.1%}" if noise >= _LEAST_IN_TENTHS else f"{100 * noise:.1g}%"
    return f"{shown} ± {width}{', unproven' if ratio is not None and abs(ratio - 1) <= noise else ''}"


class LossFigure(Record):
    """Figure of the loss on one evaluation set: `ratio` is pruned over dense, `before_recovery` is before training.

    `ratio_stderr` is the standard error of the ratio over the windows of text, each compared with itself, None for too
    few windows. A value that is not finite is None.
    """

    dense: Number | None = None
    before_recovery: Number | None = None
    pruned: Number | None = None
    ratio: Number | None = None
    ratio_stderr: Number | None = None

    @property
    def pruned_stderr(self) -> float | None:
        """Return the standard error of the pruned figure, given the dense one."""
        return None if self.dense is None or self.ratio_stderr is None else self.dense * self.ratio_stderr

    @property
    def is_within_error(self) -> bool:
        """Return whether the ratio equals 1 within its standard error."""
        return self.ratio is not None and self.ratio_stderr is not None and abs(self.ratio - 1) <= self.ratio_stderr


class BitsPerByte(LossFigure):
    """Bits per byte: the negative log-likelihood of all predicted `tokens`, in bits, over their `bytes` of UTF-8 text.

    `bytes` is None where the bytes of these tokens are not known exactly. Then only the ratio is known, in which they
    cancel.
    """

    bytes: int | None = None
    tokens: int | None = None


class Perplexity(LossFigure):
    """Perplexity on one evaluation set, in windows of `sequence_length` tokens.

    Where the pruned model has fewer tokens in its vocabulary, both figures are per token of the dense model: the losses
    of the same text are divided by the same number, so that the ratio compares the models. `chance` is the perplexity
    of guessing, all tokens of the dense model's vocabulary being equally likely: their number.
    """

    sequence_length: int | None = None
    chance: int | None = None
    bits_per_byte: BitsPerByte | None = None


class TaskMean(Record):
    """The mean accuracy of all tasks."""

    dense: Number | None = None
    pruned: Number | None = None

    @property
    def change(self) -> float | None:
        """Return pruned minus dense."""
        return None if self.dense is None or self.pruned is None else self.pruned - self.dense


class MeasuredAccuracy(TaskMean):
    """Accuracy with standard errors, over `samples` images or questions."""

    dense_stderr: Number | None = None
    pruned_stderr: Number | None = None
    samples: int | None = None


class Accuracy(MeasuredAccuracy):
    """Top-1 accuracy of a classifier on one evaluation set, with standard errors.

    `difference` is pruned minus dense. The losses are means in nats, over `samples` images.
    """

    before_recovery: Number | None = None
    difference: Number | None = None
    dense_loss: Number | None = None
    pruned_loss: Number | None = None


class Operations(Record):
    """Floating-point operations of one forward over one image."""

    dense: int | None = None
    pruned: int | None = None


class TaskAccuracy(MeasuredAccuracy):
    """Zero-shot accuracy on a task, with standard errors, over `samples` questions. `metric`: acc, or acc_norm."""

    metric: str | None = None


class Sparsity(Record):
    """The share of zeros reached, over prunable weights and over the whole model."""

    prunable: Number | None = None
    model: Number | None = None


class Parameters(Record):
    """Numbers of parameters."""

    dense: int | None = None
    nonzero: int | None = None


class VocabularySize(Record):
    """Numbers of tokens in the vocabulary."""

    dense: int
    pruned: int


class Sizes(Record):
    """Bytes of the weights, of their packed or hashed files, and of a classifier's ONNX file.

    `cache` are those of the artifact's keys and values, where the target limits memory.
    """

    dense: int | None = None
    artifact: int | None = None
    cache: int | None = None
    onnx: int | None = None
    packed: int | None = None
    hashed: int | None = None

    @property
    def restored_from(self) -> str | None:
        """Return the form of the weight files, where `secateur_wire.weights` has to restore plain ones."""
        return next((form for form in RESTORED if getattr(self, form, None) is not None), None)

    @property
    def stored(self) -> int | None:
        """Return the bytes of the weights as they are stored."""
        form = self.restored_from
        stored: int | None = self.artifact if form is None else getattr(self, form)
        return stored


class TokenRate(Record):
    """Tokens per second of both models, medians over alternating rounds.

    `spread` is the relative excess of a model's slowest round over its fastest, `noise` the largest relative difference
    that may be due to chance.
    """

    dense: Number
    pruned: Number
    spread: Number
    noise: Number

    @property
    def ratio(self) -> float:
        """Return pruned over dense."""
        return self.pruned / self.dense


class ExportSpeed(Record):
    """Speed of a file in its form's runtime, on the worker, compared with the dense model in a file of the same type.

    `prefill` is the speed of reading a prompt, and `decode` that of generating token by token. `dense_bytes` is the
    size of the dense model's file.
    """

    prefill: TokenRate
    decode: TokenRate
    prompt_tokens: int
    decoded_tokens: int
    rounds: int
    threads: int
    dense_bytes: int


class FileSpeed(Record):
    """Tokens per second of a file of the unpruned model in its form's runtime, on the worker; medians over rounds.

    Their noise is the largest relative difference that may be due to chance.
    """

    prefill: Number
    decode: Number
    prefill_noise: Number | None = None
    decode_noise: Number | None = None
    prompt_tokens: int
    decoded_tokens: int
    rounds: int
    threads: int


class ExportedFile(Record):
    """File of a form that was added to the artifact, and the difference of its predictions from the artifact's.

    `kl` is the mean KL divergence in nats, `top_1` the share of equal most likely tokens, over `predictions` tokens in
    the form's own runtime. `perplexity` is the file's, and `artifact_perplexity` the artifact's, on the same windows.
    `other_types` lists the matrices that could not be stored in the file's type, with their types. `speed` compares the
    file with the dense model's, `own_speed` is that of the dense model's file itself. `needs` are the artifact's other
    files without which it does not run, such as its weights and the tokenizer; `bytes` counts its weights. `decoded_kl`
    is the mean over the tokens that were computed one by one, with the keys and values of those before.
    `importance_tokens` is the number of calibration tokens from which the importance of inputs was measured, if the
    file was rounded by it.
    """

    file: str
    format: str
    type: str
    bytes: int
    needs: list[str] = Field(default_factory=list)
    kl: Number | None = None
    decoded_kl: Number | None = None
    top_1: Number | None = None
    perplexity: Number | None = None
    artifact_perplexity: Number | None = None
    predictions: int | None = None
    other_types: dict[str, list[str]] = Field(default_factory=dict)
    importance_tokens: int | None = None
    speed: ExportSpeed | None = None
    own_speed: FileSpeed | None = None

    @property
    def perplexity_ratio(self) -> float | None:
        """Return the file's perplexity over the artifact's."""
        if self.perplexity is None or not self.artifact_perplexity:
            return None
        return self.perplexity / self.artifact_perplexity

    @property
    def bits_per_byte_ratio(self) -> float | None:
        """Return the file's bits per byte over the artifact's: ln of both perplexities, on the same bytes."""
        if not self.perplexity or not self.artifact_perplexity or self.artifact_perplexity <= 1:
            return None
        return math.log(self.perplexity) / math.log(self.artifact_perplexity)


class Timing(Record):
    """Milliseconds of both models, medians over alternating rounds in one run.

    `spread` is the relative excess of the slowest round over the fastest, `dense_spread` that of the dense model;
    `noise` is the largest relative difference that may be due to chance. A classifier's times are for a `batch` in an
    `engine`.
    """

    dense_ms: Number | None = None
    pruned_ms: Number | None = None
    spread: Number | None = None
    dense_spread: Number | None = None
    noise: Number | None = None
    engine: str | None = None
    device: str | None = None
    batch: int | None = None

    @property
    def ratio(self) -> float | None:
        """Return pruned over dense."""
        return self.pruned_ms / self.dense_ms if self.pruned_ms is not None and self.dense_ms else None


class Latency(Timing):
    """Time of a forward, and for a language model of decoding a token; a classifier's `rows` are by engine and batch.

    The times of a classifier itself are those of the first row.
    """

    decode_dense_ms: Number | None = None
    decode_pruned_ms: Number | None = None
    decode_spread: Number | None = None
    decode_dense_spread: Number | None = None
    rounds: int | None = None
    sequence_length: int | None = None
    image_shape: list[int] | None = None
    rows: list[Timing] = Field(default_factory=list)


class TargetReached(Record):
    """Target of the job and the value that the artifact reached: `kind` is the target's field, such as parameters.

    `spread` is the relative difference between the timings of a latency; `sparsity` is the one that the target resolved
    to.
    """

    kind: str
    asked: Number
    reached: Number
    met: bool
    spread: Number = 0.0
    sparsity: Number | None = None


class LayerSensitivity(Record):
    """Figures of a job that measures each layer by itself: the layers, the rates for each, and the most sensitive
    layers.
    """

    dense: JsonObject = Field(default_factory=dict)
    layers: int | None = None
    rates: int | None = None
    most_sensitive: str | None = None


class Alternative(Record):
    """Copy of the dense model that is smaller without pruning, with the `output` of a `none` job that makes it.

    `bytes` are those of its tensors, or of its file where a job wrote it, and `basis` says which. `ratio` is `bytes`
    over the dense model's bytes. `kl` (mean divergence in nats) and `top_1` (share of equal likeliest tokens, or of
    images of equal class) compare it with the dense model; `perplexity_ratio` and `bits_per_byte_ratio` are its figures
    over the dense model's, on the worst text. `prefill` and `decode` are tokens per second in the file's runtime, each
    with the largest relative difference that may be due to chance.
    Figures that no job measured are None. `output` is empty where no job makes the copy.
    """

    name: str
    output: JsonObject
    bytes: int
    ratio: Number
    basis: str
    kl: Number | None = None
    top_1: Number | None = None
    perplexity_ratio: Number | None = None
    bits_per_byte_ratio: Number | None = None
    prefill: Number | None = None
    decode: Number | None = None
    prefill_noise: Number | None = None
    decode_noise: Number | None = None

    @property
    def quality(self) -> str:
        """Return its measured quality in words."""
        figures = []
        if self.kl is not None:
            figures.append(f"KL {self.kl:.2g} nats")
        if self.top_1 is not None:
            figures.append(f"the same prediction for {self.top_1:.1%}")
        if self.bits_per_byte_ratio is not None:
            figures.append(f"bits per byte × {self.bits_per_byte_ratio:.4g}")
        elif self.perplexity_ratio is not None:
            figures.append(f"perplexity × {self.perplexity_ratio:.4g}")
        return ", ".join(figures) or "quality not measured yet"

    @property
    def words(self) -> str:
        """Return its measured quality and speed in words."""
        if self.decode is None:
            return self.quality
        speed = with_noise(f"{self.decode:.3g} tokens/s written", self.decode_noise)
        return f"{self.quality}, {f'speed {NOT_WELL}' if speed == NOT_WELL else speed}"


class Seconds(Record):
    """Wall time in total, and of each stage by its name."""

    prune: Number | None = None
    total: Number | None = None


class Metrics(Record):
    """Figures of a job, as far as they were measured; `alternatives` are what the dense model takes without pruning.

    `answers` compares the models' answers to the questions of each set, `equal_bytes` the artifact with the best dense
    file of no more bytes on each evaluation set.
    """

    perplexity: dict[str, Perplexity] = Field(default_factory=dict)
    accuracy: dict[str, Accuracy] = Field(default_factory=dict)
    flops: Operations | None = None
    tasks: dict[str, TaskAccuracy] = Field(default_factory=dict)
    task_mean: TaskMean | None = None
    answers: dict[str, AnswerFigures] = Field(default_factory=dict, exclude_if=lambda answers: not answers)
    sensitivity: LayerSensitivity | None = None
    sparsity: Sparsity | None = None
    parameters: Parameters | None = None
    vocabulary: VocabularySize | None = Field(default=None, exclude_if=lambda size: size is None)
    bytes: Sizes | None = None
    exports: list[ExportedFile] = Field(default_factory=list)
    latency: Latency | None = None
    target: TargetReached | None = None
    alternatives: list[Alternative] = Field(default_factory=list)
    equal_bytes: dict[str, EqualBytes] = Field(default_factory=dict, exclude_if=lambda compared: not compared)
    seconds: Seconds | None = None
    peak_memory_bytes: int | None = None
