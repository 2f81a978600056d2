"""Conversations: read and checked, rendered as transformers renders them, and cut into windows."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from core.engine.datasets.chat.conversations import Conversation, LeftOutRows, RenderedRow, read_conversations
from core.engine.datasets.chat.template import (
    ChatTemplate,
    ConversationRefused,
    TemplateFailed,
    TemplateRenderer,
    read_template,
)
from core.engine.datasets.chat.windows import Conversations
from core.engine.datasets.counted_tokens import plain_ids
from core.engine.datasets.text_files import describe
from core.engine.datasets.token_windows import calibration_windows, evaluation_set, training_windows
from secateur_wire.errors import TooLittleText, UnusableDataset
from tests.chat import TEMPLATE, conversation, write_rows

LENGTH = 24
MARKED = TEMPLATE.replace(
    "message.content + ' w2 '", "''}}{% if message.role == 'assistant' %}{% generation %}{{ message.content }}"
    " w2{% endgeneration %}{{ ' ' }}{% else %}{{ message.content + ' w2 ' }}{% endif %}{{ ''"
)  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "w40", "parameters": {"type": "object"}}}]


def words() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (["[1"], "line 1 is not valid JSON"),
        ([conversation("a", "b"), [1]], "line 2 is no JSON object"),
        ([{"text": "a"}], "line 1 has neither 'messages' nor 'prompt', but 'text'"),
        ([conversation("a", "b"), {"prompt": "a"}], "line 2 has 'prompt', but line 1 has 'messages'"),
        ([{"messages": []}], "line 1: messages is not a list of messages"),
        ([{"messages": [{"role": 3, "content": "a"}]}], "turn 1 has no role"),
        ([{"messages": [{"role": "user"}]}], r"turn 1 \(user\) has no content"),
        ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}], "only text is read"),
        ([{"messages": [{"role": "user", "content": "\ud800"}]}], "half of a surrogate pair"),
        ([conversation("a", "b") | {"tools": [1]}], "tools is not a list of JSON schemas"),
        ([{"prompt": "a", "completion": 3}], "completion is not a list of messages"),
        ([{"prompt": "a"}, {"prompt": "a", "check": "taste"}], "line 2: there is no check 'taste'; the checks are"),
        ([{"prompt": "a", "check": "number"}], "line 1: bad reference for the check 'number'"),
        ([conversation(" ", "b")], r"holds no conversation: 1 row with an empty user turn \(first: line 1\)"),
    ],
)
def test_a_row_that_is_no_conversation_is_refused_with_its_line(rows: list[Any], why: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "chats.jsonl", rows)
    if isinstance(rows[0], str):
        file.write_text(rows[0])
    with pytest.raises(UnusableDataset, match=why):
        describe(file, "chat_jsonl")


def test_what_cannot_be_used_is_left_out_and_counted(tmp_path: Path) -> None:
    called = {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "w40", "arguments": {}}}]}
    rows = [
        conversation("a", "b", system="c"),
        {"messages": [{"role": "system", "content": "a"}, {"role": "assistant", "content": "b"}]},
        conversation("a", ""),
        conversation("a", " \n"),
        {"messages": [{"role": "user", "content": "a"}, called], "tools": json.dumps(TOOLS)},
    ]
    described = describe(write_rows(tmp_path / "chats.jsonl", rows), "chat_jsonl")
    assert (described.documents, described.characters) == (2, 4)
    assert [(each.reason, each.rows, each.first_line) for each in described.left_out or ()] == [
        ("an empty answer", 2, 3),
        ("no user turn", 1, 2),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([rows[0], rows[2]]), tmp_path / "chats.parquet")
    same = describe(tmp_path / "chats.parquet", "chat_parquet")
    assert (same.documents, [each.rows for each in same.left_out or ()]) == (1, [1])


def test_prompts_are_conversations_and_a_text_with_messages_is_told_so(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "b", "id": 3},
        {"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]},
        {"prompt": "a", "check": "number", "reference": "12"},
    ]
    file = write_rows(tmp_path / "chats.jsonl", rows)
    read = list(read_conversations(BytesIO(file.read_bytes()), "chats", "chat_jsonl", LeftOutRows()))
    assert [[turn["role"] for turn in each.messages] for each in read] == [["user", "assistant"]] * 2 + [["user"]]
    assert [(each.check, each.reference) for each in read] == [(None, None)] * 2 + [("number", "12")]
    with pytest.raises(UnusableDataset, match=r"line 1 is a conversation.*chat_jsonl"):
        describe(file, "jsonl")


@pytest.mark.parametrize("template", [TEMPLATE, MARKED], ids=["by its beginnings", "by its marks"])
def test_a_conversation_is_rendered_as_transformers_does_and_the_answers_are_found(template: str) -> None:
    renderer, tokenizer = TemplateRenderer(ChatTemplate(template)), words()
    turns = conversation("w20 w21", "w22 w23", "w24", "w25", system="w30")["messages"]
    rendered = renderer.render(Conversation(1, turns))
    assert rendered.text == tokenizer.apply_chat_template(turns, chat_template=template, tokenize=False)
    assert [rendered.text[start:end] for start, end in rendered.spans or ()] == ["w22 w23 w2", "w25 w2"]
    asked = tokenizer.apply_chat_template(turns[:4], chat_template=template, tokenize=False, add_generation_prompt=True)
    assert renderer.question(Conversation(1, turns)) == asked
    frame = renderer.frame()
    assert (frame.opening, frame.between, frame.closing.strip()) == ("w4 ", " w2 w5 ", "w2")


def test_a_turn_of_which_a_template_writes_nothing_is_not_dropped_in_silence() -> None:
    template = ChatTemplate("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", {})
    turns = [{"role": "narrator", "content": " w30 "}, {"role": "user", "content": "w20"}]
    with pytest.raises(ConversationRefused, match="nothing of the role narrator"):
        TemplateRenderer(template).render(Conversation(1, turns))  # type: ignore[arg-type]
    everyone = ChatTemplate("{% for m in messages %}{{ m.content | trim }}{% endfor %}", {})
    assert TemplateRenderer(everyone).render(Conversation(1, turns)).text == "w30w20"  # type: ignore[arg-type]


def test_the_template_of_a_folder_is_its_file_or_the_default_of_its_config(tmp_path: Path) -> None:
    assert read_template(tmp_path) is None
    several = [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]
    config = {"chat_template": several, "bos_token": {"content": "<s>"}, "eos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": "x", "eos_token": "</s>"}))
    template = read_template(tmp_path)
    assert template == ChatTemplate("b", {"bos_token": "<s>", "eos_token": "</s>"})
    (tmp_path / "chat_template.jinja").write_text("c")
    other = read_template(tmp_path)
    assert other is not None and other.source == "c" and other.sha256 != template.sha256


def rows_of(sizes: list[tuple[int, int]]) -> list[RenderedRow]:
    """Return conversations of a question and an answer with so many words, each answer of its own words."""
    rows = []
    for line, (asked, answered) in enumerate(sizes, 1):
        question = "".join("w9 " for _ in range(asked))
        answer = " ".join([f"w{10 + line}"] * answered)
        rows.append(RenderedRow(line=line, text=question + answer, spans=[(len(question), len(question + answer))]))
    return rows


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=30))
def test_every_conversation_counts_once_and_every_window_begins_with_one(sizes: list[tuple[int, int]]) -> None:
    chats = Conversations("chats", rows_of(sizes), "assistant")
    text = evaluation_set(chats, words(), samples=None, length=LENGTH, name="chats")
    windows, ids = text.windows, plain_ids(text.windows)
    assert windows.shape[1] == LENGTH and text.predicted == sum(answered for _, answered in sizes)
    assert text.text_bytes is not None and 3 * text.predicted <= text.text_bytes <= 4 * text.predicted
    assert (ids[:, 0] == 9).all(), "a question"
    counted = ids[windows >= 0].tolist()
    assert counted == [10 + line for line, (_, answered) in enumerate(sizes, 1) for _ in range(answered)]
    everything = training_windows(
        Conversations("chats", rows_of(sizes)), words(), samples=None, most=1000, length=LENGTH, seed=0, name="chats"
    )
    assert int((everything >= 0).sum()) == sum(map(sum, sizes))
    assert (calibration_windows(
        Conversations("chats", rows_of(sizes)), words(), samples=None, length=LENGTH, seed=0, name="chats"
    ) >= 0).all()  # fmt: skip


def test_what_is_longer_than_a_window_is_cut_or_left_out_and_noted() -> None:
    chats = Conversations("chats", rows_of([(4, 40), (30, 5), (3, 3)]), "assistant")
    text = evaluation_set(chats, words(), samples=None, length=LENGTH, name="chats")
    assert text.predicted == (LENGTH - 4) + 3
    assert ["(the first on line 1) was longer than 24" in each for each in chats.notes] == [True, False]
    assert "(the first on line 2) was left out" in chats.notes[1]
    chats = Conversations("chats", rows_of([(30, 5)]), "assistant")
    with pytest.raises(TooLittleText, match="no conversation with tokens that count: chats: 1 conversation"):
        evaluation_set(chats, words(), samples=None, length=LENGTH, name="chats")


@pytest.mark.parametrize("source", ["{{ messages[0].content.x.y }}", "{% if %}", "{{ 'a' * 10 ** 8 }}"])
def test_a_template_that_fails_names_its_line(source: str) -> None:
    with pytest.raises(TemplateFailed, match=r"\(line 3 of the template\)"):
        TemplateRenderer(ChatTemplate(f"\n\n{source}")).render(Conversation(1, conversation("a", "b")["messages"]))


def test_what_chance_and_the_day_would_change_stays_the_same() -> None:
    template = ChatTemplate("{{ range(1000) | random }} {{ strftime_now('%d %b %Y') }}")
    turns = conversation("a", "b")["messages"]
    texts = {TemplateRenderer(template).render(Conversation(1, turns)).text for _ in range(3)}
    assert len(texts) == 1 and "26 Jul 2024" in texts.pop()
