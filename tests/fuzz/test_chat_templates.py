"""Hostile chat templates: each is refused with a reason, within its limits, and touches nothing.

A process of its own, `main`, renders them as the secluded child does and tells what each touches.
"""

import io
import json
import os
import subprocess
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
    "{{ raise_exception.__globals__ }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ ('{0.__class__.__init__.__globals__}' | format(messages)).x.y }}",
    "{% set x = messages | attr('__class__') %}{{ x.__mro__ }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('touch escaped') }}",
)
"""Ways to code, files, and the values of others."""

ENDLESS = (
    "{% for i in range(99999) %}\n{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro again() %}\n{{ again() }}{% endmacro %}{{ again() }}",
    "{% for i in range(9) recursive %}{{ loop(range(9)) }}{% endfor %}",
    "{{ lipsum(n=10 ** 8) }}",
    "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    "{{ 7 ** (7 ** (7 ** 7)) }}",
)
"""Ways to take all of the time."""

LARGE = (
    "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "{{ 'a' * 10 ** 10 }}",
    "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "{{ '%99999999999d' % 1 }}",
    "{{ 'a\nb' | indent(10 ** 11) }}",
)
"""Ways to take all of the memory or of the disk."""

BROKEN = (
    "{% if %}",
    "{{ messages[7].content }}",
    "{{ nothing.at.all }}",
    "{{ '\\ud800' }}",
    "{{ messages | tojson(indent='a' * 100, sort_keys=3, ensure_ascii=nothing.x) }}",
    "{% generation %}{{ nothing.x }}{% endgeneration %}",
)
"""Ways to fail."""

TEMPLATES = (*OUT, *ENDLESS, *LARGE, *BROKEN)

SECONDS = 1.0
MEMORY_BYTES = 2**28
_FORBIDDEN = {
    *("open", "subprocess.Popen", "os.system", "os.exec", "os.fork", "socket.connect"),
    *("import", "exec", "compile"),
}


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


NOTHING = {"{{ raise_exception.__globals__ }}", "{{ '{0.__class__}'.format(messages) }}"}
"""Templates to which the sandbox gives nothing in place of what they ask for."""


def test_a_hostile_template_is_refused_with_a_reason_and_touches_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.fuzz.test_chat_templates", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    ends = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(ends) == len(TEMPLATES), (len(ends), done.stderr[-1000:])
    lines = 0
    for number, source in enumerate(TEMPLATES):
        end = json.loads(ends[str(number)])
        assert end["touched"] == [], source
        if source in NOTHING:
            assert "an empty text from the template" in end["message"], end
            continue
        assert end["code"] == "unusable_model", (source, end)
        assert end["message"].startswith("the model's chat template "), end
        lines += "of the template)" in end["message"]
    assert lines > 0.8 * len(TEMPLATES), "most name the line at which they fail"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["chats.jsonl"]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
