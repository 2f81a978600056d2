"""Description of an engine whose times are measured, from its folder: its types of files and its version."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from core.engine.architectures.description import ModelDescription
from core.engine.cuts import Losses
from core.engine.exporters.registry import ADDED
from secateur_wire.errors import InvalidRequest


@dataclass(frozen=True)
class EngineInfo:
    """Description of an engine. `form` is the added form of artifacts that is its files; None where it runs artifacts.

    `types` are those of its files, with the bytes of a weight; the first is the default. `packages` are the
    distributions that its version is told from. Small models have at most `most_layers`, for the time of writing them.
    `without_ffn`: it runs layers of an attention alone.
    """

    id: str
    rank: int
    title: str
    types: dict[str, float]
    packages: tuple[str, ...]
    most_layers: int
    form: str | None = None
    without_ffn: bool = True

    @property
    def version(self) -> str:
        """Return the releases of the engine on this machine; raises InvalidRequest where it is not installed."""
        try:
            return ", ".join(f"{name} {version(name)}" for name in self.packages)
        except PackageNotFoundError as missing:
            raise InvalidRequest(
                f"engine: {self.title} is not installed on this worker: it lacks {missing.name}", param="engine"
            ) from missing

    def check(self, description: ModelDescription, kind: str) -> None:
        """Require that files of a type can hold the model with layers of different shapes; raises InvalidRequest."""
        if kind not in self.types:
            raise InvalidRequest(
                f"type: {self.title} has no files of type {kind!r}: use {', '.join(self.types)}", param="type"
            )
        if self.form is not None:
            ADDED[self.form].check_types(description, [kind], Losses(heads=True, different_layers=True), "engine")
