"""Figures of a job, as its last attempt measured them."""

from pydantic import Field

from secateur_wire.base import WireModel


class Perplexity(WireModel):
    """Perplexity on one evaluation set: `ratio` is pruned over dense; `before_recovery` is pruned, before training."""

    dense: float | None = None
    before_recovery: float | None = None
    pruned: float | None = None
    ratio: float | None = None
    sequence_length: int | None = None


class Accuracy(WireModel):
    """Top-1 accuracy of a classifier on one evaluation set, with standard errors.

    The losses are means in nats, over `samples` images.
    """

    dense: float | None = None
    before_recovery: float | None = None
    pruned: float | None = None
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    dense_loss: float | None = None
    pruned_loss: float | None = None
    samples: int | None = None


class Operations(WireModel):
    """Floating-point operations of one forward over one image."""

    dense: int | None = None
    pruned: int | None = None


class TaskAccuracy(WireModel):
    """Zero-shot accuracy on a task, with standard errors, over `samples` questions. `metric`: acc, or acc_norm."""

    dense: float | None = None
    pruned: float | None = None
    dense_stderr: float | None = None
    pruned_stderr: float | None = None
    metric: str | None = None
    samples: int | None = None


class TaskMean(WireModel):
    """The mean accuracy of all tasks."""

    dense: float | None = None
    pruned: float | None = None


class Sparsity(WireModel):
    """The share of zeros reached, over prunable weights and over the whole model."""

    prunable: float | None = None
    model: float | None = None


class Parameters(WireModel):
    """Numbers of parameters."""

    dense: int | None = None
    nonzero: int | None = None


class Sizes(WireModel):
    """Bytes of the weights, and of their files where they are packed or hashed."""

    dense: int | None = None
    artifact: int | None = None
    packed: int | None = None
    hashed: int | None = None

    @property
    def stored(self) -> int | None:
        """Return the bytes of the weights as they are stored."""
        return next((each for each in (self.packed, self.hashed) if each is not None), self.artifact)


class Latency(WireModel):
    """Milliseconds, measured alternately in one run. `noise` is the relative difference that proves nothing."""

    dense_ms: float | None = None
    pruned_ms: float | None = None
    noise: float | None = None


class TargetReached(WireModel):
    """Target of the job and what the artifact reached: `kind` is parameters, bytes or latency_ratio.

    `spread` is by how much, relative, the timings of a latency differ; `sparsity` is the one the target resolved to.
    """

    kind: str
    asked: float
    reached: float
    met: bool
    spread: float = 0.0
    sparsity: float | None = None


class Seconds(WireModel):
    """Wall time."""

    prune: float | None = None
    total: float | None = None


class Metrics(WireModel):
    """The figures of a job, as far as it came."""

    perplexity: dict[str, Perplexity] = Field(default_factory=dict)
    accuracy: dict[str, Accuracy] = Field(default_factory=dict)
    flops: Operations | None = None
    tasks: dict[str, TaskAccuracy] = Field(default_factory=dict)
    task_mean: TaskMean | None = None
    sparsity: Sparsity | None = None
    parameters: Parameters | None = None
    bytes: Sizes | None = None
    latency: Latency | None = None
    target: TargetReached | None = None
    seconds: Seconds | None = None
    peak_memory_bytes: int | None = None
