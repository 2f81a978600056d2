"""GGUF files to test with: small vocabularies, written with the format's own library."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy
from gguf import GGUFWriter, TokenType
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE

Merges = list[tuple[str, str]]


def train_byte_level(texts: Sequence[str], size: int) -> tuple[list[str], Merges]:
    """Return tokens and merges of byte-level BPE whose tokens run across words, digits and signs.

    Texts are not cut before, so that nearly every difference in where a pre-tokenizer cuts shows in the ids.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|end|>", "<|begin|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, special_tokens=specials, show_progress=False),
    )
    vocabulary = tokenizer.get_vocab()
    merges = [(left, right) for left, right in json.loads(tokenizer.to_str())["model"]["merges"]]
    return sorted(vocabulary, key=vocabulary.__getitem__), merges


def write_byte_level(file: Path, pre_tokenizer: str | None, tokens: list[str], merges: Merges, **flags: bool) -> Path:
    """Write a file that holds this vocabulary and no tensor."""
    writer = GGUFWriter(file, "llama")
    add_byte_level(writer, pre_tokenizer, tokens, merges)
    return finish(writer, file, flags)


def write_sentencepiece(file: Path, tokens: list[str], scores: list[float], types: list[int], **flags: bool) -> Path:
    """Write a file that holds this vocabulary and no tensor."""
    writer = GGUFWriter(file, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    return finish(writer, file, flags)


def write_llama(file: Path, pre_tokenizer: str, tokens: list[str], merges: Merges, *, leave_out: str = "") -> Path:
    """Write a whole model of one layer with random weights, all tensors but the one that is to be left out."""
    chance = numpy.random.default_rng(0)
    writer = GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-5)
    add_byte_level(writer, pre_tokenizer, tokens, merges)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (len(tokens), 16),
        "output_norm": (16,),
        "blk.0.attn_norm": (16,),
        "blk.0.attn_q": (16, 16),
        "blk.0.attn_k": (8, 16),
        "blk.0.attn_v": (8, 16),
        "blk.0.attn_output": (16, 16),
        "blk.0.ffn_norm": (16,),
        "blk.0.ffn_gate": (32, 16),
        "blk.0.ffn_up": (32, 16),
        "blk.0.ffn_down": (16, 32),
    }
    for name, shape in shapes.items():
        if name != leave_out:
            writer.add_tensor(f"{name}.weight", chance.normal(size=shape).astype(numpy.float32))
    return finish(writer, file, {})


def add_byte_level(writer: GGUFWriter, pre_tokenizer: str | None, tokens: list[str], merges: Merges) -> None:
    writer.add_tokenizer_model("gpt2")
    if pre_tokenizer is not None:
        writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if token.startswith("<|") else TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)


def finish(writer: GGUFWriter, file: Path, flags: dict[str, bool]) -> Path:
    for name, value in flags.items():
        writer.add_bool(f"tokenizer.ggml.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
