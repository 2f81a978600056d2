"""Description of an exporter, as its folder gives it: the form it writes, for which models, and what that changes."""

from dataclasses import dataclass
from typing import Literal

from core.engine.architectures.describe import Description

Written = Literal["first", "after", "beside"]
"""Moment at which a form is written: first, as every artifact; where it was asked for, after the artifact is verified;
or beside every artifact of its families of tasks, while the model is in memory, so that it is verified too."""


@dataclass(frozen=True)
class ExporterInfo:
    """Description of a form of artifact. `summary` is a sentence for whoever has to choose.

    Lists go by `rank`, lowest first. What `replaces_weights` is restored by the client; `opening` goes before the
    card's lines on how to open the model.
    `changes_weights`: to values the form can hold, before the model is measured. `default_compression` is there where a
    job may say how many values are kept. `has_known_size` says that it follows from sparsity.
    """

    id: str
    rank: int
    written: Written
    task_families: tuple[str, ...] = ("language-model", "image-classification")
    summary: str = ""
    opening: str = ""
    replaces_weights: bool = False
    changes_weights: bool = False
    leaves_out_zeros: bool = False
    has_known_size: bool = True
    default_compression: float | None = None

    def check(self, description: Description, pattern: str) -> None:
        """Require that the form fits a model, and what is pruned of it; raises InvalidRequest."""
