"""Tokenizers that cannot be cut exactly are refused with the reason, and no file of a stranger breaks the reader."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.engine.removals.vocabulary.tokenizers.tokenizer_file import parse_tokenizer, read_tokenizer
from secateur_wire.errors import InvalidRequest
from tests.engine.vocabulary.tokenizer_files import KINDS, Content, write


def set_model(**values: Any) -> Callable[[Content], None]:
    return lambda content: content["model"].update(values)


def add_merge(left: str, right: str) -> Callable[[Content], None]:
    return lambda content: content["model"]["merges"].append([left, right])


@pytest.mark.parametrize(
    ("kind", "change", "reason"),
    [
        ("byte_level", set_model(dropout=0.1), "leaves out merges at random"),
        ("byte_level", set_model(type="Lattice"), "of the kind 'Lattice'"),
        ("byte_level", set_model(merges=["one"]), "not of two parts"),
        ("byte_level", set_model(vocab=None), "not as the library writes it"),
        ("byte_level", lambda content: content["model"]["vocab"].update(zz=300), "two tokens of the same id"),
        ("byte_level", lambda content: content["added_tokens"][0].update(id=17), "where its library counts 0"),
        ("byte_fallback", add_merge("<0x41>", "<0x42>"), "is not in its vocabulary"),
    ],
)
def test_the_reason_is_given(kind: str, change: Callable[[Content], None], reason: str) -> None:
    content = KINDS[kind]()
    change(content)
    with pytest.raises(InvalidRequest, match="vocabulary: the model's tokenizer") as refused:
        parse_tokenizer(content)
    assert reason in str(refused.value) and "keep the whole vocabulary" in str(refused.value)


def test_folders_without_a_file_or_with_code_of_their_own_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"has no tokenizer\.json"):
        read_tokenizer(tmp_path)
    write(tmp_path, KINDS["unigram"]())
    assert read_tokenizer(tmp_path).size == 700
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "OwnTokenizer"}))
    with pytest.raises(InvalidRequest, match="'OwnTokenizer', which has code of its own"):
        read_tokenizer(tmp_path)


def test_merges_of_byte_tokens_and_across_ends_are_refused() -> None:
    content = KINDS["byte_fallback"]()
    content["model"]["vocab"]["<0x41><0x42>"] = len(content["model"]["vocab"])
    add_merge("<0x41>", "<0x42>")(content)
    with pytest.raises(InvalidRequest, match="merges the byte tokens"):
        parse_tokenizer(content)
    content = KINDS["marked_ends"]()
    content["model"]["vocab"]["e</w>e"] = len(content["model"]["vocab"])
    add_merge("e</w>", "e")(content)
    with pytest.raises(InvalidRequest, match="across the end of a word"):
        parse_tokenizer(content)
