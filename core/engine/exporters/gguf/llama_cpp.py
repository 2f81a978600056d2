"""llama.cpp in its own process: `python -m core.engine.exporters.gguf.llama_cpp`."""

from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import JsonValue
from safetensors.numpy import load_file

from core.engine.exporters.engine_process import (
    EngineLibrary,
    PromptAndDecoding,
    SpeedTrial,
    run_process,
    timed_rounds,
    timed_steps,
)
from secateur_wire.base import JsonObject

_F32: Final = 0
_NO_FLASH_ATTENTION: Final = 0


class _LlamaCpp(EngineLibrary):
    """llama.cpp's library, and its open file."""

    def __init__(self) -> None:
        from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

        self._ffi: Any = get_ffi()
        self._lib: Any = get_lib()
        self._lib.llama_backend_init()
        self._model: Any = None
        self._context: Any = None

    def quantise(self, source: str, target: str, number: int, threads: int, importance: str | None) -> JsonObject:
        """Write a file of a mixed type from a float16 one; the weights of its columns are in the file `importance`."""
        parameters = self._ffi.new("llama_model_quantize_params *", self._lib.llama_model_quantize_default_params())
        parameters.ftype = number
        parameters.nthread = threads
        weights = {} if importance is None else load_file(importance)
        names = [self._ffi.new("char[]", name.encode()) for name in weights]
        rows = self._ffi.new("struct llama_model_imatrix_data[]", len(weights) + 1)  # the last one has no name
        for row, name, values in zip(rows, names, weights.values(), strict=False):
            row.name, row.data, row.size = name, self._ffi.from_buffer("float[]", values), values.size
        if weights:
            parameters.imatrix = rows
        if self._lib.llama_model_quantize(source.encode(), target.encode(), parameters) != 0:
            return {"error": f"llama.cpp does not write {Path(target).name}"}
        return {}

    def open(self, file: str, length: int, batch: int, threads: int) -> JsonObject:
        """Open a file for sequences of this length, with keys and values in float32."""
        parameters = self._lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(file.encode(), parameters)
        if self._model == self._ffi.NULL:
            return {"error": f"llama.cpp does not load {Path(file).name}"}
        settings = self._lib.llama_context_default_params()
        settings.n_ctx = length
        settings.n_batch = settings.n_ubatch = batch
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

    def logits(self, ids: list[int], vocabulary: int, decoded: int, start: int) -> tuple[JsonObject, bytes]:
        """Return the logits after each token of a sequence from `start` on: float32 [time, vocabulary]."""
        lib, read = self._lib, len(ids) - decoded
        if start == 0:
            lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        parts = []
        for begin, count in ((start, read - start), *((place, 1) for place in range(read, len(ids)))):
            batch = self._batch(ids, begin, count)
            failed = lib.llama_decode(self._context, batch)
            lib.llama_batch_free(batch)
            if failed:
                return {"error": f"llama.cpp does not run {count} tokens after {begin} ({failed})"}, b""
            parts.append(bytes(self._ffi.buffer(lib.llama_get_logits(self._context), 4 * count * vocabulary)))
        return {"bytes": 4 * (len(ids) - start) * vocabulary}, b"".join(parts)

    def speeds(self, files: list[str], trial: JsonObject, threads: int) -> JsonObject:
        """Return the seconds of a prompt and of decoding after it; contexts are as llama.cpp has them."""
        tried = SpeedTrial.model_validate(trial)
        contexts = []
        for file in files:
            parameters = self._lib.llama_model_default_params()
            parameters.n_gpu_layers = 0
            model = self._lib.llama_model_load_from_file(file.encode(), parameters)
            settings = self._lib.llama_context_default_params()
            settings.n_ctx = tried.length
            settings.n_batch = max(settings.n_batch, tried.prompt)
            settings.n_threads = settings.n_threads_batch = threads
            context = self._ffi.NULL if model == self._ffi.NULL else self._lib.llama_init_from_model(model, settings)
            if context == self._ffi.NULL:
                return {"error": f"llama.cpp does not run {Path(file).name}"}
            contexts.append(context)
        seconds: Any = timed_rounds([partial(self._timed, each, tried) for each in contexts], tried)
        return {"seconds": seconds}

    def _timed(self, context: Any, tried: SpeedTrial) -> PromptAndDecoding:
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(context), True)
        vocabulary = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(lib.llama_get_model(context)))
        ids = tried.token_ids(vocabulary)
        one = self._ffi.new("llama_token[]", ids)

        def step(begin: int, count: int) -> None:
            if lib.llama_decode(context, lib.llama_batch_get_one(one + begin, count)):
                raise RuntimeError(f"llama.cpp does not run {count} tokens after {begin}")
            lib.llama_synchronize(context)

        return timed_steps(step, tried)

    def _batch(self, ids: list[int], begin: int, count: int) -> Any:
        """Return tokens of a sequence to decode, with logits after each of them."""
        batch = self._lib.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for row in range(count):
            batch.token[row] = ids[begin + row]
            batch.pos[row] = begin + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = True
        return batch


if __name__ == "__main__":
    run_process(_LlamaCpp)
