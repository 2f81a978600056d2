"""Vocabulary of a GGUF file: a folder's tokenizer in llama.cpp's terms, from the tables of the GGUF import."""

import json
import unicodedata
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final, cast

from gguf import GGUFWriter, TokenType
from pydantic import BaseModel, Field
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import PreTokenizer as PreTokenizerSteps
from transformers import PreTrainedTokenizerBase

from core.engine.checkpoints.files import TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.probe_lines import varied_lines
from core.engine.exporters.sizes import PROBES
from core.engine.models.gguf_import import BYTE_LEVEL, PRE_TOKENIZERS, SENTENCEPIECE, PreTokenizer
from secateur_wire.base import JsonObject
from secateur_wire.errors import InvalidRequest

_COMMON: Final = ("gpt-2", "smollm", "llama-bpe", "qwen2")
"""Best-known names of pre-tokenizers that have several names."""
_ASCII_CASE_ONLY: Final = ("tekken", "gpt-4o")
"""Pre-tokenizers whose upper and lower case llama.cpp knows in ASCII only: it splits other texts differently."""
_UNREACHABLE: Final = -1e9
"""Score of a token that no merge produces."""


class _Step(BaseModel):
    type: str


class _Splitting(_Step):
    pretokenizers: list[_Step] = Field(default_factory=list)


class _Added(BaseModel):
    id: int
    special: bool


class _Model(BaseModel):
    type: str
    merges: list[tuple[str, str]] = Field(default_factory=list)
    byte_fallback: bool = False
    ignore_merges: bool = False
    unk_token: str | None = None


class _TokenizerFile(BaseModel):
    model: _Model
    added_tokens: list[_Added]
    pre_tokenizer: _Splitting | None
    normalizer: JsonObject | None

    @property
    def is_byte_level(self) -> bool:
        splitting = self.pre_tokenizer
        return splitting is not None and "ByteLevel" in {each.type for each in (splitting, *splitting.pretokenizers)}


@dataclass(frozen=True)
class Vocabulary:
    """Vocabulary as a file's metadata. `special` are ids by llama.cpp's name of their use.

    `kind` is `tokenizer.ggml.model`; `pre` is `tokenizer.ggml.pre`, for byte-level kinds. `is_composed`: the tokenizer
    composes characters (NFC) before it splits a text; llama.cpp does not.
    """

    kind: str
    pre: str
    tokens: list[str]
    types: list[int]
    adds: dict[str, bool]
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    special: dict[str, int] = field(default_factory=dict)
    template: str | None = None
    is_composed: bool = False

    def probes(self) -> list[str]:
        """Return lines of many kinds that the tokenizer and llama.cpp must tokenize alike."""
        lines = varied_lines(PROBES)
        return [unicodedata.normalize("NFC", line) for line in lines] if self.is_composed else lines

    def add_to(self, writer: GGUFWriter, size: int) -> None:
        """Add the metadata; ids without a token, up to the model's `size`, get a token that no text contains."""
        free = range(len(self.tokens), size)
        writer.add_tokenizer_model(self.kind)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list([*self.tokens, *(f"[PAD{number}]" for number in free)])
        writer.add_token_types([*self.types, *(TokenType.UNUSED for _ in free)])
        if self.kind == BYTE_LEVEL:
            writer.add_token_merges(self.merges)
        else:
            writer.add_token_scores([*self.scores, *(_UNREACHABLE for _ in free)])
        for name, number in self.special.items():
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
        for name, value in self.adds.items():
            writer.add_bool(f"tokenizer.ggml.add_{name}", value)
        if self.template is not None:
            writer.add_chat_template(self.template)


def read_vocabulary(folder: Path, tokenizer: PreTrainedTokenizerBase, size: int) -> Vocabulary:
    """Read the tokenizer of a folder whose model has `size` tokens.

    Raises InvalidRequest for a kind that llama.cpp does not support.
    """
    backend = cast(Tokenizer | None, getattr(tokenizer, "backend_tokenizer", None))
    if backend is None:
        raise _refusal(f"is of kind {type(tokenizer).__name__!r}")
    settings = _TokenizerFile.model_validate_json(backend.to_str())
    model = settings.model
    if model.type != "BPE":
        raise _refusal(f"is of kind {model.type!r}")
    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    if len(tokens) > size or vocabulary[tokens[-1]] != len(tokens) - 1:
        raise _refusal(f"has {len(tokens)} tokens up to id {vocabulary[tokens[-1]]}, the model {size}")
    added = {each.id: each.special for each in settings.added_tokens}
    merges = [" ".join(pair) for pair in model.merges]
    special = {
        name: number
        for name, number in {
            "bos": tokenizer.bos_token_id,
            "eos": tokenizer.eos_token_id,
            "unknown": tokenizer.unk_token_id,
            "padding": tokenizer.pad_token_id,
        }.items()
        if number is not None
    }
    ids: list[int] = tokenizer("a")["input_ids"]
    adds = {"bos_token": ids[0] == special.get("bos"), "eos_token": ids[-1] == special.get("eos")}
    if settings.is_byte_level:
        return Vocabulary(
            BYTE_LEVEL,
            _pre_tokenizer(backend, settings),
            tokens,
            [_added_type(added, number) for number in range(len(tokens))],
            adds,
            merges=merges,
            special=special,
            template=_template(folder),
            is_composed=settings.normalizer is not None,
        )
    if not model.byte_fallback:
        raise _refusal("is BPE of neither bytes nor sentencepiece")
    scores = {"".join(pair): -float(rank) for rank, pair in reversed(list(enumerate(model.merges)))}
    adds["space_prefix"] = backend.encode("a", add_special_tokens=False).tokens[0].startswith("▁")
    return Vocabulary(
        SENTENCEPIECE,
        "default",
        tokens,
        [
            TokenType.UNKNOWN
            if token == model.unk_token
            else TokenType.BYTE
            if len(token) == 6 and token.startswith("<0x")
            else _added_type(added, number)
            for number, token in enumerate(tokens)
        ],
        adds,
        scores=[scores.get(token, _UNREACHABLE) for token in tokens],
        special=special,
        template=_template(folder),
    )


def _added_type(added: dict[int, bool], number: int) -> TokenType:
    if number not in added:
        return TokenType.NORMAL
    return TokenType.CONTROL if added[number] else TokenType.USER_DEFINED


def _pre_tokenizer(backend: Tokenizer, settings: _TokenizerFile) -> str:
    """Return llama.cpp's name for this tokenizer's way of splitting texts."""
    if settings.normalizer is not None and settings.normalizer != {"type": "NFC"}:
        raise _refusal("changes texts before it splits them")
    lines = varied_lines(PROBES)
    pieces = [_pieces(backend.pre_tokenizer, line) for line in lines]
    names = [*_COMMON, *(name for name in PRE_TOKENIZERS if name not in (*_COMMON, *_ASCII_CASE_ONLY))]
    for kind, alike in groupby(names, PRE_TOKENIZERS.__getitem__):
        if kind.ignores_merges == settings.model.ignore_merges and _splits_alike(kind, lines, pieces):
            return next(alike)
    raise _refusal(f"splits texts as none of {', '.join(names)}")


def _splits_alike(kind: PreTokenizer, lines: list[str], pieces: list[list[str]]) -> bool:
    splitting = kind.build()
    return all(_pieces(splitting, line) == theirs for line, theirs in zip(lines, pieces, strict=True))


def _pieces(pre_tokenizer: PreTokenizerSteps | None, line: str) -> list[str]:
    assert pre_tokenizer is not None
    return [piece for piece, _ in pre_tokenizer.pre_tokenize_str(line)]


def _template(folder: Path) -> str | None:
    """Return the chat template. It is a program, and nothing here runs it."""
    if (folder / TEMPLATE_FILE).is_file():
        return (folder / TEMPLATE_FILE).read_text("utf-8")
    template = json.loads((folder / TOKENIZER_CONFIG_FILE).read_bytes()).get("chat_template")
    return template if isinstance(template, str) else None


def _refusal(why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{PARAM}: the model's tokenizer {why}; GGUF files are written with byte-level BPE whose splitting llama.cpp "
        "has, or BPE of sentencepiece with bytes to fall back on: leave gguf out, or choose such a model",
        param=PARAM,
    )
