"""Parts of the reports that several stages write."""

import platform
from collections.abc import Sequence
from importlib.metadata import version

from core.engine.architectures.describe import Description
from core.pipeline.messages import ImageSource, ModelSource, TextSource
from core.pipeline.reports.report import ReportedModel
from secateur_wire.base import JsonObject

LOSS_POINTS = 200
"""Points of a loss curve, however many steps there were: each is the mean of the steps since the one before."""


def reported_model(source: ModelSource, description: Description) -> ReportedModel:
    """Return the model as the report has it: its headers' description without what is long."""
    described = description.model_dump(mode="json", exclude={"linears", "labels", "discovered"})
    return ReportedModel.model_validate({"name": source.name, "revision": source.revision} | described)


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of Python and of libraries."""
    return {"python": platform.python_version()} | {name: version(name) for name in libraries}


def described_text(source: TextSource | ImageSource) -> JsonObject:
    """Describe a text or image set: its name and hash, and for one of the hub its commit."""
    return {"name": source.name, "sha256": source.sha256, **source.origin}


def loss_curve(losses: Sequence[float]) -> list[tuple[int, float]]:
    """Return (steps done, mean loss) at up to LOSS_POINTS places, the last step among them; nothing of no losses."""
    if not losses:
        return []
    stride = loss_stride(len(losses))
    ends = [*range(stride, len(losses), stride), len(losses)]
    return [(end, mean_loss(losses[start:end])) for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def loss_stride(steps: int) -> int:
    """Return the steps from one point of a loss curve to the next."""
    return max(1, -(-steps // LOSS_POINTS))


def mean_loss(losses: Sequence[float]) -> float:
    """Return the mean of losses."""
    return sum(losses) / len(losses)
