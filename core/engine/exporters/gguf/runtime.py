"""llama.cpp in a process of its own, as the exporter of GGUF files sees it."""

from pathlib import Path

from core.engine.exporters.engine import RunningEngine


class LlamaCpp(RunningEngine):
    """Running llama.cpp."""

    name = "llama.cpp"
    module = "core.engine.exporters.gguf.llama_cpp"

    def quantise(self, source: Path, target: Path, number: int, importance: Path | None = None) -> None:
        """Write a file of a mixed type from a float16 one; the file `importance` has the weights of its columns."""
        partial = target.with_name(f"{target.name}.partial")
        given = {"source": str(source), "target": str(partial), "number": number, "threads": self._threads}
        self._ask("quantise", **given, importance=None if importance is None else str(importance))
        partial.replace(target)

    def open_vocabulary(self, file: Path) -> None:
        """Open only the vocabulary of a file, for token ids."""
        self._ask("open_vocabulary", file=str(file))
