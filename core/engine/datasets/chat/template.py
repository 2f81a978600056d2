"""Chat templates: a model's own Jinja program, run on conversations within limits.

The environment is that of transformers' `apply_chat_template`: Jinja's immutable sandbox with trimmed blocks, loop
controls, the tag `generation`, the filter `tojson`, `raise_exception` and `strftime_now`. Three things differ, so that
the same template and conversation always give the same text, within limits: the day is fixed, random numbers begin with
the same seed, and products and powers have a largest size.

A template is a program of a stranger. Only the secluded child of `render`, which has limits of its own on time and
memory, may render one.
"""

import hashlib
import json
import random
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.engine.checkpoints.companions import read_json
from core.engine.checkpoints.files import SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from core.engine.datasets.chat.conversations import Conversation, Frame, text_of
from core.engine.datasets.formats import is_text
from secateur_wire.base import JsonObject

MOST_CHARACTERS: Final = 2**22
"""Largest number of characters of one rendered conversation."""
SECONDS: Final = 10.0
"""Longest time to render one conversation."""
VERSION: Final = 2
"""Version of the rendering; it is increased when the rendered text changes."""
_TODAY: Final = datetime(2024, 7, 26)
"""The day that a template is told: always the same, because a kept text must not depend on the day of its rendering."""
_MOST_PRODUCT: Final = 2**22
"""Largest length of a repeated text or list, and the most bits of a product."""
_START, _END = "\ue0a1\ue0f1generation\ue0f1", "\ue0a2\ue0f2generation\ue0f2"
"""Marks around the parts that a template generates; characters for private use, which are removed from content."""
_MARKS: Final = dict.fromkeys(map(ord, "\ue0a1\ue0a2\ue0f1\ue0f2"))
_USER, _ASSISTANT = "a5user7turn3", "b8assistant2turn6"
"""Turns whose places in the rendered text show the template's own words around them."""
_ROLES: Final = ("system", "user", "assistant", "tool")
"""Roles that templates know; some write nothing of a turn with another one."""
_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ConversationRefused(Exception):
    """Refusal of one conversation by the template's `raise_exception`, in the template's words."""


class TemplateFailed(Exception):
    """Failure of the template itself, as words that follow its name; `line` is the template's, if it is known."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(f"{reason} (line {line} of the template)" if line else reason)
        self.line = line


class _TooLong(BaseException):
    """End of the time for one conversation; nothing in a template can catch it."""


@dataclass(frozen=True)
class ChatTemplate:
    """Source of a model's chat template, and the special tokens that it may name."""

    source: str
    special_tokens: Mapping[str, str] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Return the hash of everything that decides how a conversation is rendered."""
        facts = [VERSION, jinja2.__version__, self.source, sorted(self.special_tokens.items())]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def read_template(folder: Path) -> ChatTemplate | None:
    """Return the chat template of a model folder; None without one. Nothing of it is run.

    Of several in a list the one named `default` counts. Raises UnusableModel for files that cannot be read.
    """
    said = {name: read_json(folder / name) if (folder / name).is_file() else {} for name in _TEMPLATE_FILES}
    template = (folder / TEMPLATE_FILE).read_text("utf-8") if (folder / TEMPLATE_FILE).is_file() else None
    for content in said.values():
        template = template or _default(content.get("chat_template"))
    if not template:
        return None
    tokens: dict[str, str] = {}
    for name in (TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        for key in _TOKENS:
            value = said[name].get(key)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str) and is_text(text):
                tokens.setdefault(key, text)
    return ChatTemplate(template, tokens)


_TEMPLATE_FILES: Final = ("chat_template.json", TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE)


def _default(content: object) -> str | None:
    if isinstance(content, str):
        return content
    named = content if isinstance(content, list) else []
    defaults = [each.get("template") for each in named if isinstance(each, dict) and each.get("name") == "default"]
    return defaults[0] if defaults and isinstance(defaults[0], str) else None


@dataclass(frozen=True)
class RenderedConversation:
    """Text of a conversation, and the places [start, end) of the assistant's own words in it.

    `spans` is None where the template does not tell them, for the reason `unmarked`.
    """

    text: str
    spans: list[tuple[int, int]] | None
    unmarked: str | None = None


class TemplateRenderer:
    """Renderer of conversations by one chat template; raises TemplateFailed where the template cannot be compiled."""

    def __init__(self, template: ChatTemplate) -> None:
        self._tokens = dict(template.special_tokens)
        environment = _Environment(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # codespell:ignore optimized  # nothing is computed while it is compiled
            extensions=[_Generation, loopcontrols],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _TODAY.strftime
        with _named_failures():
            tree = environment.parse(template.source)
            self._marks_answers = any(map(_is_generation, tree.find_all(nodes.CallBlock)))
            self._template = environment.from_string(template.source)

    def render(self, conversation: Conversation) -> RenderedConversation:
        """Render a conversation. Raises ConversationRefused, and TemplateFailed naming the template's line.

        The assistant's words are those in the template's `generation` tags. Without such tags they are what an answer
        adds to the text of the turns before it, with the words that ask for an answer; the text of a conversation must
        then begin with the texts of its own beginnings.
        """
        messages, tools = conversation.messages, conversation.tools
        marked = self._render(messages, tools)
        _require_written(messages, marked)
        if self._marks_answers:
            return _unmarked(marked)
        spans: list[tuple[int, int]] = []
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            try:
                before = self._render(messages[:place], tools, asks=True) if place else ""
                after = self._render(messages[: place + 1], tools)
            except ConversationRefused as error:
                why = f"the template refuses its first {place + 1} turns alone ({error}), so that the answers' places"
                return RenderedConversation(marked, None, f"{why} cannot be found")
            if not (after.startswith(before) and marked.startswith(after)):
                return RenderedConversation(
                    marked,
                    None,
                    f"the template writes its first {place + 1} turns differently when others follow, and has no "
                    "{% generation %} tags, so that the answers' places are not known",
                )
            answer = after[len(before) :].rstrip()
            if answer:
                spans.append((len(before), len(before) + len(answer)))
        return RenderedConversation(marked, spans)

    def question(self, conversation: Conversation) -> str:
        """Return the text that asks for the answer to the last turn of the user; raises as `render`."""
        text = self._render(conversation.question, conversation.tools, asks=True)
        _require_written(conversation.question, text)
        return _unmarked(text).text

    def frame(self) -> Frame:
        """Return the template's words around a question and its answer; raises TemplateFailed where they are not known.

        Between the two are the words that ask for an answer.
        """
        question: JsonObject = {"role": "user", "content": _USER}
        answer: JsonObject = {"role": "assistant", "content": _ASSISTANT}
        try:
            request = _unmarked(self._render([question], None, asks=True)).text
            full = _unmarked(self._render([question, answer], None)).text
        except ConversationRefused as error:
            raise TemplateFailed(f"refuses a question with its answer: {error}", None) from error
        if any(text.count(_USER) != 1 for text in (request, full)) or full.count(_ASSISTANT) != 1:
            raise TemplateFailed("does not show a question and its answer as they are", None)
        opening, between = request.split(_USER)
        if not full.startswith(opening):
            raise TemplateFailed("writes a question differently when its answer follows", None)
        return Frame(opening=opening, between=between, closing=full.split(_ASSISTANT)[1])

    def _render(self, messages: Sequence[JsonObject], tools: Sequence[Any] | None, *, asks: bool = False) -> str:
        random.seed(0)  # some of Jinja's functions draw
        pieces: list[str] = []
        length = 0
        with _named_failures(self._template), _limited_time():
            for piece in self._template.generate(
                messages=_without_marks(messages),
                tools=tools,
                documents=None,
                add_generation_prompt=asks,
                **self._tokens,
            ):
                pieces.append(piece)
                length += len(piece)
                if length > MOST_CHARACTERS:
                    raise TemplateFailed(f"writes more than {MOST_CHARACTERS} characters for one conversation", None)
        text = "".join(pieces)
        if not is_text(text):
            raise TemplateFailed("writes half of a surrogate pair", None)
        return text


def _require_written(messages: Sequence[JsonObject], text: str) -> None:
    """Raise ConversationRefused where a turn of a role that few templates know is not in the text."""
    for message in messages:
        content = text_of(_without_marks(message)).strip()
        if message["role"] not in _ROLES and content not in text:
            raise ConversationRefused(f"it writes nothing of the role {message['role']}")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's immutable sandbox, in which a product or a power has a largest size."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if (
                isinstance(one, str | bytes | list | tuple)
                and isinstance(other, int)
                and len(one) * other > _MOST_PRODUCT
            ):
                raise OverflowError(f"a text or list of more than {_MOST_PRODUCT} items")
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _MOST_PRODUCT:
                raise OverflowError(f"a number of more than {_MOST_PRODUCT} bits")
        return super().call_binop(context, operator, left, right)


class _Generation(Extension):
    """Tag of transformers: {% generation %} … {% endgeneration %} around the assistant's own words."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Any) -> str:
        return f"{_START}{caller()}{_END}"


def _is_generation(block: nodes.CallBlock) -> bool:
    function = block.call.node
    return isinstance(function, nodes.ExtensionAttribute) and function.name == "_marked"


def _unmarked(text: str) -> RenderedConversation:
    """Return a text without the marks, and the places of what was between them."""
    spans: list[tuple[int, int]] = []
    pieces: list[str] = []
    length = 0
    for number, part in enumerate(text.split(_START)):
        inside, end, outside = part.partition(_END) if number else ("", "", part)
        if number and not end:
            inside, outside = "", part
        if inside.strip():
            spans.append((length, length + len(inside.rstrip())))
        pieces += [inside, outside]
        length += len(inside) + len(outside)
    return RenderedConversation("".join(pieces).replace(_END, ""), spans)


def _without_marks(value: Any) -> Any:
    """Return messages without the characters of the marks."""
    if isinstance(value, str):
        return value.translate(_MARKS)
    if isinstance(value, Mapping):
        return {name: _without_marks(inner) for name, inner in value.items()}
    return [_without_marks(inner) for inner in value] if isinstance(value, list | tuple) else value


def _refuse(message: object) -> None:
    raise ConversationRefused(str(message)[:300])


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Return a value as JSON, without the characters for HTML that Jinja's own filter replaces."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@contextmanager
def _limited_time() -> Iterator[None]:
    """Raise `_TooLong` in the body after `SECONDS`."""

    def end(*_: object) -> None:
        raise _TooLong

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def _named_failures(template: jinja2.Template | None = None) -> Iterator[None]:
    """Turn every failure of a template into TemplateFailed with the template's line; its refusals pass."""
    try:
        yield
    except (ConversationRefused, TemplateFailed):
        raise
    except _TooLong as error:
        line = _line(error)
        if line is not None and template is not None:  # Jinja gives the frames of this error no line of the template
            line = template.get_corresponding_lineno(line)
        raise TemplateFailed(f"takes longer than {SECONDS:g} s for one conversation", line) from None
    except RecursionError as error:
        raise TemplateFailed("calls itself without end", _line(error)) from None
    except MemoryError as error:
        raise TemplateFailed("takes more memory than is allowed", _line(error)) from None
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailed(f"is not valid Jinja: {str(error)[:200]}", error.lineno) from None
    except Exception as error:  # a program may fail in any way
        raise TemplateFailed(f"fails: {type(error).__name__}: {str(error)[:200]}", _line(error)) from None


def _line(error: BaseException) -> int | None:
    """Return the template's line at which an error was raised; Jinja gives its frames the template's own lines."""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__, limit=-64) if frame.filename == "<template>"
    ]
    return lines[-1] if lines else None
