"""llama.cpp in its own process: `python -m core.engine.exporters.gguf.llama_cpp`.

Each request is a line of JSON on stdin. Each answer is a line of JSON on stdout; the bytes of logits follow it.
llama.cpp reads files with a parser in C++; damage to memory or to the process must not reach the runner. The runner's
filter of system calls, which allows no network, holds here too. The process ends with its parent.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, Final

from pydantic import BaseModel, JsonValue

from secateur_wire.base import JsonObject

MEMORY_BYTES: Final = 2**31
"""Memory in bytes that the process may use beyond its memory after loading its libraries, plus three times the file."""
_F32: Final = 0
_LEAST_ROUNDS: Final = 3
_NO_FLASH_ATTENTION: Final = 0
_PARENT_DEATH_SIGNAL: Final = 1


class SpeedTrial(BaseModel, frozen=True):
    """Trial of files: a prompt of so many tokens and so many `decoded` after it, at most `most_rounds` in `seconds`."""

    prompt: int
    decoded: int
    most_rounds: int
    seconds: float

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens that a file computes, with the round that is not counted."""
        return (self.most_rounds + 1) * (self.prompt + self.decoded)


class _LlamaCpp:
    """llama.cpp's library, and its open file."""

    def __init__(self) -> None:
        from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

        self._ffi: Any = get_ffi()
        self._lib: Any = get_lib()
        self._lib.llama_backend_init()
        self._model: Any = None
        self._context: Any = None

    def limit_memory(self, largest_file: int) -> JsonObject:
        """Limit the memory of this process to the needs of files of up to this size in bytes."""
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = own + MEMORY_BYTES + 3 * largest_file
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        return {}

    def quantise(self, source: str, target: str, number: int, threads: int) -> JsonObject:
        """Write a file of a mixed type from a float16 one."""
        parameters = self._ffi.new("llama_model_quantize_params *", self._lib.llama_model_quantize_default_params())
        parameters.ftype = number
        parameters.nthread = threads
        if self._lib.llama_model_quantize(source.encode(), target.encode(), parameters) != 0:
            return {"error": f"llama.cpp does not write {Path(target).name}"}
        return {}

    def open(self, file: str, length: int, threads: int) -> JsonObject:
        """Open a file for sequences of this length, with keys and values in float32."""
        parameters = self._lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(file.encode(), parameters)
        if self._model == self._ffi.NULL:
            return {"error": f"llama.cpp does not load {Path(file).name}"}
        settings = self._lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = length
        settings.n_threads = settings.n_threads_batch = threads
        settings.type_k = settings.type_v = _F32
        settings.flash_attn_type = _NO_FLASH_ATTENTION
        self._context = self._lib.llama_init_from_model(self._model, settings)
        if self._context == self._ffi.NULL:
            return {"error": f"llama.cpp does not run {Path(file).name}"}
        return {"vocabulary": self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))}

    def open_vocabulary(self, file: str) -> JsonObject:
        """Open only the vocabulary of a file, for token ids."""
        parameters = self._lib.llama_model_default_params()
        parameters.vocab_only = True
        self._model = self._lib.llama_model_load_from_file(file.encode(), parameters)
        return {"error": f"llama.cpp does not load {Path(file).name}"} if self._model == self._ffi.NULL else {}

    def token_ids(self, texts: list[str]) -> JsonObject:
        """Return the ids of each text, with BOS and EOS where the file defines them."""
        vocabulary = self._lib.llama_model_get_vocab(self._model)
        ids: list[JsonValue] = []
        for text in texts:
            encoded = text.encode()
            room = len(encoded) + 16
            tokens = self._ffi.new(f"llama_token[{room}]")
            count = self._lib.llama_tokenize(vocabulary, encoded, len(encoded), tokens, room, True, True)
            ids.append([tokens[place] for place in range(count)])
        return {"ids": ids}

    def logits(self, ids: list[int], vocabulary: int) -> tuple[JsonObject, bytes]:
        """Return the logits after each token of a sequence: float32 [time, vocabulary]."""
        lib, count = self._lib, len(ids)
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        batch = lib.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for place, token in enumerate(ids):
            batch.token[place] = token
            batch.pos[place] = place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = 1
        failed = lib.llama_decode(self._context, batch)
        lib.llama_batch_free(batch)
        if failed:
            return {"error": f"llama.cpp does not run a sequence of {count} tokens ({failed})"}, b""
        size = 4 * count * vocabulary
        return {"bytes": size}, bytes(self._ffi.buffer(lib.llama_get_logits(self._context), size))

    def speeds(self, files: list[str], trial: JsonObject, threads: int) -> JsonObject:
        """Return the seconds of a prompt and of decoding after it, of each file in turn, `[file][round]`.

        Contexts are as llama.cpp has them unless told otherwise. A first round, which is not counted, tells how many
        rounds, of 3 or more, are made in the trial's `seconds`.
        """
        tried = SpeedTrial.model_validate(trial)
        contexts = []
        for file in files:
            parameters = self._lib.llama_model_default_params()
            parameters.n_gpu_layers = 0
            model = self._lib.llama_model_load_from_file(file.encode(), parameters)
            settings = self._lib.llama_context_default_params()
            settings.n_ctx = tried.prompt + tried.decoded
            settings.n_threads = settings.n_threads_batch = threads
            context = self._ffi.NULL if model == self._ffi.NULL else self._lib.llama_init_from_model(model, settings)
            if context == self._ffi.NULL:
                return {"error": f"llama.cpp does not run {Path(file).name}"}
            contexts.append(context)
        start = time.perf_counter()
        for context in contexts:
            self._timed(context, tried)
        rounds = min(max(int(tried.seconds / (time.perf_counter() - start)), _LEAST_ROUNDS), tried.most_rounds)
        times = [[self._timed(context, tried) for context in contexts] for _ in range(rounds)]
        return {"seconds": [[each[place] for each in times] for place in range(len(files))]}

    def _timed(self, context: Any, tried: SpeedTrial) -> JsonValue:
        lib, prompt, decoded = self._lib, tried.prompt, tried.decoded
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(lib.llama_get_model(context)))
        tokens = self._ffi.new("llama_token[]", [7919 * place % vocabulary for place in range(prompt + decoded)])
        moments = [time.perf_counter()]
        for begin, count in ((0, prompt), *((prompt + place, 1) for place in range(decoded))):
            if lib.llama_decode(context, lib.llama_batch_get_one(tokens + begin, count)):
                raise RuntimeError(f"llama.cpp does not run {count} tokens after {begin}")
            lib.llama_synchronize(context)
            moments.append(time.perf_counter())
        return [moments[1] - moments[0], moments[-1] - moments[1]]


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until there are no more; the first limits the memory."""
    library = _LlamaCpp()
    for line in requests:
        request: dict[str, Any] = json.loads(line)
        doing, following = request.pop("do"), b""
        if doing == "logits":
            answer, following = library.logits(**request)
        else:
            answer = getattr(library, doing)(**request)
        answers.write(json.dumps(answer).encode() + b"\n" + following)
        answers.flush()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the library's own output must not mix with answers
    serve(sys.stdin.buffer, messages)
