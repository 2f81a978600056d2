"""Counts of tokens, and those that stay: of the texts first, closed, never more than asked, a multiple where asked."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from core.engine.datasets.formats import DOCUMENT_END
from core.engine.vocabulary import counts as counting
from core.engine.vocabulary.choice import KeptTokens, choose_tokens
from core.engine.vocabulary.counts import Counts, count_tokens
from core.engine.vocabulary.tokenizer import Tokenizer
from core.engine.vocabulary.tokenizer_kinds import read_tokenizer
from secateur_wire.errors import InvalidRequest
from tests.engine.vocabulary.tokenizer_files import KINDS, LINES, write

TEXTS = ["the quick brown Fox jumps", "don't requests;", "the the the Fox"]


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp(request.param), KINDS[request.param]())


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return read_tokenizer(folder)


@pytest.fixture(scope="module")
def counts(folder: Path) -> Counts:
    return count_tokens(TEXTS, folder)


@settings(max_examples=30)
@given(st.data())
def test_any_number_is_met_exactly_and_closed(tokenizer: Tokenizer, counts: Counts, data: st.DataObject) -> None:
    least = len(tokenizer.closure(tokenizer.required))
    wanted = data.draw(st.integers(least, tokenizer.size))
    step = data.draw(st.sampled_from((1, 8, 64)))
    chosen = choose_tokens(tokenizer, counts, tokens=wanted, round_to=step)
    ids = {*chosen.ids}
    assert len(ids) == len(chosen.ids) == min(-(-wanted // step) * step, tokenizer.size)
    assert list(chosen.ids) == sorted(ids) and ids >= tokenizer.required and ids <= tokenizer.tokens.keys()
    assert tokenizer.closure(ids) == ids
    kept_counts = sum(int(counts.by_id[number]) for number in ids)
    assert chosen.covered == pytest.approx(kept_counts / counts.tokens)
    assert chosen.least == least


def test_too_few_and_too_many_are_refused_by_name(tokenizer: Tokenizer, counts: Counts) -> None:
    least = len(tokenizer.closure(tokenizer.required))
    with pytest.raises(InvalidRequest, match=f"ask for {least:,} or more") as refused:
        choose_tokens(tokenizer, counts, tokens=least - 1)
    assert refused.value.param == "tokens"
    with pytest.raises(InvalidRequest, match=f"more than the {tokenizer.size:,} tokens"):
        choose_tokens(tokenizer, counts, tokens=tokenizer.size + 1)


def test_tokens_of_strings_stay_at_a_beginning_and_after_a_space(tokenizer: Tokenizer, counts: Counts) -> None:
    text = "SQLite coöperate"
    least = choose_tokens(tokenizer, counts, tokens=None, keep=[text]).least
    chosen = choose_tokens(tokenizer, counts, tokens=least, keep=[text])
    assert {*tokenizer.encode(text), *tokenizer.encode(f" {text}")} <= {*chosen.ids}
    other = max(tokenizer.tokens.keys() - {*chosen.ids})
    assert other in choose_tokens(tokenizer, counts, tokens=None, required=[other]).ids


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("scripts"), KINDS["byte_level"]())


def letters(tokenizer: Tokenizer, chosen: KeptTokens) -> str:
    always = tokenizer.closure(tokenizer.required)
    return b"".join(tokenizer.spelled(number) for number in {*chosen.ids} - always).decode(errors="ignore")


def test_the_rest_is_filled_by_the_scripts_of_the_texts_or_those_asked_for(byte_level: Path) -> None:
    tokenizer = read_tokenizer(byte_level)
    latin = count_tokens(TEXTS, byte_level)
    chosen = choose_tokens(tokenizer, latin, tokens=700)
    assert chosen.scripts == ("Latin",) and "и" not in letters(tokenizer, chosen)
    russian = choose_tokens(tokenizer, latin, tokens=700, scripts=["Cyrl", "Latin"])
    assert russian.scripts == ("Cyrillic", "Latin") and "и" in letters(tokenizer, russian)
    mixed = choose_tokens(tokenizer, count_tokens([*TEXTS, "Привет МИР"], byte_level), tokens=700)
    assert {*mixed.scripts} == {"Latin", "Cyrillic"}


def test_scripts_that_are_unknown_or_that_the_vocabulary_lacks_are_named(byte_level: Path) -> None:
    tokenizer = read_tokenizer(byte_level)
    counts = count_tokens([*TEXTS, "ᚠᛇᚻ ᛒᛦᚦ"], byte_level)
    assert choose_tokens(tokenizer, counts, tokens=700).lacking == ("Runic",)
    with pytest.raises(InvalidRequest, match="no token of Runic"):
        choose_tokens(tokenizer, counts, tokens=700, scripts=["Latin", "Runic"])
    with pytest.raises(InvalidRequest, match="'Elvish' is not a script"):
        choose_tokens(tokenizer, counts, tokens=700, scripts=["Elvish"])


@pytest.mark.parametrize(("kind", "batch"), [("byte_level", 1), ("word_piece", 300)])
def test_counts_are_those_of_every_document(
    kind: str, batch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", max(batch, max(map(len, LINES)) + 2))
    folder = write(tmp_path, KINDS[kind]())
    tokenizer = RustTokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    expected = Counter(
        number for line in LINES for number in tokenizer.encode(line + DOCUMENT_END, add_special_tokens=False).ids
    )
    counted = count_tokens(iter(LINES), folder)
    assert {number: int(count) for number, count in enumerate(counted.by_id) if count} == dict(expected)
    assert counted.tokens == expected.total()
    assert counted.scripts["Greek"] == sum("\u0370" <= each <= "\u03ff" for line in LINES for each in line)


def test_a_long_document_is_counted_in_parts_that_end_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, KINDS["byte_level"]())
    document = "\n".join(["the quick brown Fox"] * 50)
    whole = count_tokens([document], folder)
    monkeypatch.setattr(counting, "_BATCH_CHARACTERS", 101)
    parts = count_tokens([document], folder)
    assert (parts.by_id == whole.by_id).all() and parts.scripts == whole.scripts
