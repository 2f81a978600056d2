"""llama.cpp in a process of its own, as the exporter of GGUF files sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from core.engine.exporters.engine import RunningEngine, running
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.gguf.info import LLAMA_CPP
from secateur_wire.errors import InvalidRequest


def require_runtime() -> None:
    """Require that llama.cpp is installed; raises InvalidRequest with the command that installs it."""
    if not LLAMA_CPP.is_installed:
        raise InvalidRequest(
            f"{PARAM}: this worker has no llama.cpp, which GGUF files are checked by: install it there with "
            "pip install 'secateur-server[gguf]', or leave gguf out",
            param=PARAM,
        )


class LlamaCpp(RunningEngine):
    """Running llama.cpp."""

    name = "llama.cpp"
    module = "core.engine.exporters.gguf.llama_cpp"

    def quantise(self, source: Path, target: Path, number: int) -> None:
        """Write a file of a mixed type from a float16 one."""
        partial = target.with_name(f"{target.name}.partial")
        self._ask("quantise", source=str(source), target=str(partial), number=number, threads=self._threads)
        partial.replace(target)

    def open_vocabulary(self, file: Path) -> None:
        """Open only the vocabulary of a file, for token ids."""
        self._ask("open_vocabulary", file=str(file))


@contextmanager
def running_llama_cpp(*, largest_file: int, tokens: int, threads: int) -> Iterator[LlamaCpp]:
    """Run llama.cpp inside the context, as `running` does."""
    with running(LlamaCpp, largest_file=largest_file, tokens=tokens, threads=threads) as llama_cpp:
        yield llama_cpp
