"""GGUF files in llama.cpp, which has their tokenizer and chat template."""

import atexit
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from secateur.engines.engine import Message

_MOST_CONTEXT: Final = 16_384
"""llama.cpp takes memory for a whole context at once: 2 GiB for this one of a model with eight billion parameters."""
_USUAL_CONTEXT: Final = 2048
_NO_FLASH_ATTENTION: Final = 0
_ERROR: Final = 4
"""The level of errors in llama.cpp's log."""


class LlamaCpp:
    """Engine that runs a GGUF file."""

    def __init__(self, file: Path) -> None:
        from llama_cpp_py_sync import Llama

        self._ffi, self._library, _ = _quiet_library()
        # The package reads the special tokens of templates only if these defaults say so.
        Llama.tokenize.__defaults__ = True, True
        self._model: Any = Llama(str(file), n_ctx=_USUAL_CONTEXT)
        trained_context = self._library.llama_model_n_ctx_train(self._model._model)
        self.context = min(trained_context or _USUAL_CONTEXT, _MOST_CONTEXT)
        if self.context != _USUAL_CONTEXT:
            self._replace_context()
        atexit.register(self._model.close)

    def _replace_context(self) -> None:
        """Give the open model a context of `self.context` tokens. Raises RuntimeError where memory is too small."""
        model, library = self._model, self._library
        parameters = library.llama_context_default_params()
        parameters.n_ctx = self.context
        parameters.n_batch = library.llama_n_batch(model._ctx)
        parameters.n_ubatch = library.llama_n_ubatch(model._ctx)
        parameters.n_threads = library.llama_n_threads(model._ctx)
        parameters.n_threads_batch = library.llama_n_threads_batch(model._ctx)
        parameters.flash_attn_type = _NO_FLASH_ATTENTION
        library.llama_free(model._ctx)
        model._ctx, model._n_ctx = library.llama_init_from_model(model._model, parameters), self.context
        if model._ctx == self._ffi.NULL:
            raise RuntimeError(f"memory is too small for a context of {self.context:,} tokens")

    def length(self, messages: Sequence[Message]) -> int:
        prompt, _ = self._model._format_chat_prompt(list(messages))
        return len(self._model.tokenize(prompt))

    def answer(self, messages: Sequence[Message], most_tokens: int) -> Iterator[str]:
        answer = self._model.create_chat_completion(list(messages), max_tokens=most_tokens, temperature=0.0)
        yield str(answer["choices"][0]["message"]["content"])

    def go_on(self, text: str, most_tokens: int) -> Iterator[str]:
        yield str(self._model.generate(text, max_tokens=most_tokens, temperature=0.0))


@cache
def _quiet_library() -> tuple[Any, Any, object]:
    """Return cffi and llama.cpp, which logs errors alone, with the callback that does so and has to stay.

    Without a callback, llama.cpp writes hundreds of lines for each model and each answer.
    """
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    ffi, library = get_ffi(), get_lib()

    def write(level: int, text: Any, _: object) -> None:
        if level == _ERROR:
            sys.stderr.write(ffi.string(text).decode(errors="replace"))

    log = ffi.callback("ggml_log_callback", write)
    library.llama_log_set(log, ffi.NULL)
    # llama.cpp logs as long as a model is open, and Python frees the callback when it exits.
    atexit.register(library.llama_log_set, ffi.NULL, ffi.NULL)
    return ffi, library, log
