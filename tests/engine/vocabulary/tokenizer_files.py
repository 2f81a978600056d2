"""Small trained tokenizers of every kind that can be cut, as the content of a tokenizer.json."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from core.engine.exporters.probe_lines import varied_lines

Content = dict[str, Any]

LINES = [line for line in varied_lines(1500) if line.strip()]
END = "<|end|>"
TOOL = "<tool call>"
UNKNOWN = "<unk>"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _content(tokenizer: Tokenizer) -> Content:
    content: Content = json.loads(tokenizer.to_str())
    return content


def byte_level() -> Content:
    """BPE on bytes, as GPT-2's, which puts a token at the beginning of every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_tokens([TOOL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=None, special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return _content(tokenizer)


def byte_level_with_whole_words() -> Content:
    """The same with `ignore_merges`, as Llama 3's: words beyond the merges are tokens too. Merges are as older files
    have them.
    """
    content = byte_level()
    content["model"]["ignore_merges"] = True
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    vocabulary: dict[str, int] = content["model"]["vocab"]
    (added,) = [each for each in content["added_tokens"] if each["content"] == TOOL]
    for word in ("Ġrequests", "Ġcoöperate", "Ġquick!?", "zzqq"):
        written = word.encode().decode("latin-1") if word == "Ġcoöperate" else word
        vocabulary.setdefault(written, added["id"])
        added["id"] = len(vocabulary)
    return content


def byte_fallback() -> Content:
    """BPE on characters, with bytes for the others, as Llama 2's: a text is one word."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=[UNKNOWN, END, *BYTES], limit_alphabet=90, show_progress=False
    )
    tokenizer.train_from_iterator([piece for line in LINES for piece in line.split(" ")], trainer)
    content = _content(tokenizer)
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] not in BYTES]
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    content["decoder"] = json.loads(decoders.Sequence(parts).__getstate__())
    return content


def marked_ends() -> Content:
    """BPE on characters that marks the end of a word, as CLIP's; other characters are unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[UNKNOWN, END], limit_alphabet=80, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return _content(tokenizer)


def marked_continuations() -> Content:
    """BPE on characters that marks what continues a word."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN, continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=[UNKNOWN], limit_alphabet=80, continuing_subword_prefix="##", show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return _content(tokenizer)


def unigram() -> Content:
    """Unigram model as XLM-RoBERTa's, with unknown characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=700, special_tokens=[END, UNKNOWN], unk_token=UNKNOWN, show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing((END, 0), (END, 0))
    return _content(tokenizer)


def unigram_with_bytes() -> Content:
    """Unigram model with bytes for unknown characters."""
    content = unigram()
    pieces = [piece for piece, _ in content["model"]["vocab"]]
    least = min(score for _, score in content["model"]["vocab"])
    content["model"]["vocab"] += [[piece, least - 1] for piece in BYTES if piece not in pieces]
    content["model"]["byte_fallback"] = True
    return content


def word_piece() -> Content:
    """WordPiece as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, limit_alphabet=90, show_progress=False)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return _content(tokenizer)


KINDS: Mapping[str, Callable[[], Content]] = {
    each.__name__: each
    for each in (
        byte_level, byte_level_with_whole_words, byte_fallback, marked_ends,
        marked_continuations, unigram, unigram_with_bytes, word_piece,
    )
}  # fmt: skip


def write(folder: Path, content: Content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder
