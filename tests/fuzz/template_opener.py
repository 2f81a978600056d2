"""Hostile chat templates, and a process that renders them as the secluded child does and records what each touches.

It prints a line for each template: its number, and as JSON the code and the message of the failure, or what happened
that must not.
"""

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

from core.engine.datasets.chat import render, template
from core.engine.datasets.chat.render import RenderQuestion, answer
from tests.chat import conversation

OUT = (
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch escaped') }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'].popen('touch escaped').read() }}",
    "{{ namespace.__class__.__mro__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ strftime_now.__self__.__class__.__base__ }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ messages.clear() }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ ('{0.__class__.__init__.__globals__}' | format(messages)).x.y }}",
    "{% set x = messages | attr('__class__') %}{{ x.__mro__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch escaped') }}",
    "{% extends 'escaped' %}",
)
"""Ways to code, files, and the values of others."""

ENDLESS = (
    "{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro again() %}\n{{ again() }}{% endmacro %}{{ again() }}",
    "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{{ range(10 ** 12) }}",
    "{{ lipsum(n=10 ** 8) }}",
    "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ 7 ** (7 ** (7 ** 7)) }}",
)
"""Ways to take all of the time."""

LARGE = (
    "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{{ 'a' | center(10 ** 11) }}",
    "{{ '%99999999999d' % 1 }}",
    "{{ 'a\nb' | indent(10 ** 11) }}",
)
"""Ways to take all of the memory or of the disk."""

BROKEN = (
    "{% if %}",
    "{{ messages[7].content }}",
    "{{ nothing.at.all }}",
    "{{ messages[0] + 1 }}",
    "{{ '\\ud800' }}",
    "{{ messages | tojson(indent='a' * 100, sort_keys=3, ensure_ascii=nothing.x) }}",
    "{% generation %}{{ nothing.x }}{% endgeneration %}",
    "{{ 1 / 0 }}",
)
"""Ways to fail."""

TEMPLATES = (*OUT, *ENDLESS, *LARGE, *BROKEN)

SECONDS = 1.0
MEMORY_BYTES = 2**28
_FORBIDDEN = (
    "open",
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "socket.connect",
    "import",
    "exec",
    "compile",
)


def main(folder: Path) -> None:
    """Render every template on one conversation, in `folder`."""
    os.chdir(folder)
    file = folder / "chats.jsonl"
    file.write_text(json.dumps(conversation("a", "b")) + "\n")
    template.SECONDS = SECONDS  # type: ignore[misc]
    render.MEMORY_BYTES = MEMORY_BYTES  # type: ignore[misc]
    touched: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in _FORBIDDEN and not _is_harmless(event, arguments, file):
            touched.append(f"{event} {str(arguments)[:100]}")

    question = RenderQuestion(
        wanted="conversations", source="", special_tokens={}, path=file, name="chats", format="chat_jsonl"
    )
    answer(question.model_copy(update={"source": "{{ messages | tojson }}"}), io.BytesIO())  # loads what it loads
    render._limit_memory()
    sys.addaudithook(watch)
    for number, source in enumerate(TEMPLATES):
        touched.clear()
        watching = True
        last = answer(question.model_copy(update={"source": source}), io.BytesIO())
        watching = False
        failure = last.failure.model_dump() if last.failure is not None else {"code": "none", "message": str(last)}
        print(number, json.dumps(failure | {"touched": touched}), flush=True)


def _is_harmless(event: str, arguments: tuple[Any, ...], file: Path) -> bool:
    """Return True for what the renderer itself does: read the conversations, load modules, compile the program."""
    if event == "open":
        return str(arguments[0]) == str(file) or (arguments[1] == "r" and str(arguments[0]).endswith((".py", ".pyc")))
    return event in ("compile", "exec", "import") and not str(arguments[0]).startswith(("os", "subprocess", "socket"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
