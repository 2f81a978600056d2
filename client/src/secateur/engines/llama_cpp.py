"""GGUF files in llama.cpp, which has their tokenizer and chat template."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from secateur.engines.engine import Message

_CONTEXT: Final = 2048


class LlamaCpp:
    """Engine that runs a GGUF file."""

    def __init__(self, file: Path) -> None:
        from llama_cpp_py_sync import Llama

        # The package reads the special tokens of templates only if these defaults say so.
        Llama.tokenize.__defaults__ = True, True
        self._model: Any = Llama(str(file), n_ctx=_CONTEXT)

    def answer(self, messages: Sequence[Message], most_tokens: int) -> Iterator[str]:
        answer = self._model.create_chat_completion(list(messages), max_tokens=most_tokens, temperature=0.0)
        yield str(answer["choices"][0]["message"]["content"])

    def go_on(self, text: str, most_tokens: int) -> Iterator[str]:
        yield str(self._model.generate(text, max_tokens=most_tokens, temperature=0.0))
