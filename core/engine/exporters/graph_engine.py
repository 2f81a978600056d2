"""Libraries that run a language model's graph, in their own process: a graph reads tokens and keeps keys and values."""

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tokenizers import Tokenizer

from core.engine.checkpoints.files import TOKENIZER_FILE
from core.engine.exporters.engine_process import (
    EngineLibrary,
    PromptAndDecoding,
    SpeedTrial,
    timed_rounds,
    timed_steps,
)
from secateur_wire.base import JsonObject
from secateur_wire.graphs import Graph


class GraphLibrary(EngineLibrary):
    """Library that opens graphs; `name` is the engine's."""

    name: ClassVar[str]

    def __init__(self) -> None:
        self._session: Graph | None = None
        self._tokenizer: Tokenizer | None = None

    @abstractmethod
    def session(self, file: Path, threads: int, *, is_exact: bool) -> Graph:
        """Open a file; `is_exact`: compute in float32, also where the engine would choose fewer bits."""

    def open(self, file: str, length: int, batch: int, threads: int) -> JsonObject:
        path = Path(file)
        try:
            self._session = self.session(path, threads, is_exact=True)
            self._tokenizer = Tokenizer.from_file(str(path.with_name(TOKENIZER_FILE)))
        except Exception as error:  # libraries in C++ raise many types
            return {"error": f"{self.name} does not load {path.name}: {_first_lines(error)}"}
        return {"vocabulary": self._session.vocabulary}

    def token_ids(self, texts: list[str]) -> JsonObject:
        assert self._tokenizer is not None
        return {"ids": [list(self._tokenizer.encode(text).ids) for text in texts]}

    def logits(self, ids: list[int], vocabulary: int, decoded: int, start: int) -> tuple[JsonObject, bytes]:
        assert self._session is not None
        read = len(ids) - decoded
        if start == 0:
            self._session.reset()
        parts = []
        for begin, count in ((start, read - start), *((place, 1) for place in range(read, len(ids)))):
            try:
                logits_TV = self._session.read(ids[begin : begin + count], begin)
            except Exception as error:  # as above
                return {"error": f"{self.name} does not run {count} tokens after {begin}: {_first_lines(error)}"}, b""
            if logits_TV.shape != (count, vocabulary):
                return {"error": f"{self.name} gives logits {logits_TV.shape}, not {(count, vocabulary)}"}, b""
            parts.append(np.ascontiguousarray(logits_TV, np.float32).tobytes())
        return {"bytes": 4 * (len(ids) - start) * vocabulary}, b"".join(parts)

    def speeds(self, files: list[str], trial: JsonObject, threads: int) -> JsonObject:
        tried = SpeedTrial.model_validate(trial)
        try:
            sessions = [self.session(Path(file), threads, is_exact=False) for file in files]
            seconds: Any = timed_rounds([partial(_timed, each, tried) for each in sessions], tried)
        except Exception as error:  # as above
            names = ", ".join(Path(file).name for file in files)
            return {"error": f"{self.name} does not run {names}: {_first_lines(error)}"}
        return {"seconds": seconds}


def _timed(session: Graph, tried: SpeedTrial) -> PromptAndDecoding:
    session.reset()
    ids = tried.token_ids(session.vocabulary)
    return timed_steps(lambda begin, count: session.read(ids[begin : begin + count], begin), tried)


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
