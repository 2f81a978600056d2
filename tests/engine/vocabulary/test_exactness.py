"""A text whose tokens are all kept is tokenized to the same tokens by the cut tokenizer, for every kind."""

import json
import random
from collections.abc import Iterable, Sequence
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from core.engine.exporters.probe_lines import varied_lines
from core.engine.vocabulary.tokenizer import Tokenizer
from core.engine.vocabulary.tokenizer_kinds import parse_tokenizer
from tests.engine.vocabulary.tokenizer_files import END, KINDS, TOOL, Content

OTHER_LINES = varied_lines(800, seed=7)
PIECES = (
    *(END, TOOL, "<0x41>", "▁", "##a", "</w>", "[UNK]"),
    *("\u200d", "\ud7ff", "e\u0301", "🏽", "🇨", "\r\n", "   ", "\x00", "ﬁ"),
)
TEXTS = st.lists(
    st.sampled_from(OTHER_LINES) | st.sampled_from(PIECES) | st.text(max_size=12), min_size=1, max_size=6
).map("".join)
MERGING = ("byte_level", "byte_fallback", "marked_ends", "marked_continuations")


@cache
def dense(kind: str) -> tuple[Tokenizer, RustTokenizer]:
    content = KINDS[kind]()
    return parse_tokenizer(content), RustTokenizer.from_str(json.dumps(content))


def open_cut(tokenizer: Tokenizer, kept: Sequence[int]) -> RustTokenizer:
    return RustTokenizer.from_str(json.dumps(tokenizer.reduced(kept)))


def old_ids(cut: RustTokenizer, kept: Sequence[int], text: str) -> list[int]:
    """The tokens of the cut tokenizer, in the numbers of the dense one."""
    return [kept[number] for number in cut.encode(text).ids]


def closed(tokenizer: Tokenizer, ids: Iterable[int]) -> list[int]:
    return sorted(tokenizer.closure({*tokenizer.required, *ids}))


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS, seed=st.integers(0, 2**16), share=st.sampled_from((0.0, 0.02, 0.2, 0.7)))
def test_a_kept_text_has_the_same_tokens(kind: str, text: str, seed: int, share: float) -> None:
    """Kept are the tokens of the text, and any others: fewer merges of some, and merges that the text never needs."""
    tokenizer, rust = dense(kind)
    chance = random.Random(seed)
    ids = rust.encode(text).ids
    others = [number for number in tokenizer.tokens if chance.random() < share]
    kept = closed(tokenizer, [*ids, *others])
    cut = open_cut(tokenizer, kept)
    if kind == "word_piece" and "[UNK]" in rust.encode(text).tokens:
        return  # such a word may come apart once a longer prefix is gone
    assert old_ids(cut, kept, text) == ids
    assert cut.decode(cut.encode(text).ids) == rust.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_vocabulary_is_the_file_itself(kind: str) -> None:
    content = KINDS[kind]()
    tokenizer = parse_tokenizer(content)
    assert tokenizer.reduced(sorted(tokenizer.tokens)) == content


@pytest.mark.parametrize("kind", MERGING)
def test_without_one_token_of_a_path_texts_have_other_tokens(kind: str) -> None:
    """The property would fail if closures were smaller by any token between the characters and the token."""
    tokenizer, rust = dense(kind)
    tried = 0
    for text in OTHER_LINES:
        ids = rust.encode(text).ids
        for target in ids:
            between = tokenizer.closure((target,)) - {*ids} - tokenizer.required - {target}
            missing = max(between, key=lambda number: (len(tokenizer.tokens[number]), number), default=None)
            if missing is None or tried == 40:
                continue
            tried += 1
            kept = [number for number in closed(tokenizer, ids) if number != missing]
            assert old_ids(open_cut(tokenizer, kept), kept, text) != ids
    assert tried == 40


def test_a_whole_word_needs_its_path_within_a_longer_word() -> None:
    model: Content = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "fuse_unk": False,
        "end_of_word_suffix": None, "byte_fallback": False, "ignore_merges": True,
        "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "ab": 4, "abc": 5, "bcd": 6},
        "merges": [["a", "b"], ["ab", "c"]],
    }  # fmt: skip
    tokenizer = parse_tokenizer({"model": model, "added_tokens": [], "version": "1.0"})
    assert tokenizer.closure({5}) == {0, 1, 2, 4, 5}
    assert tokenizer.closure({6}) == {6}  # no merge makes it: it is a token where it is a word alone
    full = RustTokenizer.from_str(json.dumps(tokenizer.reduced(sorted(tokenizer.tokens))))
    assert full.encode("abcd").ids == [5, 3] and full.encode("bcd").ids == [6]
    kept = [0, 1, 2, 3, 5]
    assert old_ids(open_cut(tokenizer, kept), kept, "abcd") != [5, 3]
