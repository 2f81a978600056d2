"""Chat template of a model: a program in Jinja, which runs in Jinja's immutable sandbox, as in transformers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from secateur.engines.engine import Message
from secateur.errors import RunError


class ChatTemplate:
    """Template with the special tokens that it names."""

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
