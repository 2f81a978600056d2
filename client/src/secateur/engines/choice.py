"""Choice of the file of an artifact, and of the engine that runs it on this machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from secateur.engines.engine import Engine
from secateur.engines.graph import open_onnx, open_openvino
from secateur.engines.llama_cpp import LlamaCpp
from secateur.errors import RunError


@dataclass(frozen=True)
class EngineKind:
    """Engine of files that end with `suffix`, where its `modules` are installed, each by the package of that name.

    `loader` loads the packages and a file.
    """

    id: str
    name: str
    suffix: str
    modules: dict[str, str]
    loader: Callable[[Path], Engine]

    def open(self, file: Path) -> Engine:
        """Open a file; raises RunError with the engine's own reason where it does not open."""
        advice = (
            ". `secateur verify` tells whether its bytes are those of the artifact; if they are not, download it again"
        )
        with self.one_sentence(f"{file} does not open", advice):
            return self.loader(file)

    @contextmanager
    def one_sentence(self, message: str, advice: str = "") -> Iterator[None]:
        """Raise what the engine raises, whatever it is, as a RunError: the message, and the engine's own reason."""
        try:
            yield
        except (RunError, BrokenPipeError):
            raise
        except Exception as error:  # each engine has errors of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(f"{message} in {self.name}: {reason}{advice}") from error

    def missing(self) -> list[str]:
        """Return the packages that this machine lacks."""
        return [package for module, package in self.modules.items() if find_spec(module) is None]


_TEXT: Final = {"tokenizers": "tokenizers", "jinja2": "jinja2"}
KINDS: Final = (
    EngineKind("llama.cpp", "llama.cpp", ".gguf", {"llama_cpp_py_sync": "llama-cpp-py-sync"}, LlamaCpp),
    EngineKind("openvino", "OpenVINO", ".xml", {"openvino": "openvino", **_TEXT}, open_openvino),
    EngineKind("onnx", "ONNX Runtime", ".onnx", {"onnxruntime": "onnxruntime", **_TEXT}, open_onnx),
)
"""Engines, the first that is there first."""


def choose(place: Path, engine: str | None = None) -> tuple[EngineKind, Path]:
    """Return the engine and the file that it runs: a file that is given, or the smallest of a folder.

    `engine` is the id of a kind; None: the first that is installed and has a file. Raises RunError with what would do.
    """
    if not place.exists():
        job = place.name if place.name == "-" or place.name.startswith("job_") else None
        way = f": it is of a job: `secateur download {job} DIR` fetches its artifact, and `secateur run DIR` runs that"
        way = way if job else " is not there: name a folder that `secateur download` made, or one of its files"
        raise RunError(f"{place}{way}")
    files = [place] if place.is_file() else sorted(place.iterdir(), key=_bytes)
    there = [
        (kind, file) for kind in KINDS if engine in (None, kind.id) for file in files if file.name.endswith(kind.suffix)
    ]
    if not there:
        wanted = "no file" if engine is None else f"no file for {engine}"
        suffixes = ", ".join(f"*{kind.suffix}" for kind in KINDS)
        raise RunError(
            f"{place} has {wanted} that an engine runs ({suffixes}): ask a job for one (--export gguf:Q8_0, "
            "openvino:INT8, onnx:F32) and download it"
        )
    runnable = next(((kind, file) for kind, file in there if not kind.missing()), None)
    if runnable is None:
        ways = " or ".join(dict.fromkeys(f"pip install {' '.join(kind.missing())}" for kind, _ in there))
        raise RunError(f"{place}: no engine of its files is installed here: {ways}")
    return runnable


def _bytes(file: Path) -> int:
    """Return the size of a file with its weights, which a graph has in another file."""
    weights = (file.with_suffix(".bin"), file.with_name(f"{file.name}.data"))
    return sum(each.stat().st_size for each in (file, *weights) if each.is_file())
