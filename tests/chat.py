"""A chat template of the tests' own, for tiny models with the words w0 to w95, and conversations in these words."""

import json
from pathlib import Path
from typing import Any

import numpy

TEMPLATE = (
    "{% for message in messages %}\n"
    "{% if message.role not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('no role ' + message.role) }}{% endif %}\n"
    "{{ {'system': 'w6', 'user': 'w4', 'assistant': 'w5'}[message.role] + ' ' + message.content + ' w2 ' }}\n"
    "{%- endfor %}\n"
    "{% if add_generation_prompt %}{{ 'w5 ' }}{% endif %}"
)
"""Turns begin with w4 (user), w5 (assistant) or w6 (system) and end with w2, which is the end token of tiny models."""


def add_template(folder: Path, template: str = TEMPLATE) -> Path:
    (folder / "chat_template.jinja").write_text(template)
    return folder


def conversation(*turns: str, system: str | None = None) -> dict[str, Any]:
    """Return a row with turns of user and assistant in turn."""
    said = [{"role": ("user", "assistant")[place % 2], "content": turn} for place, turn in enumerate(turns)]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *said]}


def write_rows(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def write_conversations(file: Path, count: int = 60, *, seed: int = 0, turns: int = 2) -> Path:
    """Write conversations of `turns` turns, each of three to twelve words."""
    generator = numpy.random.default_rng(seed)

    def words() -> str:
        return " ".join(f"w{number}" for number in generator.integers(10, 96, generator.integers(3, 13)))

    return write_rows(file, [conversation(*(words() for _ in range(turns))) for _ in range(count)])
