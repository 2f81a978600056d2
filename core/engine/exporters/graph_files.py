"""Exporter of a language model's graph: files of each type, each compared with the artifact in its engine."""

import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, Final

import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from core.engine.checkpoints.files import COMPANIONS, CONFIG_FILE, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from core.engine.exporters.agreement import Reference, compare, compared_windows, require_bound, require_token_ids
from core.engine.exporters.engine import running
from core.engine.exporters.engine_files import EngineFiles, cores_of
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.graph_info import GraphInfo
from core.engine.exporters.graph_trace import decoder_of, quiet
from core.engine.exporters.probe_lines import varied_lines
from core.engine.exporters.protocols import AddedForm, Importance
from core.engine.exporters.sizes import DECODED_TOKENS, PROBES
from core.engine.models.folder import ModelFolder
from secateur_wire.errors import ExportFailed, InvalidRequest

_READ_WITH: Final = (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE, TEMPLATE_FILE, CONFIG_FILE, "generation_config.json")
"""Files of the artifact that texts are read with; a graph has no tokenizer."""
assert set(_READ_WITH) <= set(COMPANIONS)


class GraphFiles(EngineFiles):
    """Files of a graph, one or two of each type. The graph is traced once; each type must pass its gate."""

    info: ClassVar[GraphInfo]

    @abstractmethod
    def write(self, model: PreTrainedModel, files: Mapping[str, Path]) -> None:
        """Write the graph of a model in float32, which keeps its place in memory, as the files of each type."""

    @abstractmethod
    def weights_of(self, file: Path) -> Path:
        """Return the file beside a graph that has its weights."""

    def require_possible(self, folder: ModelFolder) -> None:
        self.require_runtime()
        self._tokenizer(folder)

    def export(
        self,
        folder: ModelFolder,
        types: Sequence[str],
        documents: Iterable[str],
        *,
        name: str,
        device: torch.device,
        threads: int | None,
        log: Callable[[str], None],
        importance: Importance | None = None,
    ) -> AddedForm:
        self.require_runtime()
        tokenizer = self._tokenizer(folder)
        windows_NT = compared_windows(documents, tokenizer, folder.description.context_length)
        reference = Reference(folder, windows_NT, device)
        log(f"tracing the model for {self.engine.name}")
        files = self._write(folder, folder.path, types, self.info.file_name)
        exported = []
        for kind, file in files.items():
            log(f"running {file.name} in {self.engine.name}")
            size = self.size(file)
            cores = cores_of(threads)
            tokens = self.slow_tokens(kind, windows_NT.numel())
            with running(self.engine, largest_file=size, tokens=tokens, threads=cores) as engine:
                engine.open(file, windows_NT.shape[1])
                require_token_ids(engine, tokenizer, varied_lines(PROBES), file.name)
                agreement = compare(engine, reference, decoded=min(DECODED_TOKENS, windows_NT.shape[1] // 2))
            instead = (
                f"leave {self.info.id} {kind} out, or prune less, where the artifact has lost most of what it knew"
            )
            require_bound(agreement, self.info.bounds[kind], file.name, self.engine.name, instead)
            needed = (self.weights_of(file).name, *(each for each in _READ_WITH if (folder.path / each).is_file()))
            exported.append(self.exported_file(file, kind, agreement, needed))
        return AddedForm(files=exported, runtime=self._version(), notes=[])

    def context(self, folder: ModelFolder) -> int:
        return folder.description.context_length

    def dense_files(
        self, dense: ModelFolder, place: Path, types: Sequence[str], threads: int, log: Callable[[str], None]
    ) -> Callable[[str], Path]:
        log(f"tracing the dense model for {self.engine.name}")
        files = self._write(dense, place, types, lambda kind: f"dense-{self.info.file_name(kind)}")
        return lambda kind: files[kind]

    def write_model(self, model: PreTrainedModel, files: Mapping[str, Path]) -> None:
        """Write a model as `write` does, in silence; raises ExportFailed where it cannot be traced."""
        try:
            with quiet():
                self.write(model, files)
        except Exception as error:  # tracing raises many types, and says much
            raise ExportFailed(
                f"the model cannot be traced for {self.engine.name}: {' '.join(str(error).split())[:600]}", param=PARAM
            ) from error

    def _write(
        self, opened: ModelFolder, folder: Path, types: Sequence[str], file_name: Callable[[str], str]
    ) -> dict[str, Path]:
        """Write the files of each type, and rename them once all are complete; a graph names its weights' file."""
        partial = folder / f"{self.info.id}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of an attempt that was ended
        partial.mkdir()
        files = {kind: partial / file_name(kind) for kind in types}
        self.write_model(decoder_of(opened), files)
        for file in files.values():
            for each in (file, self.weights_of(file)):
                each.replace(folder / each.name)
        partial.rmdir()
        return {kind: folder / file.name for kind, file in files.items()}

    def slow_tokens(self, kind: str, tokens: int) -> int:
        # Some are decoded, and narrow weights are no less work.
        return 2 * tokens * 4 // self.info.weight_bytes[kind]

    def size(self, file: Path) -> int:
        return super().size(file) + self.weights_of(file).stat().st_size

    def _version(self) -> str:
        return ", ".join(f"{name} {version(name)}" for name in self.info.packages)

    def _tokenizer(self, opened: ModelFolder) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer; raises InvalidRequest where its file alone reads texts in another way."""
        tokenizer, file = opened.tokenizer(), opened.path / TOKENIZER_FILE
        if not file.is_file():
            raise self._refusal(f"has no {TOKENIZER_FILE}")
        alone, lines = Tokenizer.from_file(str(file)), varied_lines(PROBES)
        ours: list[list[int]] = tokenizer(lines)["input_ids"]
        for line, ids in zip(lines, ours, strict=True):
            if list(alone.encode(line).ids) != ids:
                raise self._refusal(f"reads {line[:100]!r} otherwise than its {TOKENIZER_FILE} does")
        return tokenizer

    def _refusal(self, why: str) -> InvalidRequest:
        return InvalidRequest(
            f"{PARAM}: the model's tokenizer {why}, and {self.engine.name} has no tokenizer of its own: leave "
            f"{self.info.id} out, or choose a model whose {TOKENIZER_FILE} reads texts alone",
            param=PARAM,
        )
