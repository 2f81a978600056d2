"""Description of an exporter, from its folder: its form, the models it applies to, and its effects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Literal

from core.engine.architectures.description import Description, ModelDescription
from core.engine.cuts import Losses, Removal
from secateur_wire.installation import SERVER, install_command

PARAM: Final = "output.exports"
"""Field of a job body that asks for added forms, as errors name it."""

Written = Literal["first", "after", "beside", "added"]
"""Moment at which a form is written. 'first': as every artifact. 'after': on request, after the artifact is verified.
'beside': with every artifact of its task families, while the model is in memory, so that it is verified too. 'added':
to a verified artifact, in files of the requested types."""


@dataclass(frozen=True)
class AddedCost:
    """Upper bound of the cost of an added form: bytes of its files, of temporary files and of memory; operations.

    The operations run on the CPU, where the forms' runtimes run.
    """

    bytes: int = 0
    temporary_bytes: int = 0
    memory_bytes: int = 0
    operations: int = 0
    processes: int = 0


@dataclass(frozen=True)
class ExportRuntime:
    """Program that runs a form's files on a worker, to check them; it is there where a Python `module` is installed.

    `extra` is the extra of the server's package that installs it.
    """

    name: str
    module: str
    extra: str

    @property
    def is_installed(self) -> bool:
        """Return whether this machine has the program; nothing is loaded."""
        return find_spec(self.module) is not None

    @property
    def how_to_install(self) -> str:
        """Return the command that installs the program on a worker."""
        return install_command(SERVER, self.extra)


@dataclass(frozen=True)
class RuntimeExample:
    """Python that runs the `{file}` (a literal) of an added form on a `{prompt}` in its runtime, from `packages`.

    Tests run it.
    """

    runtime: str
    about: str
    packages: tuple[str, ...]
    script: str


def chat_in(engine: str, *packages: str) -> tuple[str, str]:
    """Return the way to chat with a file that an engine runs, which these packages bring."""
    return (
        f"A chat in {engine}, with Secateur's command line: each line typed is answered, Ctrl-D ends it.",
        f"pip install {' '.join(packages)}\nsecateur run {{file}}",
    )


@dataclass(frozen=True)
class ExporterInfo:
    """Description of a form of artifact. `summary` is a sentence for users who choose a form.

    Lists go by `rank`, lowest first. With `replaces_weights` the client restores the dense files. `opening` goes before
    the card's lines on how to open the model. With `changes_weights` weights change to values the form can hold, before
    the model is measured. `default_compression` is set where a job may choose how many values are kept. With
    `has_known_size` the size follows from the sparsity. `runtime` is the program without which no worker writes the
    form; None where the engine itself is enough.
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
    runtime: ExportRuntime | None = None

    def check(self, description: Description, removal: Removal | None) -> None:
        """Require that the form supports a model and a kind of removal (None: no removal); raises InvalidRequest."""


@dataclass(frozen=True)
class AddedExporterInfo(ExporterInfo):
    """Description of a form that is added to a verified artifact, in files of the requested `types`.

    It is added to models of the tasks `added_to`. `suffixes` end the names of its files, which no job reads back.
    `ways_to_run` the `{file}` are pairs of a sentence and shell commands; `example` is the one on a job's page. Files
    of models of up to `most_timed_parameters` are timed against the dense model's, where weights were removed.
    `packages` are the modules that write and run the files; the extra of `runtime` installs all of them.
    `importance_types` are those that may be rounded by the importance of inputs.
    """

    added_to: tuple[str, ...] = ("language-model",)
    types: tuple[str, ...] = ()
    importance_types: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    ways_to_run: tuple[tuple[str, str], ...] = ()
    example: RuntimeExample | None = None
    most_timed_parameters: int = 0
    packages: tuple[str, ...] = ()

    def missing_packages(self) -> list[str]:
        """Return the names of the packages that this machine lacks; nothing is loaded."""
        named = {} if self.runtime is None else {self.runtime.module: self.runtime.name}
        return [named.get(each, each) for each in self.packages if find_spec(each) is None]

    def check_types(self, description: ModelDescription, types: Sequence[str], losses: Losses, param: str) -> None:
        """Require that the form can hold a language model without the lost parts; raises InvalidRequest."""

    def dense_sizes(self, description: ModelDescription) -> Mapping[str, int]:
        """Return the bytes of an unpruned model's tensors in the types that cost it little quality, by type.

        Types that cannot hold the model, or whose sizes only their runtime knows, are left out.
        """
        return {}

    def compared_types(self, description: ModelDescription) -> Sequence[str]:
        """Return the types in which an unpruned model is measured once, to compare pruned models with it."""
        return ()

    def widths(self, types: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers that should divide widths, for these types, the largest (and costliest) first."""
        return ()

    def added_cost(
        self, description: ModelDescription, types: Sequence[str], *, is_timed: bool, measured_tokens: int = 0
    ) -> AddedCost:
        """Return the cost of the form for a model as large as before pruning.

        The losses of each file are measured on `measured_tokens` tokens of text.
        """
        return AddedCost()
