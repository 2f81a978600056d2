"""Speed of GGUF files in llama.cpp: those of an artifact against the dense model's, in turn in one process."""

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from core.engine.exporters.gguf.file_types import ALL_TYPES, FIRST
from core.engine.exporters.gguf.runtime import Seconds, running_llama_cpp
from core.engine.exporters.gguf.settings import read_settings
from core.engine.exporters.gguf.sizes import DECODED_TOKENS, MOST_ROUNDS, PROMPT_TOKENS
from core.engine.exporters.gguf.vocabulary import read_vocabulary
from core.engine.exporters.gguf.writer import write_gguf
from core.engine.models.folder import ModelFolder
from core.engine.options.latency_budget import latency_noise
from secateur_wire.metrics import ExportSpeed, TokenRate

SECONDS: Final = 40.0
"""Time for the rounds of one type, as far as the fewest rounds allow."""


def measure_speeds(
    dense: ModelFolder,
    files: Mapping[str, Path],
    place: Path,
    *,
    threads: int | None,
    log: Callable[[str], None],
) -> dict[str, ExportSpeed]:
    """Return the speed of each file, given by its type, against the dense model in a file of the same type.

    The dense model's files are written below `place`, one at a time beside the one that others are made from, and
    removed.
    """
    settings = read_settings(dense)
    vocabulary = read_vocabulary(dense.path, dense.tokenizer(), settings.vocabulary)
    cores = threads or len(os.sched_getaffinity(0))
    prompt = max(min(PROMPT_TOKENS, settings.context - DECODED_TOKENS), 1)
    measured = {}
    with TemporaryDirectory(dir=place, prefix="dense-") as folder:

        def write(kind: str) -> Path:
            file = Path(folder) / f"dense-{kind}.gguf"
            if not file.exists():
                write_gguf(file, dense, settings, vocabulary, kind=kind, name="dense")
            return file

        for kind, file in files.items():
            log(f"timing {file.name} and the dense model in llama.cpp")
            is_mixed = ALL_TYPES[kind].is_mixed
            source = write(FIRST) if is_mixed else write(kind)
            tokens = 2 * (MOST_ROUNDS + 1) * (prompt + DECODED_TOKENS)
            with running_llama_cpp(largest_file=source.stat().st_size, tokens=tokens, threads=cores) as llama_cpp:
                other = source
                if is_mixed:
                    other = source.with_name(f"dense-{kind}.gguf")
                    llama_cpp.quantise(source, other, ALL_TYPES[kind].number)
                seconds = llama_cpp.speeds(
                    (other, file), prompt=prompt, decoded=DECODED_TOKENS, most_rounds=MOST_ROUNDS, seconds=SECONDS
                )
            measured[kind] = _speed(seconds, prompt, cores, other.stat().st_size)
            if kind != FIRST:
                other.unlink()
    return measured


def _speed(seconds: Seconds, prompt: int, threads: int, dense_bytes: int) -> ExportSpeed:
    prefill, decode = (
        _rate(tokens, *([each[place] for each in rounds] for rounds in seconds))
        for place, tokens in enumerate((prompt, DECODED_TOKENS))
    )
    return ExportSpeed(
        prefill=prefill,
        decode=decode,
        prompt_tokens=prompt,
        decoded_tokens=DECODED_TOKENS,
        rounds=len(seconds[0]),
        threads=threads,
        dense_bytes=dense_bytes,
    )


def _rate(tokens: int, dense: Sequence[float], pruned: Sequence[float]) -> TokenRate:
    spread = max(max(each) / min(each) - 1 for each in (dense, pruned))
    return TokenRate(
        dense=tokens / statistics.median(dense),
        pruned=tokens / statistics.median(pruned),
        spread=spread,
        noise=latency_noise(spread),
    )
