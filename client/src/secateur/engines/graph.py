"""Language model's graph with its tokenizer: likeliest tokens, one after another."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from secateur.engines.engine import Message
from secateur.errors import RunError
from secateur_wire.graphs import Graph, OnnxGraph, OpenVinoGraph

_USUAL_CONTEXT: Final = 2048
"""Context of a model whose config has no number of positions."""


class ChatTemplate:
    """Chat template of a model, with the special tokens that it names.

    It is a program in Jinja, which runs in Jinja's immutable sandbox, as in transformers.
    """

    def __init__(self, source: str, tokens: dict[str, str]) -> None:
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
        self._template = environment.from_string(source)
        self._tokens = tokens

    @classmethod
    def of(cls, folder: Path) -> "ChatTemplate | None":
        """Return the template of a folder; None where it has none."""
        settings: dict[str, Any] = {}
        if (folder / "tokenizer_config.json").is_file():
            settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
        file, source = folder / "chat_template.jinja", settings.get("chat_template")
        if file.is_file():
            source = file.read_text("utf-8")
        if not isinstance(source, str):
            return None
        named = {name: value for name, value in settings.items() if name.endswith("_token")}
        tokens = {name: value["content"] if isinstance(value, dict) else value for name, value in named.items()}
        return cls(source, {name: value for name, value in tokens.items() if isinstance(value, str)})

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text that the model goes on from, as an assistant."""
        return self._template.render(messages=list(messages), add_generation_prompt=True, **self._tokens)


def _refuse(message: str) -> NoReturn:
    raise RunError(f"the model's chat template refuses this conversation: {message}")


class GraphEngine:
    """Engine that runs a graph in a folder with the tokenizer's files."""

    def __init__(self, graph: Graph, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._graph = graph
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._template = ChatTemplate.of(folder)
        self._ends = _end_ids(folder)
        self.context = _context(folder)

    def length(self, messages: Sequence[Message]) -> int:
        return len(self._read(messages))

    def answer(self, messages: Sequence[Message], most_tokens: int) -> Iterator[str]:
        yield from self._written(self._read(messages), most_tokens)

    def go_on(self, text: str, most_tokens: int) -> Iterator[str]:
        yield from self._written(self._tokenizer.encode(text).ids, most_tokens)

    def _read(self, messages: Sequence[Message]) -> list[int]:
        if self._template is None:
            return list(self._tokenizer.encode(messages[-1]["content"]).ids)
        return list(self._tokenizer.encode(self._template.render(messages), add_special_tokens=False).ids)

    def _written(self, prompt: list[int], most_tokens: int) -> Iterator[str]:
        """Yield the text of the likeliest tokens; a character of several tokens waits for its last."""
        self._graph.reset()
        new, position, written = list(prompt), 0, list[int]()
        shown = ""
        for _ in range(most_tokens):
            logits_TV = self._graph.read(new, position)
            position += len(new)
            new = [int(logits_TV[-1].argmax())]
            if new[0] in self._ends:
                break
            written += new
            text: str = self._tokenizer.decode(written)
            if not text.endswith("\ufffd"):
                yield text[len(shown) :]
                shown = text


def open_onnx(file: Path) -> GraphEngine:
    return GraphEngine(OnnxGraph(file), file.parent)


def open_openvino(file: Path) -> GraphEngine:
    return GraphEngine(OpenVinoGraph(file), file.parent)


def _context(folder: Path) -> int:
    """Return the number of positions that a model knows."""
    config = json.loads((folder / "config.json").read_text("utf-8")) if (folder / "config.json").is_file() else {}
    known = config.get("max_position_embeddings") or config.get("n_positions")
    return known if isinstance(known, int) else _USUAL_CONTEXT


def _end_ids(folder: Path) -> set[int]:
    """Return the ids of the tokens that end a text."""
    ends: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            given = json.loads((folder / name).read_text("utf-8")).get("eos_token_id")
            ends |= {each for each in (given if isinstance(given, list) else [given]) if isinstance(each, int)}
    return ends
