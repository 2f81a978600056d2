"""Folders with a cut tokenizer open by stock transformers as the class they were; what cannot be cut is refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from core.engine.vocabulary.files import config_ids, named_ids, renumbered, write_tokenizer
from core.engine.vocabulary.tokenizer_kinds import parse_tokenizer, read_tokenizer
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


CONFIG: dict[str, Any] = {
    "vocab_size": 100, "bos_token_id": 3, "eos_token_id": [5, 7], "pad_token_id": None, "sep_token_id": -1,
    "hidden_size": 9, "image_token_index": 11, "ignore_index": -100, "suppress_tokens": [13, 15],
    "begin_suppress_tokens": [17], "bad_words_ids": [[19, 21], [23]], "forced_decoder_ids": [[1, 25], [2, None]],
    "sequence_bias": [[[27, 29], -1.0]], "lang_to_id": {"<|en|>": 31},
    "text_config": {"vocab_size": 100, "video_token_id": 33, "rope_parameters": {"factor": 8}},
    "audio_config": {"vocab_size": 64, "bos_token_id": 2, "pad_token_id": 63},
    "vision_config": {"image_size": 96, "num_image_tokens": 4, "codebook_eos_token_id": 8},
    "architectures": ["A"],
}  # fmt: skip
NAMED = {3, 5, 7, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33}


def test_every_id_is_found_and_no_other_number() -> None:
    assert config_ids(CONFIG, 100) == NAMED
    assert config_ids({"eos_token_id": 128001, "bos_token_id": True, "pad_token_id": 1.0}, 100) == set()


def test_ids_and_sizes_change_together_and_nothing_else() -> None:
    kept = sorted({0, 50, *NAMED})
    changed = renumbered(CONFIG, kept, size=100)
    place = kept.index
    assert changed == CONFIG | {
        "vocab_size": len(kept),
        "bos_token_id": place(3),
        "eos_token_id": [place(5), place(7)],
        "image_token_index": place(11),
        "suppress_tokens": [place(13), place(15)],
        "begin_suppress_tokens": [place(17)],
        "bad_words_ids": [[place(19), place(21)], [place(23)]],
        "forced_decoder_ids": [[1, place(25)], [2, None]],
        "sequence_bias": [[[place(27), place(29)], -1.0]],
        "lang_to_id": {"<|en|>": place(31)},
        "text_config": {"vocab_size": len(kept), "video_token_id": place(33), "rope_parameters": {"factor": 8}},
    }
    assert renumbered(CONFIG, range(100), size=100) == CONFIG


def test_an_id_that_is_not_kept_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no kept token of the id 33"):
        renumbered(CONFIG, sorted(NAMED - {33}), size=100)


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
