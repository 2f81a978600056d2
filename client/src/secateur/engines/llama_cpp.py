"""GGUF files in llama.cpp, which has their tokenizer and chat template."""

import atexit
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from secateur.engines.engine import Message

_MOST_CONTEXT: Final = 16_384
"""llama.cpp takes memory for a whole context at once: 2 GiB for this one of a model with eight billion parameters."""
_USUAL_CONTEXT: Final = 2048
_ERROR: Final = 4
"""The level of errors in llama.cpp's log."""


class LlamaCpp:
    """Engine that runs a GGUF file."""

    def __init__(self, file: Path) -> None:
        from llama_cpp_py_sync import Llama
        from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

        # Without a callback, llama.cpp writes hundreds of lines for each model and each answer.
        self._ffi, self._library = get_ffi(), get_lib()
        self._log = self._ffi.callback("ggml_log_callback", self._write)
        self._library.llama_log_set(self._log, self._ffi.NULL)
        # The package reads the special tokens of templates only if these defaults say so.
        Llama.tokenize.__defaults__ = True, True
        self._model: Any = Llama(str(file), n_ctx=_USUAL_CONTEXT)
        trained_context = self._library.llama_model_n_ctx_train(self._model._model)
        self.context = min(trained_context or _USUAL_CONTEXT, _MOST_CONTEXT)
        if self.context != _USUAL_CONTEXT:  # files and memory maps are in the page cache by now
            self._model.close()
            self._model = Llama(str(file), n_ctx=self.context)
        # llama.cpp logs as long as the model is open, and Python frees the callback when it exits.
        atexit.register(self._close)

    def _write(self, level: int, text: Any, _: object) -> None:
        if level == _ERROR:
            sys.stderr.write(self._ffi.string(text).decode(errors="replace"))

    def _close(self) -> None:
        self._model.close()
        self._library.llama_log_set(self._ffi.NULL, self._ffi.NULL)

    def length(self, messages: Sequence[Message]) -> int:
        prompt, _ = self._model._format_chat_prompt(list(messages))
        return len(self._model.tokenize(prompt))

    def answer(self, messages: Sequence[Message], most_tokens: int) -> Iterator[str]:
        answer = self._model.create_chat_completion(list(messages), max_tokens=most_tokens, temperature=0.0)
        yield str(answer["choices"][0]["message"]["content"])

    def go_on(self, text: str, most_tokens: int) -> Iterator[str]:
        yield str(self._model.generate(text, max_tokens=most_tokens, temperature=0.0))
