"""Description of an exporter, as its folder gives it: the form it writes, for which models, and what that changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from core.engine.architectures.describe import Description
from core.engine.architectures.description import ModelDescription
from core.engine.cuts.losses import Losses
from core.engine.cuts.removal import Removal

Written = Literal["first", "after", "beside", "added"]
"""Moment at which a form is written: first, as every artifact; where it was asked for, after the artifact is verified;
beside every artifact of its families of tasks, while the model is in memory, so that it is verified too; or added to a
verified artifact, in files of the types that were asked for."""


@dataclass(frozen=True)
class AddedCost:
    """Cost of an added form, at most: its files' bytes, those of files beside them meanwhile, memory, operations.

    The operations are the CPU's, where the runtimes of forms run.
    """

    bytes: int = 0
    temporary_bytes: int = 0
    memory_bytes: int = 0
    operations: int = 0
    processes: int = 0


@dataclass(frozen=True)
class RuntimeExample:
    """Python that runs the `{file}` of an added form on a `{prompt}` in its runtime, from `packages`; tests run it."""

    runtime: str
    about: str
    packages: tuple[str, ...]
    script: str


@dataclass(frozen=True)
class ExporterInfo:
    """Description of a form of artifact. `summary` is a sentence for whoever has to choose.

    Lists go by `rank`, lowest first. What `replaces_weights` is restored by the client; `opening` goes before the
    card's lines on how to open the model. `changes_weights`: to values the form can hold, before the model is measured.
    `default_compression` is there where a job may say how many values are kept. `has_known_size` says that it follows
    from sparsity.
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

    def check(self, description: Description, removal: Removal | None) -> None:
        """Require that the form fits a model and a kind of removal, None where nothing goes; raises InvalidRequest."""


@dataclass(frozen=True)
class AddedExporterInfo(ExporterInfo):
    """Description of a form that is added to a verified artifact, in files of the `types` that were asked for.

    `suffix` ends the names of its files, which no job reads back. `ways_to_run` the `{file}` are pairs, of a sentence
    and shell commands; `example` is the one that a job's page shows. Files of models of up to `most_timed_parameters`
    are timed against the dense model's, where weights were removed.
    """

    types: tuple[str, ...] = ()
    suffix: str = ""
    ways_to_run: tuple[tuple[str, str], ...] = ()
    example: RuntimeExample | None = None
    most_timed_parameters: int = 0

    def check_types(self, description: ModelDescription, types: Sequence[str], losses: Losses, param: str) -> None:
        """Require that the form can be written of what becomes of a language model; raises InvalidRequest."""

    def widths(self, types: Sequence[str]) -> tuple[int, ...]:
        """Return what types want widths to be multiples of, the widest first, which may cost more."""
        return ()

    def added_cost(self, description: ModelDescription, types: Sequence[str], *, is_timed: bool) -> AddedCost:
        """Return what the form takes, of a model that is as large as before it was pruned."""
        return AddedCost()
