"""Process of an engine that runs exported files, such as `python -m core.engine.exporters.gguf.llama_cpp`.

Each request is a line of JSON on stdin. Each answer is a line of JSON on stdout; the bytes of logits follow it. Engines
read files with parsers in C++; damage to memory or to the process must not reach the runner. The runner's filter of
system calls, which allows no network, holds here too. The process ends with its parent.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic import BaseModel

from secateur_wire.base import JsonObject

MEMORY_BYTES: Final = 2**31
"""Memory in bytes that the process may use beyond its memory after loading its libraries, plus three times the file."""
_LEAST_ROUNDS: Final = 3
_PARENT_DEATH_SIGNAL: Final = 1

PromptAndDecoding = tuple[float, float]
"""Seconds of a prompt, and of the tokens decoded after it."""


class SpeedTrial(BaseModel, frozen=True):
    """Trial of files: a prompt of so many tokens and so many `decoded` after it, at most `most_rounds` in `seconds`."""

    prompt: int
    decoded: int
    most_rounds: int
    seconds: float

    @property
    def length(self) -> int:
        """Return the tokens of a sequence at its end."""
        return self.prompt + self.decoded

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens that a file computes, with the round that is not counted."""
        return (self.most_rounds + 1) * self.length

    def token_ids(self, vocabulary: int) -> list[int]:
        """Return the ids of a sequence's tokens."""
        return [7919 * place % vocabulary for place in range(self.length)]


def timed_rounds(
    engines: Sequence[Callable[[], PromptAndDecoding]], trial: SpeedTrial
) -> list[list[PromptAndDecoding]]:
    """Return the times of a trial of each file in turn, `[file][round]`.

    A first round, which is not counted, tells how many rounds, of 3 or more, are made in the trial's `seconds`.
    """
    start = time.perf_counter()
    for each in engines:
        each()
    rounds = min(max(int(trial.seconds / (time.perf_counter() - start)), _LEAST_ROUNDS), trial.most_rounds)
    times = [[each() for each in engines] for _ in range(rounds)]
    return [[each[place] for each in times] for place in range(len(engines))]


def timed_steps(step: Callable[[int, int], object], trial: SpeedTrial) -> PromptAndDecoding:
    """Return the times of a trial; `step` computes so many tokens (second) after as many as were before (first)."""
    start = time.perf_counter()
    step(0, trial.prompt)
    prompt_seconds = time.perf_counter() - start
    start = time.perf_counter()
    for place in range(trial.prompt, trial.length):
        step(place, 1)
    return prompt_seconds, time.perf_counter() - start


class EngineLibrary(ABC):
    """Library of an engine; its methods are the requests that a process answers, by their names."""

    def limit_memory(self, largest_file: int) -> JsonObject:
        """Limit the memory of this process to the needs of files of up to this size in bytes."""
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most, hard = own + MEMORY_BYTES + 3 * largest_file, resource.getrlimit(resource.RLIMIT_AS)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return {}

    @abstractmethod
    def open(self, file: str, length: int, batch: int, threads: int) -> JsonObject:
        """Open a file for sequences of this length, to be computed in float32; return its `vocabulary`, or an error.

        At most `batch` tokens are computed at a time.
        """

    @abstractmethod
    def token_ids(self, texts: list[str]) -> JsonObject:
        """Return the `ids` of each text, as the open file's users read it."""

    @abstractmethod
    def logits(self, ids: list[int], vocabulary: int, decoded: int, start: int) -> tuple[JsonObject, bytes]:
        """Return the logits after each token of a sequence from `start` on: float32 [time, vocabulary], or an error.

        The last `decoded` tokens are computed one by one, with the keys and values of those before them. The tokens
        before `start` were computed by the request before.
        """

    @abstractmethod
    def speeds(self, files: list[str], trial: JsonObject, threads: int) -> JsonObject:
        """Return the `seconds` of a `SpeedTrial` of each file in turn, `[file][round]`, or an error.

        The engine is as it is unless told otherwise.
        """


def serve(library: EngineLibrary, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more; the first limits the memory."""
    for line in requests:
        request: dict[str, Any] = json.loads(line)
        doing, following = request.pop("do"), b""
        if doing == "logits":
            answer, following = library.logits(**request)
        else:
            answer = getattr(library, doing)(**request)
        answers.write(json.dumps(answer).encode() + b"\n" + following)
        answers.flush()


def run_process(library: Callable[[], EngineLibrary]) -> None:
    """Answer the parent's requests until it ends."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the library's own output must not mix with answers
    serve(library(), sys.stdin.buffer, messages)
