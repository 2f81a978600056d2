"""Tokenizer and config of a GGUF file, where the loader in transformers would silently make others of its metadata.

It ignores most pre-tokenizers, so that texts would be split into other tokens than those of the model's training, and
settings that then keep the defaults of the class. The tokenizer's output is llama.cpp's.
"""

from dataclasses import dataclass
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config
from transformers.tokenization_utils_base import generate_merges

from core.engine.models.gguf_header import GgufHeader
from secateur_wire.errors import UnusableModel

BYTE_LEVEL: Final = "gpt2"
SENTENCEPIECE: Final = "llama"
"""Names in `tokenizer.ggml.model` of the two kinds of tokenizer of the importable architectures."""


@dataclass(frozen=True)
class PreTokenizer:
    """Splitting of text before byte-level BPE: each pattern splits all pieces of the one before, matches or not.

    With `ignores_merges` a piece that is itself a token stays whole, whatever the merges would give. With `adds_bos`
    texts begin with the BOS token unless the file says otherwise.
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        """Return the pre-tokenizer that splits a text in this way, into pieces of bytes."""
        splits = (pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in self.patterns)
        return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_BLANKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = _WORDS + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _BLANKS
_QWEN2 = _WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + _BLANKS
_SEED_CODER = _WORDS + r"|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + _BLANKS
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED_WORDS = r"[^\r\n\p{L}\p{N}]?" + _UPPER + "*" + _LOWER + r"+%s|[^\r\n\p{L}\p{N}]?" + _UPPER + "+" + _LOWER + "*%s"
_CASED_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _BLANKS
_TEKKEN = _CASED_WORDS % ("", "") + r"|\p{N}" + _CASED_REST
_GPT4O = _CASED_WORDS % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?") + r"|\p{N}{1,3}" + _CASED_REST

_PLAIN = PreTokenizer((_GPT2,))
_SINGLE_DIGITS = PreTokenizer((r"\p{N}", _GPT2))
_LLAMA3_WORDS = PreTokenizer((_LLAMA3,), ignores_merges=True, adds_bos=True)
PRE_TOKENIZERS: Final[dict[str, PreTokenizer]] = {
    "a.x-4.0": _PLAIN,
    "codeshell": _SINGLE_DIGITS,
    "command-r": _SINGLE_DIGITS,
    "dbrx": PreTokenizer((_LLAMA3,)),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    "deepseek-r1-qwen": PreTokenizer((_QWEN2,)),
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "falcon3": _LLAMA3_WORDS,
    "gpt-2": _PLAIN,
    "gpt-4o": PreTokenizer((_GPT4O,)),
    "kormo": PreTokenizer((_QWEN2,)),
    "llama-bpe": _LLAMA3_WORDS,
    "llama-v3": _LLAMA3_WORDS,
    "llama3": _LLAMA3_WORDS,
    "megrez": PreTokenizer((_QWEN2,)),
    "mellum": _PLAIN,
    "midm-2.0": _LLAMA3_WORDS,
    "minerva-7b": _SINGLE_DIGITS,
    "olmo": _PLAIN,
    "phi-2": _PLAIN,
    "pixtral": _LLAMA3_WORDS,
    "qwen2": PreTokenizer((_QWEN2,)),
    "refact": _SINGLE_DIGITS,
    "seed-coder": PreTokenizer((_SEED_CODER,)),
    "smaug-bpe": PreTokenizer((_LLAMA3,)),
    "smollm": _SINGLE_DIGITS,
    "starcoder": _SINGLE_DIGITS,
    "tekken": PreTokenizer((_TEKKEN,), ignores_merges=True, adds_bos=True),
    "trillion": _PLAIN,
}
"""Pre-tokenizers of the importable architectures, by their names in `tokenizer.ggml.pre`."""

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # values of `tokenizer.ggml.token_type`
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
_SENTENCEPIECE_IDS = {"bos": 1, "eos": 2, "unk": 0}
"""Ids of the special tokens of a sentencepiece vocabulary whose file does not name them."""


def build_tokenizer(header: GgufHeader) -> PreTrainedTokenizerFast:
    """Build the file's tokenizer; raises UnusableModel naming an unknown kind or pre-tokenizer."""
    kind = header.need("tokenizer.ggml.model", str)
    tokens = header.texts("tokenizer.ggml.tokens")
    if not tokens or len(set(tokens)) < len(tokens):
        raise UnusableModel(f"{header.name} has no vocabulary, or one with a token twice", param="path")
    if kind == BYTE_LEVEL:
        tokenizer, adds_bos = _byte_level(header, tokens)
    elif kind == SENTENCEPIECE:
        tokenizer, adds_bos = _sentencepiece(header, tokens), True
    else:
        raise UnusableModel(
            f"{header.name} has a tokenizer of kind {kind[:50]!r} (tokenizer.ggml.model); taken are "
            f"{BYTE_LEVEL!r} (byte-level BPE) and {SENTENCEPIECE!r} (sentencepiece)",
            param="path",
        )
    types = header.numbers("tokenizer.ggml.token_type")
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=token_type != _USER_DEFINED)
            for token, token_type in zip(tokens, types, strict=False)
            if token_type in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]
    )
    special = _special_tokens(header, tokens, kind)
    _add_bos_and_eos(header, tokenizer, tokens, special, adds_bos)
    built = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        **{f"{name}_token": tokens[number] for name, number in special.items()},
    )
    built.chat_template = header.get("tokenizer.chat_template", str)
    return built


def _byte_level(header: GgufHeader, tokens: list[str]) -> tuple[Tokenizer, bool]:
    """Return a byte-level tokenizer, and True if texts begin with BOS where the file does not say."""
    name = header.get("tokenizer.ggml.pre", str)
    if name not in PRE_TOKENIZERS:
        named = "does not name its pre-tokenizer" if name is None else f"names the pre-tokenizer {name[:50]!r}"
        raise UnusableModel(
            f"{header.name} {named} (tokenizer.ggml.pre), without which its texts would fall into other tokens than "
            f"the model knows; taken are {', '.join(PRE_TOKENIZERS)}",
            param="path",
        )
    pre_tokenizer = PRE_TOKENIZERS[name]
    tokenizer = Tokenizer(BPE(_vocabulary(tokens), _merges(header, tokens), ignore_merges=pre_tokenizer.ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizer.build()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, pre_tokenizer.adds_bos


def _sentencepiece(header: GgufHeader, tokens: list[str]) -> Tokenizer:
    """Build BPE over the full text with ▁ for spaces, with one more in front unless the file says otherwise."""
    prefix = header.get("tokenizer.ggml.add_space_prefix", bool) is not False
    unknown = _special_tokens(header, tokens, SENTENCEPIECE).get("unk")
    tokenizer = Tokenizer(
        BPE(
            _vocabulary(tokens),
            _merges(header, tokens),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=None if unknown is None else tokens[unknown],
        )
    )
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if prefix else [spaces])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return tokenizer


def _vocabulary(tokens: list[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _merges(header: GgufHeader, tokens: list[str]) -> list[tuple[str, str]]:
    """Return the file's merges, else those that its vocabulary and scores imply."""
    vocabulary = _vocabulary(tokens)
    if "tokenizer.ggml.merges" in header.metadata:
        merges = []
        for merge in header.texts("tokenizer.ggml.merges"):
            space = merge.find(" ", 1)  # a token may be a space itself
            pair = (merge[:space], merge[space + 1 :])
            if not {*pair, "".join(pair)} <= vocabulary.keys():
                raise UnusableModel(
                    f"{header.name} merges {merge[:50]!r}, which is not in its vocabulary", param="path"
                )
            merges.append(pair)
        return merges
    scores = header.numbers("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise UnusableModel(f"{header.name} has neither merges nor a score for each token", param="path")
    implied: list[tuple[str, str]] = generate_merges(vocabulary, dict(zip(tokens, scores, strict=True)))
    return implied


def _special_tokens(header: GgufHeader, tokens: list[str], kind: str) -> dict[str, int]:
    """Return the ids of the special tokens that the vocabulary has."""
    defaults = _SENTENCEPIECE_IDS if kind == SENTENCEPIECE else {}
    stored = {name: header.get(f"tokenizer.ggml.{key}_token_id", int) for name, key in _SPECIAL.items()}
    ids = {name: defaults.get(name) if number is None else number for name, number in stored.items()}
    return {name: number for name, number in ids.items() if number is not None and 0 <= number < len(tokens)}


def _add_bos_and_eos(
    header: GgufHeader, tokenizer: Tokenizer, tokens: list[str], special: dict[str, int], adds_bos: bool
) -> None:
    """Add BOS before and EOS after each text, as the file or else its pre-tokenizer defines."""
    wanted = {"bos": adds_bos, "eos": False}
    framed = {}
    for name, default in wanted.items():
        declared = header.get(f"tokenizer.ggml.add_{name}_token", bool)
        if default if declared is None else declared:
            if name not in special:
                raise UnusableModel(f"{header.name} adds a {name.upper()} token but does not name it", param="path")
            framed[name] = tokens[special[name]]
    sequence = [framed.get("bos"), "$A", framed.get("eos")]
    tokenizer.post_processor = TemplateProcessing(
        single=[each for each in sequence if each is not None],
        special_tokens=[(token, special[name]) for name, token in framed.items()],
    )


_LEFT_OUT: Final[dict[str, dict[str, str]]] = {
    "gpt2": {"context_length": "n_positions", "feed_forward_length": "n_inner"},
    "qwen3": {"attention.key_length": "head_dim"},
    "gemma2": {"attention.key_length": "query_pre_attn_scalar"},
    "gemma3": {"attention.key_length": "query_pre_attn_scalar"},
}
"""Config's name for each key of whole numbers, by architecture."""
_CAPS: Final = {
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
_SCALED_BY_WIDTH: Final = {"gemma2": 46, "gemma3": 62}
"""Number of layers of the largest models, which scale attention by hidden size per head; files do not say so."""


def complete_config(config: PretrainedConfig, header: GgufHeader) -> PretrainedConfig:
    """Set the values that the loader's config lacks; return that config, or one of a class that has the file's biases.

    Biases would otherwise be dropped silently.
    """
    architecture = header.architecture
    for key, name in _LEFT_OUT.get(architecture, {}).items():
        value = header.get(f"{architecture}.{key}", int)
        if value is not None:
            setattr(config, name, value)
    for key, name in _CAPS.items():
        cap = header.get(f"{architecture}.{key}", float)
        if cap is not None:
            setattr(config, name, cap)
    if config.num_hidden_layers == _SCALED_BY_WIDTH.get(architecture):
        config.query_pre_attn_scalar = config.hidden_size // config.num_attention_heads
    _complete_rotary(config, header)
    period = header.get(f"{architecture}.attention.sliding_window_pattern", int)
    if period:
        config.layer_types = [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
            for layer in range(config.num_hidden_layers)
        ]
    if config.pad_token_id is not None and not 0 <= config.pad_token_id < config.vocab_size:
        config.pad_token_id = None
    return _with_biases(config, header) if architecture == "llama" else config


def _complete_rotary(config: PretrainedConfig, header: GgufHeader) -> None:
    """Set the bases of rotary embeddings, and the share of a head they turn."""
    rotary = getattr(config, "rope_parameters", None)
    if rotary is None:
        return
    name = header.architecture
    base, base_of_windows = (header.get(f"{name}.rope.{key}", float) for key in ("freq_base", "freq_base_swa"))
    by_kind = {"full_attention": base, "sliding_attention": base_of_windows}
    for kind, value in by_kind.items() if by_kind.keys() & rotary.keys() else [(None, base)]:
        if value is not None:
            (rotary if kind is None else rotary[kind])["rope_theta"] = value
    turned = header.get(f"{name}.rope.dimension_count", int)
    if turned is not None and "partial_rotary_factor" in rotary:
        head_size = header.get(f"{name}.attention.key_length", int) or config.hidden_size // config.num_attention_heads
        rotary["partial_rotary_factor"] = turned / head_size


def _with_biases(config: PretrainedConfig, header: GgufHeader) -> PretrainedConfig:
    """Return the config of the class with exactly the file's biases: Qwen2 has those of the attention's inputs.

    llama.cpp's Llama computes these too, and so a Qwen2 without some heads is written as Llama.
    """
    names = {tensor.name for tensor in header.tensors}
    config.attention_bias, config.mlp_bias = "blk.0.attn_q.bias" in names, "blk.0.ffn_gate.bias" in names
    if not config.attention_bias or "blk.0.attn_output.bias" in names:
        return config
    common = LlamaConfig().to_dict().keys() - {"model_type", "attention_bias", "mlp_bias"}
    return Qwen2Config(**{name: value for name, value in config.to_dict().items() if name in common})
