"""Exporter of GGUF files."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from safetensors.numpy import save_file

from core.engine.exporters.agreement import (
    Agreement,
    Reference,
    compare,
    compared_windows,
    require_bound,
    require_token_ids,
)
from core.engine.exporters.engine import running
from core.engine.exporters.engine_files import EngineFiles, cores_of
from core.engine.exporters.gguf.codes import codes_note, holds_codes
from core.engine.exporters.gguf.file_types import ALL_TYPES, FIRST, NEAR_EXACT
from core.engine.exporters.gguf.info import INFO
from core.engine.exporters.gguf.runtime import LlamaCpp
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.tensors import placed_tensors
from core.engine.exporters.gguf.vocabulary import Vocabulary, read_vocabulary
from core.engine.exporters.gguf.writer import other_types, write_gguf, write_vocabulary
from core.engine.exporters.protocols import AddedForm, Importance
from core.engine.models.folder import ModelFolder
from secateur_wire.metrics import ExportedFile

_IMPORTANCE: Final = "importance.partial"
_WITHOUT: Final = (
    "leave {kind} out and keep F16, or prune less, as a model that has lost most of what it knew is changed by rounding"
)
_INSTEAD: Final = "leave gguf out of output.exports, or prune less, where the artifact has lost most of what it knew"


class GgufFiles(EngineFiles):
    """Files for llama.cpp, one of each type. Each must pass its gate before the next is written."""

    info = INFO
    engine = LlamaCpp

    def require_possible(self, folder: ModelFolder) -> None:
        self.require_runtime()
        settings, tokenizer = read_settings(folder), folder.tokenizer()
        deque(placed_tensors(folder, settings), maxlen=0)
        vocabulary = read_vocabulary(folder.path, tokenizer, settings.vocabulary)
        with TemporaryDirectory() as place, running(LlamaCpp, largest_file=0, tokens=0, threads=1) as llama_cpp:
            file = Path(place) / "vocabulary.gguf"
            write_vocabulary(file, settings, vocabulary)
            llama_cpp.open_vocabulary(file)
            require_token_ids(llama_cpp, tokenizer, vocabulary.probes(), file.name)

    def reads_importance(self, folder: ModelFolder, types: Sequence[str]) -> bool:
        return any(ALL_TYPES[kind].is_mixed and not holds_codes(folder, kind) for kind in types)

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
        settings, tokenizer = read_settings(folder), folder.tokenizer()
        vocabulary = read_vocabulary(folder.path, tokenizer, settings.vocabulary)
        windows_NT = compared_windows(documents, tokenizer, settings.context)
        reference = Reference(folder, windows_NT, device)
        first, weights = folder.path / _file_name(FIRST), folder.path / _IMPORTANCE
        if importance is not None:
            _write_importance(weights, folder, settings, importance)
        cores = cores_of(threads)
        coded = {kind for kind in types if holds_codes(folder, kind)}
        mixed = {kind for kind in types if ALL_TYPES[kind].is_mixed} - coded
        ordered = sorted({*types, FIRST}, key=lambda kind: (kind != FIRST, types.index(kind) if kind in types else 0))
        exported = {}
        try:
            for kind in ordered:
                file = folder.path / _file_name(kind)
                log(f"writing {file.name}")
                if kind not in mixed:
                    write_gguf(file, folder, settings, vocabulary, kind=kind, name=name)
                largest = max(each.stat().st_size for each in (first, file) if each.exists())
                with running(LlamaCpp, largest_file=largest, tokens=windows_NT.numel(), threads=cores) as llama_cpp:
                    if kind in mixed:
                        llama_cpp.quantise(first, file, ALL_TYPES[kind].number, None if importance is None else weights)
                    llama_cpp.open(file, windows_NT.shape[1])
                    if kind == FIRST:
                        require_token_ids(llama_cpp, tokenizer, vocabulary.probes(), file.name)
                    log(f"running {file.name} in llama.cpp")
                    # A fault of the conversion shows in any window; only files that are kept are measured on all.
                    agreement = compare(llama_cpp, reference, None if kind in types else 1)
                require_agreement(agreement, kind, file.name, has_codes=kind in coded)
                facts: dict[str, Any] = {"other_types": other_types(file, kind)}
                if importance is not None and kind in mixed:
                    facts["importance_tokens"] = importance.tokens
                exported[kind] = self.exported_file(file, kind, agreement).model_copy(update=facts)
        finally:
            weights.unlink(missing_ok=True)
            if FIRST not in types:
                with suppress(FileNotFoundError):
                    first.unlink()
        return AddedForm(
            files=[exported[kind] for kind in types],
            runtime=f"llama.cpp of llama-cpp-py-sync {version('llama-cpp-py-sync')}",
            notes=[
                *_notes(settings, vocabulary, exported),
                *_importance_notes(exported, importance),
                *(
                    codes_note(exported[kind].file, folder, settings, kind)
                    for kind in types
                    if folder.is_quantised and ALL_TYPES[kind].block > 1
                ),
            ],
        )

    def context(self, folder: ModelFolder) -> int:
        return read_settings(folder).context

    def dense_files(
        self, dense: ModelFolder, place: Path, types: Sequence[str], threads: int, log: Callable[[str], None]
    ) -> Callable[[str], Path]:
        settings = read_settings(dense)
        vocabulary = read_vocabulary(dense.path, dense.tokenizer(), settings.vocabulary)

        def written(kind: str) -> Path:
            file = place / f"dense-{kind}.gguf"
            if not file.exists():
                write_gguf(file, dense, settings, vocabulary, kind=kind, name="dense")
            return file

        def dense_file(kind: str) -> Path:
            for each in place.iterdir():  # one file exists at a time, beside the one that the others are made from
                if each.name != f"dense-{FIRST}.gguf":
                    each.unlink()
            if not ALL_TYPES[kind].is_mixed or holds_codes(dense, kind):
                return written(kind)
            source, file = written(FIRST), place / f"dense-{kind}.gguf"
            with running(LlamaCpp, largest_file=source.stat().st_size, tokens=1, threads=threads) as llama_cpp:
                llama_cpp.quantise(source, file, ALL_TYPES[kind].number)
            return file

        return dense_file


def _importance_notes(exported: Mapping[str, ExportedFile], importance: Importance | None) -> list[str]:
    files = [each.file for each in exported.values() if each.importance_tokens]
    if importance is None or not files:
        return []
    return [
        f"{', '.join(files)}: rounded with an importance matrix, the mean square of each input of the artifact's "
        f"linear layers over {importance.tokens:,} tokens of {importance.text}."
    ]


def require_agreement(agreement: Agreement, kind: str, file: str, *, has_codes: bool = False) -> None:
    """Require that a file keeps the bound of its type; raises ExportMismatch with both figures and a remedy.

    With `has_codes` the file has the codes of the artifact. llama.cpp rounds the inputs that they multiply to 8 bits,
    as in files of Q8_0, whose bound is then kept.
    """
    instead = _INSTEAD if kind == FIRST else _WITHOUT.format(kind=kind)
    most_kl = ALL_TYPES[NEAR_EXACT if has_codes else kind].most_kl
    require_bound(agreement, most_kl, file, "llama.cpp", instead)


def _write_importance(target: Path, folder: ModelFolder, settings: GgufSettings, importance: Importance) -> None:
    """Write the importance matrix: weights of columns, float32 [columns], by the names of a file's matrices.

    Matrices that are stacks, such as those of experts, have none.
    """
    by_entry = {folder.tensors[f"{name}.weight"].name: squares for name, squares in importance.mean_squares.items()}
    weights = {}
    for placed in placed_tensors(folder, settings):
        squares_I = by_entry.get(placed.entries[0].name)
        if squares_I is not None and placed.name.endswith(".weight") and placed.shape[1:] == tuple(squares_I.shape):
            weights[placed.name] = np.ascontiguousarray(squares_I.float().numpy())
    save_file(weights, target)


def _file_name(kind: str) -> str:
    return f"model-{kind}.gguf"


def _notes(settings: GgufSettings, vocabulary: Vocabulary, exported: dict[str, ExportedFile]) -> list[str]:
    notes = []
    if settings.window is not None:
        notes.append(
            f"llama.cpp attends to all tokens of a context, this model to the last {settings.window}: its GGUF files "
            "say that this is their context, within which both are the same."
        )
    if vocabulary.is_composed:
        notes.append(
            "llama.cpp reads a text as it is, this model's tokenizer composes its characters first (NFC): texts with "
            "decomposed accents fall into other tokens in GGUF files."
        )
    for each in exported.values():
        if each.other_types:
            others = "; ".join(f"{', '.join(names)} are {kind}" for kind, names in each.other_types.items())
            notes.append(
                f"{each.file}: matrices whose rows are no complete blocks of its type, or whose scales float16 does "
                f"not hold, are stored in another type: {others}."
            )
    return notes
