"""Model folders that try to have code chosen, each made from its number alone: a case that fails can be made again."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

KEYS = [
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
CLASSES = [
    *("AutoModel", "AutoModelForCausalLM", "Trainer", "pipeline", "BertJapaneseTokenizer", "RagTokenizer"),
    *("GPT2Tokenizer", "T5Tokenizer"),
]
NAMES = [
    *("kernels-community/flash-attn", "org/kernel@main:attend", "flash_attention_2", "flex_attention", "paged|sdpa"),
    *("modeling_evil.Model", "org/code--modeling_evil.Model", "hf-hub:timm/resnet18.a1_in1k", "org/model"),
    *("_dynamo", "onnx", "load", "inductor", "quanto", "bitsandbytes", "resnet10t", "config.5.0.0.json"),
    *("{{ ''.__class__.__mro__ }}", "{% include '/etc/passwd' %}"),
]
_FILES = [
    *("config.json", "config.json", "tokenizer_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("generation_config.json", "preprocessor_config.json", "tokenizer.json", "adapter_config.json"),
]
_KERNELS = ["kernels-community/flash-attn", "kernels-community/flash-attn2@main:attend", "org/kernel", "flex_attention"]
_AUTO_MAP = {
    **dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoModelForImageClassification"), "modeling_evil.Model"),
    "AutoTokenizer": ["modeling_evil.Model", "org/code--modeling_evil.Model"],
}
_AIMED: list[tuple[str, str, list[Any]]] = [
    *(("config.json", key, [*_KERNELS, {"": "org/kernel"}]) for key in ("attn_implementation", "_attn_implementation")),
    ("config.json", "_attn_implementation_internal", [*_KERNELS]),
    ("config.json", "experts_implementation", [*_KERNELS, "sonicmoe", "deepgemm"]),
    ("config.json", "attribute_map", [{"_attn_implementation_internal": "model_type"}]),
    ("config.json", "per_layer_config", [{"0": {"attn_implementation": "org/kernel"}}]),
    ("config.json", "__dict__", [{"_attn_implementation_internal": "org/kernel"}]),
    ("config.json", "transformers_weights", ["BAIT/model.safetensors", "../bait/model.safetensors"]),
    ("config.json", "fusion_config", [{"patch_embeddings": True}, {"org/kernel": True}]),
    (
        "config.json",
        "quantization_config",
        [{"quant_method": each} for each in ("bitsandbytes", "gptq", "fp8", "mxfp4")],
    ),
    ("config.json", "model_args", [{"checkpoint_path": "BAIT/weights.pth"}, {"pretrained_cfg": {"file": "BAIT/x"}}]),
    ("config.json", "architecture", ["hf-hub:timm/resnet18.a1_in1k", "local-dir:BAIT", "timm/resnet18", "BAIT"]),
    *((file, "auto_map", [_AUTO_MAP]) for file in ("config.json", "tokenizer_config.json", "preprocessor_config.json")),
    *((file, "tokenizer_class", [*CLASSES]) for file in ("config.json", "tokenizer_config.json")),
    *(
        (file, key, ["BAIT/tokenizer.json", "BAIT/spiece.model", "BAIT/merges.txt", "../bait/vocab.txt"])
        for file in ("tokenizer_config.json", "special_tokens_map.json")
        for key in ("tokenizer_file", "vocab_file", "merges_file", "gguf_file", "vocab", "merges", "chat_template_file")
    ),
    ("tokenizer_config.json", "init_inputs", [["BAIT/vocab.json", "BAIT/merges.txt"]]),
    (
        "tokenizer_config.json",
        "fast_tokenizer_files",
        [["tokenizer.5.0.0.json", "tokenizer.../../bait/tokenizer.json"]],
    ),
    ("special_tokens_map.json", "local_files_only", [False]),
    ("generation_config.json", "compile_config", [{"backend": "inductor"}]),
    ("generation_config.json", "custom_generate", ["org/code", "BAIT"]),
    ("adapter_config.json", "peft_type", ["LORA"]),
]
"""(file, key, values): where a library looks for what it then fetches, imports or opens."""
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
    """Copy a model folder and say in it what should choose code, where that is looked for or anywhere."""
    source = random.Random(f"secateur config {number}")
    shutil.copytree(base, folder)
    is_aimed = source.random() < 0.6
    if is_aimed:
        name, key, values = source.choice(_AIMED)
        _say(folder / name, {key: source.choice(values)}, bait)
    for _ in range(source.choice([0, 0, 1]) if is_aimed else source.randint(1, 2)):
        file = folder / source.choice(_FILES)
        content: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
        holders = [content, *(each for each in content.values() if isinstance(each, dict))]
        holder = content if source.random() < 0.7 else source.choice(holders)
        holder[source.choice(KEYS)] = _value(source, bait)
        file.write_text(json.dumps(content))
    if source.random() < 0.1:  # a second config that the first one may lead to
        config = json.loads((folder / "config.json").read_text())
        other = config | {source.choice(KEYS): _value(source, bait)}
        (folder / "config.5.0.0.json").write_text(json.dumps(other))
        (folder / "config.json").write_text(json.dumps(config | {"configuration_files": ["config.5.0.0.json"]}))
    if source.random() < 0.2:
        (folder / "modeling_evil.py").write_text(_EVIL)
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(_EVIL)


def _say(file: Path, content: dict[str, Any], bait: Path) -> None:
    said = (json.loads(file.read_text()) if file.is_file() else {}) | content
    file.write_text(json.dumps(said).replace("BAIT", str(bait)))


def _value(source: random.Random, bait: Path) -> Any:
    text = source.choice([*NAMES, *CLASSES])
    path = str(bait / source.choice(sorted(each.name for each in bait.iterdir())))
    match source.randrange(9):
        case 0 | 1:
            return text
        case 2 | 3:
            return path
        case 4:
            return [path, path]
        case 5:
            return {source.choice(KEYS): source.choice([text, path])}
        case 6:
            return {"": text, "AutoConfig": text, "AutoModelForCausalLM": text, "AutoTokenizer": [text, text]}
        case 7:
            return source.choice([True, False, None, 0, "", {}, []])
        case _:
            return f"../{bait.name}/{Path(path).name}"
