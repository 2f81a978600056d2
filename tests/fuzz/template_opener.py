"""Process that renders hostile chat templates as the secluded child does, and records what each one touches.

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
from tests.fuzz.template_cases import TEMPLATES

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
