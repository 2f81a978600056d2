"""Folders with a cut tokenizer: opened by stock transformers as the class they were, with the same behaviour."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from core.engine.removals.vocabulary.tokenizers.files import named_ids, write_tokenizer
from core.engine.removals.vocabulary.tokenizers.tokenizer_file import read_tokenizer
from secateur_wire.errors import InvalidRequest
from tests.engine.vocabulary.tokenizer_files import END, KINDS, TOOL, Content, write

TEXTS = ["the quick brown Fox  jumps", "don't requests; 42", "they're café naïve", f"a{END}b"]
TEMPLATE = "{% for m in messages %}{{ '<|' + m['role'] + '|>\\nSQLite ' + m['content'] }}{% endfor %}Ångström"


def llama() -> PreTrainedTokenizerBase:
    content = KINDS["byte_fallback"]()
    merges = [tuple(merge) for merge in content["model"]["merges"]]
    vocabulary = {{END: "</s>"}.get(token, token): number for token, number in content["model"]["vocab"].items()}
    return LlamaTokenizer(vocab=vocabulary | {"<s>": len(vocabulary)}, merges=merges)


def fast(folder: Path) -> PreTrainedTokenizerBase:
    file = write(folder, KINDS["byte_level"]()) / "tokenizer.json"
    return PreTrainedTokenizerFast(
        tokenizer_file=str(file), eos_token=END, pad_token=END, extra_special_tokens={"tool_token": TOOL}
    )


def saved(name: str, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = fast(folder / "made") if name == "fast" else llama()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "dense")
    opened: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder / "dense")
    return opened


def kept_for(folder: Path, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    own = read_tokenizer(folder)
    named = named_ids(folder, len(tokenizer))
    of_texts = (number for text in texts for number in tokenizer(text)["input_ids"])
    return sorted(own.closure({*own.required, *named, *of_texts}))


@pytest.mark.parametrize("name", ["fast", "llama"])
def test_stock_transformers_opens_the_same_class_with_the_same_behaviour(name: str, tmp_path: Path) -> None:
    dense = saved(name, tmp_path)
    chat = [{"role": "user", "content": "the quick"}]
    texts = [*TEXTS, str(dense.apply_chat_template(chat, tokenize=False))]
    kept = kept_for(tmp_path / "dense", dense, texts)
    assert len(kept) < len(dense) / 1.5
    write_tokenizer(tmp_path / "dense", tmp_path / "cut", kept, size=len(dense))
    cut = AutoTokenizer.from_pretrained(tmp_path / "cut")
    assert type(cut) is type(dense) and len(cut) == len(kept)
    for text in texts:
        ids = cut(text)["input_ids"]
        assert [kept[number] for number in ids] == dense(text)["input_ids"], text
        assert cut.decode(ids) == dense.decode(dense(text)["input_ids"])
    assert cut.special_tokens_map == dense.special_tokens_map
    assert [kept[number] for number in cut.all_special_ids] == dense.all_special_ids
    assert {kept[number]: str(token) for number, token in cut.added_tokens_decoder.items()} == {
        number: str(token) for number, token in dense.added_tokens_decoder.items()
    }
    assert cut.apply_chat_template(chat, tokenize=False) == texts[-1]


def test_the_files_beside_it_follow_and_older_forms_are_left_out_with_a_note(tmp_path: Path) -> None:
    source = write(tmp_path / "source", KINDS["byte_level"]())
    tokenizer = read_tokenizer(source)
    highest = tokenizer.size - 1
    size = tokenizer.size + 23
    files: dict[str, Content] = {
        "config.json": {"vocab_size": size, "image_token_id": 700},
        "generation_config.json": {"eos_token_id": [0, 701], "suppress_tokens": [702], "max_length": 700},
        "added_tokens.json": {TOOL: highest},
        "special_tokens_map.json": {"eos_token": END},
        "tokenizer_config.json": {
            "added_tokens_decoder": {"0": {"content": END}, str(highest): {"content": TOOL}},
            "eos_token": END,
            "model_max_length": 700,
        },
    }
    for name, content in files.items():
        (source / name).write_text(json.dumps(content))
    for name in ("vocab.json", "merges.txt", "tokenizer.model"):
        (source / name).write_text("")
    (source / "chat_template.jinja").write_text(TEMPLATE)
    named = named_ids(source, size)
    assert named == {0, 700, 701, 702}
    kept = sorted(tokenizer.closure({*tokenizer.required, *named}))
    notes = write_tokenizer(source, tmp_path / "cut", kept, size=size)
    assert [note.split()[0] for note in notes] == ["vocab.json", "merges.txt", "tokenizer.model"]
    written = {file.name: file.read_text() for file in (tmp_path / "cut").iterdir()}
    assert written.keys() == {*files, "tokenizer.json", "chat_template.jinja"} - {"config.json"}
    assert written["chat_template.jinja"] == TEMPLATE
    cut = {name: json.loads(text) for name, text in written.items() if name.endswith(".json")}
    place = kept.index
    assert cut["generation_config.json"] == {
        "eos_token_id": [0, place(701)], "suppress_tokens": [place(702)], "max_length": 700
    }  # fmt: skip
    assert cut["added_tokens.json"] == {TOOL: len(kept) - 1}
    decoder = cut["tokenizer_config.json"]["added_tokens_decoder"]
    assert decoder == {"0": {"content": END}, str(len(kept) - 1): {"content": TOOL}}
    with pytest.raises(InvalidRequest, match="no kept token of the id 701"):
        write_tokenizer(source, tmp_path / "other", [each for each in kept if each != 701], size=size)
