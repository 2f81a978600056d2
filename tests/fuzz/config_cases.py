"""Model folders that try to have code chosen, each made from its number alone: a case that fails can be made again."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

_KEYS = [
    # modules, classes
    *("auto_map", "_auto_class", "custom_generate", "custom_pipelines", "attribute_map", "trust_remote_code"),
    *("tokenizer_class", "processor_class", "image_processor_type", "feature_extractor_type", "config_class"),
    *("tokenizer_type", "tokenizer_object", "backend", "mistral_format", "model_type", "__class__", "__dict__"),
    # kernels, and code in place of the model's own
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "attn_implementation_autoset"),
    *("experts_implementation", "_experts_implementation", "_experts_implementation_internal", "kernel_config"),
    *("use_kernels", "allow_all_kernels", "fusion_config", "compile_config", "cache_implementation", "cache_config"),
    *("quantization_config", "compression_config", "distributed_config", "dtype", "torch_dtype", "loss_type"),
    *("backbone", "backbone_config", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone"),
    *("architecture", "model_args", "pretrained_cfg", "checkpoint_path", "features_only", "rope_scaling", "hidden_act"),
    # files and places
    *("configuration_files", "transformers_weights", "fast_tokenizer_files", "gguf_file", "name_or_path"),
    *("_name_or_path", "_commit_hash", "base_model_name_or_path", "vocab_file", "merges_file", "tokenizer_file"),
    *("spm_file", "special_tokens_map_file", "added_tokens_file", "chat_template_file", "vocab", "merges"),
    *("init_inputs", "local_files_only", "is_local", "cache_dir", "subfolder", "revision", "extra_files"),
    *("chat_template", "per_layer_config", "text_config", "assistant_model", "penalty_alpha", "watermarking_config"),
]
_CLASSES = [
    *("AutoModel", "AutoModelForCausalLM", "Trainer", "pipeline", "BertJapaneseTokenizer", "RagTokenizer"),
    *("GPT2Tokenizer", "T5Tokenizer"),
]
_NAMES = [
    *("kernels-community/flash-attn", "org/kernel@main:attend", "flash_attention_2", "flex_attention", "paged|sdpa"),
    *("modeling_evil.Model", "org/code--modeling_evil.Model", "hf-hub:timm/resnet18.a1_in1k", "org/model"),
    *("_dynamo", "onnx", "load", "inductor", "quanto", "bitsandbytes", "resnet10t", "config.5.0.0.json"),
    *("{{ ''.__class__.__mro__ }}", "{% include '/etc/passwd' %}"),
]
_FILES = [
    *("config.json", "config.json", "tokenizer_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("generation_config.json", "preprocessor_config.json", "tokenizer.json", "adapter_config.json"),
]
UNGUARDED: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "special_tokens_map.json", {"tokenizer_file": "BAIT/tokenizer.json"}),
    ("llama", "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "org/model"}),
    ("llama", "tokenizer_config.json", {"tokenizer_class": "Trainer"}),
    ("timm-resnet", "config.json", {"model_args": {"checkpoint_path": "BAIT/weights.pth"}}),
    ("timm-resnet", "config.json", {"architecture": "hf-hub:timm/resnet18.a1_in1k"}),
    ("timm-resnet", "config.json", {"architecture": "local-dir:BAIT"}),
]
"""(model, file, what is said in it): each makes a library do what must not be done, if nobody looks."""
_EVIL = "import socket\nsocket.create_connection(('192.0.2.1', 80))\n"


def write_bait(bait: Path) -> None:
    """Files that nothing may open."""
    bait.mkdir()
    for name in ("config.json", "tokenizer.json", "vocab.json", "adapter_config.json"):
        (bait / name).write_text("{}")
    for name in ("merges.txt", "vocab.txt", "chat_template.jinja", "modeling_evil.py"):
        (bait / name).write_text("\n")
    for name in ("weights.pth", "model.safetensors", "spiece.model"):
        (bait / name).write_bytes(b"\x80\x04cos\nsystem\n.")


def write_case(number: int, base: Path, folder: Path, bait: Path) -> None:
    """Copy a model folder and say in it one to three times what should choose code."""
    source = random.Random(f"secateur config {number}")
    shutil.copytree(base, folder)
    for _ in range(source.randint(1, 3)):
        file = folder / source.choice(_FILES)
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        holders = [content, *(each for each in content.values() if isinstance(each, dict))]
        holder = content if source.random() < 0.7 else source.choice(holders)
        holder[source.choice(_KEYS)] = _value(source, bait)
        file.write_text(json.dumps(content))
    if source.random() < 0.1:  # a second config that the first one may lead to
        config = json.loads((folder / "config.json").read_text())
        other = config | {source.choice(_KEYS): _value(source, bait)}
        (folder / "config.5.0.0.json").write_text(json.dumps(other))
        (folder / "config.json").write_text(json.dumps(config | {"configuration_files": ["config.5.0.0.json"]}))
    if source.random() < 0.2:
        (folder / "modeling_evil.py").write_text(_EVIL)
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(_EVIL)


def write_unguarded(number: int, bases: dict[str, Path], folder: Path, bait: Path) -> None:
    """Copy a model folder and say one of `UNGUARDED` in it."""
    name, file, content = UNGUARDED[number]
    shutil.copytree(bases[name], folder)
    said = (json.loads((folder / file).read_text()) if (folder / file).is_file() else {}) | content
    (folder / file).write_text(json.dumps(said).replace("BAIT", str(bait)))


def _value(source: random.Random, bait: Path) -> Any:
    text = source.choice([*_NAMES, *_CLASSES])
    path = str(bait / source.choice(sorted(each.name for each in bait.iterdir())))
    match source.randrange(9):
        case 0 | 1:
            return text
        case 2 | 3:
            return path
        case 4:
            return [path, path]
        case 5:
            return {source.choice(_KEYS): source.choice([text, path])}
        case 6:
            return {"": text, "AutoConfig": text, "AutoModelForCausalLM": text, "AutoTokenizer": [text, text]}
        case 7:
            return source.choice([True, False, None, 0, "", {}, []])
        case _:
            return f"../{bait.name}/{Path(path).name}"
