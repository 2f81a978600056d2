"""Secluded child that runs a model's chat template on conversations: `python -m core.engine.datasets.chat.render`.

It reads one question on its standard input and writes JSON lines on its standard output: a row for each conversation,
and last an `RenderAnswer`. It is started without network and credentials, and limits its own memory further.
"""

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from core.engine.datasets.chat.conversations import (
    Conversation,
    Frame,
    LeftOutRows,
    Rendering,
    described_rows,
    read_conversations,
    to_line,
)
from core.engine.datasets.chat.template import (
    ChatTemplate,
    ConversationRefused,
    RenderedConversation,
    TemplateFailed,
    TemplateRenderer,
)
from core.engine.datasets.formats import CHAT_PARQUET
from secateur_wire.errors import SecateurError, UnusableDataset, UnusableModel

MEMORY_BYTES: Final = 2**30
"""Bytes that rendering may take beyond the libraries."""
MOST_BYTES: Final = 48 * 2**20
"""Most bytes of rendered rows; conversations after that are not read."""
SECONDS: Final = 200.0
"""Time after which no further conversation is read."""
_MOST_REFUSAL: Final = 120
_MOST_REASONS: Final = 20


class RenderQuestion(BaseModel):
    """Question to the child: a template, and a file of conversations, unless only the template's frame is wanted.

    `questions`: the text that asks for the answer to each conversation's last question, with what it is compared with.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    wanted: Literal["conversations", "questions", "frame"]
    source: str
    special_tokens: dict[str, str]
    path: Path | None = None
    name: str = ""
    format: str = ""


class Failure(BaseModel):
    """Failure of the child: the code of its error, and the message."""

    code: str
    message: str


class RenderAnswer(BaseModel):
    """Last line of the child: the facts of the rendering, the template's frame, or a failure."""

    rendering: Rendering | None = None
    frame: Frame | None = None
    failure: Failure | None = None


def answer(question: RenderQuestion, write: BinaryIO) -> RenderAnswer:
    """Write the rows that a question asks for, and return the last line."""
    try:
        template = ChatTemplate(question.source, question.special_tokens)
        try:
            renderer = TemplateRenderer(template)
            if question.wanted == "frame":
                return RenderAnswer(frame=renderer.frame())
        except TemplateFailed as error:
            raise UnusableModel(f"the model's chat template {error}", param="model") from None
        assert question.path is not None
        with question.path.open("rb") as stream:
            return RenderAnswer(rendering=_render(renderer, template, question, stream, write))
    except SecateurError as error:
        return RenderAnswer(failure=Failure(code=error.code, message=error.message))
    except MemoryError:
        message = f"{question.name} needs more memory to read than is allowed: a conversation is too long"
        return RenderAnswer(failure=Failure(code=UnusableDataset.code, message=message))


def _render(
    renderer: TemplateRenderer, template: ChatTemplate, question: RenderQuestion, stream: BinaryIO, write: BinaryIO
) -> Rendering:
    left_out, began = LeftOutRows(), time.monotonic()
    count = characters = size = 0
    unread_from: int | None = None
    unmarked: str | None = None
    for conversation in read_conversations(stream, question.name, question.format, left_out):
        if size >= MOST_BYTES or time.monotonic() > began + SECONDS:
            unread_from = conversation.line
            break
        rendered = _rendered(renderer, conversation, question, left_out)
        if rendered is None:
            continue
        if rendered.unmarked is not None and unmarked is None:
            unmarked = f"{question.name} line {conversation.line}: {rendered.unmarked}"
        compared = _reference(conversation) if question.wanted == "questions" else ()
        line = to_line(conversation.line, rendered.text, rendered.spans, *compared).encode()
        write.write(line)
        count, characters, size = count + 1, characters + len(rendered.text), size + len(line)
    if not count:
        raise UnusableDataset(
            f"{question.name} has no conversation that the model's chat template renders: "
            f"{described_rows(left_out.rows)}"
        )
    return Rendering(
        template=template.sha256,
        conversations=count,
        characters=characters,
        left_out=left_out.rows,
        unread_from=unread_from,
        unmarked=unmarked,
    )


def _reference(conversation: Conversation) -> tuple[JsonValue, str | None]:
    """Return what an answer is compared with, and by which check; without a check of its own, the set's answer."""
    if conversation.check is not None:
        return conversation.reference, conversation.check
    return conversation.answer, None


def _rendered(
    renderer: TemplateRenderer, conversation: Conversation, question: RenderQuestion, left_out: LeftOutRows
) -> RenderedConversation | None:
    """Render a conversation; None where the template refuses it or writes nothing. Raises UnusableModel."""
    try:
        if question.wanted == "questions":
            rendered = RenderedConversation(renderer.question(conversation), [])
        else:
            rendered = renderer.render(conversation)
    except ConversationRefused as error:
        reason = f"turns that the template refuses: {str(error)[:_MOST_REFUSAL]}"
        known = {each.reason for each in left_out.rows}
        is_new_and_many = reason not in known and len(known) >= _MOST_REASONS
        left_out.add("turns that the template refuses" if is_new_and_many else reason, conversation.line)
        return None
    except TemplateFailed as error:
        raise UnusableModel(
            f"the model's chat template {error}, on the conversation on line {conversation.line} of {question.name}",
            param="model",
        ) from None
    if not rendered.text.strip():
        left_out.add("an empty text from the template", conversation.line)
        return None
    return rendered


def _limit_memory() -> None:
    loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = loaded + MEMORY_BYTES
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def answered_lines(output: bytes) -> tuple[Iterator[bytes], RenderAnswer]:
    """Return the rows of a child's output, one line each, and its last line; raises ValueError for anything else."""
    *rows, last = output.splitlines()
    return iter(rows), RenderAnswer.model_validate_json(last)


def main() -> None:
    """Answer the question on standard input."""
    question = RenderQuestion.model_validate_json(sys.stdin.buffer.read())
    if question.format == CHAT_PARQUET:
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"  # the others reserve more than the limit
        import pyarrow.parquet  # noqa: F401  # loaded before the limit, which counts from what is loaded
    _limit_memory()
    last = answer(question, sys.stdout.buffer)
    sys.stdout.buffer.write(last.model_dump_json().encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
