"""Keys in a model folder's JSON files that would choose code: a module, a class, a kernel or a file to open.

The installed transformers, timm and peft look these keys up (docs/adr/0019-a-config-chooses-no-code.md says where). A
key is refused if its value is a string, a list or an object. Null, numbers, true and false are allowed, because they
name nothing.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from core.engine.checkpoints.files import CONFIG_FILE, SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE
from core.engine.checkpoints.special_floats import FLOAT_TAG
from core.untrusted_json import entries_of
from secateur_wire.errors import UnsafeConfig

_REFUSED = frozenset(
    {
        # modules and classes
        *("auto_map", "_auto_class", "custom_generate", "custom_pipelines", "attribute_map"),
        # kernels, compilers, other code in place of the model's own
        *("kernel_config", "fusion_config", "compile_config", "distributed_config"),
        *("quantization_config", "compression_config"),
        *("backbone", "backbone_config", "backbone_kwargs"),
        # files other than the checked ones
        *("configuration_files", "transformers_weights", "fast_tokenizer_files", "gguf_file"),
    }
)
_IMPLEMENTATION = re.compile(r"_?(attn|experts)_implementation")
_SPECIAL_NAME = re.compile(r"__\w+__")

_DTYPES = ("float32", "float16", "bfloat16", "float64")
_OTHER_LIBRARY_KEYS = "transformers.js_config"
_TIMM_NAME = re.compile(r"[A-Za-z0-9_.]+")
_TIMM_FILES = re.compile(r"pretrained|checkpoint|cache_dir")
_PATH_CHARACTERS = frozenset("/\\:")

TOKENIZER_CLASSES = frozenset(
    f"{name}{ending}"
    for name in (
        *("Albert", "Bart", "Barthez", "Bert", "BigBird", "Blenderbot", "Bloom", "Camembert", "CodeGen", "CodeLlama"),
        *("Cohere", "Deberta", "DebertaV2", "GPT2", "GPTNeoX", "GPTSw3", "Gemma", "Herbert", "Llama", "MBart"),
        *("MPNet", "Nllb", "OpenAIGPT", "Pegasus", "PreTrained", "Qwen2", "Qwen3_5", "RemBert", "RoFormer", "Roberta"),
        *("T5", "XGLM", "XLMRoberta", "XLNet"),
    )
    for ending in ("Tokenizer", "TokenizerFast")
) | {"TokenizersBackend"}
"""Tokenizer classes of transformers that read only the files beside them. Transformers would look any other name up
among all its exports, and call `from_pretrained` of the result."""

_OVERRIDDEN_FILES = frozenset(
    {"tokenizer_file", "special_tokens_map_file", "added_tokens_file", "tokenizer_config_file", "chat_template_file"}
)
"""Leftovers of older versions in tokenizer_config.json: transformers uses the folder's own file instead."""


def refuse_choices(content: Mapping[str, Any], file: str, *, allowed: tuple[str, ...] = ()) -> None:
    """Raise UnsafeConfig naming the key where a JSON file's content chooses code, except under `allowed` keys."""
    for path, key, value in entries_of({key: value for key, value in content.items() if key not in allowed}):
        if _can_name_code(value) and (
            key in _REFUSED or _IMPLEMENTATION.match(key) or (key != FLOAT_TAG and _SPECIAL_NAME.fullmatch(key))
        ):
            raise _refusal(file, path, "which selects code to run, and no code of a model is run here: remove the key")
    if file in _RULES:
        _RULES[file](content)


def _can_name_code(value: Any) -> bool:
    return isinstance(value, str | list | dict)


def _refusal(file: str, path: str, reason: str) -> UnsafeConfig:
    return UnsafeConfig(f"{file} holds {path[:200]!r}, {reason}", param="model")


def _check_config(config: Mapping[str, Any]) -> None:
    _check_tokenizer_class(config, CONFIG_FILE)
    read = {key: value for key, value in config.items() if key != _OTHER_LIBRARY_KEYS}
    for path, key, value in entries_of(read):  # a config of several models contains one for each
        if key in ("dtype", "torch_dtype") and isinstance(value, str) and value not in _DTYPES:
            raise _refusal(
                CONFIG_FILE, path, f"and {value[:100]!r} is none of {', '.join(_DTYPES)}: set it to the weights' dtype"
            )
        if key == "architecture" and isinstance(value, str) and not _TIMM_NAME.fullmatch(value):
            raise _refusal(
                CONFIG_FILE,
                path,
                f"and {value[:100]!r} is not the name of an architecture of timm; hubs and paths are not opened",
            )
        for inner, argument, given in entries_of({path: value} if key == "model_args" else {}):
            if _TIMM_FILES.match(argument) or (isinstance(given, str) and _PATH_CHARACTERS & set(given)):
                raise _refusal(CONFIG_FILE, inner, "which makes timm open another file: remove the key")


def _check_tokenizer_config(config: Mapping[str, Any]) -> None:
    _check_tokenizer_class(config, TOKENIZER_CONFIG_FILE)
    for key, value in config.items():
        is_argument = key == "init_inputs" and bool(value)
        is_inline = key in ("vocab", "merges") and isinstance(value, str)
        is_file = key.endswith("_file") and key not in _OVERRIDDEN_FILES and _can_name_code(value)
        if is_argument or is_inline or is_file:
            raise _refusal(
                TOKENIZER_CONFIG_FILE,
                key,
                "which names a file to open, but only the folder's usual files are opened: remove the key",
            )


def _check_special_tokens(tokens: Mapping[str, Any]) -> None:
    """Refuse keys that are no special token: transformers passes every key, even file names, to the tokenizer class."""
    for key in tokens:
        if not key.endswith(("_token", "_tokens")):
            raise _refusal(SPECIAL_TOKENS_FILE, key, "which is not a special token (…_token, …_tokens): remove the key")


def _check_tokenizer_class(config: Mapping[str, Any], file: str) -> None:
    named = config.get("tokenizer_class")
    if named is not None and (not isinstance(named, str) or named not in TOKENIZER_CLASSES):
        raise _refusal(
            file,
            "tokenizer_class",
            f"and {str(named)[:100]!r} is not a tokenizer class that this service opens; 'PreTrainedTokenizerFast' "
            "opens any tokenizer.json",
        )


_RULES: dict[str, Callable[[Mapping[str, Any]], None]] = {
    CONFIG_FILE: _check_config,
    TOKENIZER_CONFIG_FILE: _check_tokenizer_config,
    SPECIAL_TOKENS_FILE: _check_special_tokens,
}
