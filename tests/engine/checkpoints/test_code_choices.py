"""No file beside the weights chooses code, kernels or files: each that would is refused by its name and key."""

import json
from pathlib import Path
from typing import Any

import pytest

from core.engine.architectures.describe import inspect_folder
from core.engine.checkpoints.companions import MOST_CHARACTERS, MOST_TEMPLATES
from secateur_wire.errors import UnsafeConfig, UnusableModel
from tests.model_folders import write_llama

KERNEL = "kernels-community/flash-attn"


def write(folder: Path, file: str = "config.json", **content: Any) -> Path:
    """A sound model in whose file this is said too."""
    write_llama(folder)
    place = folder / file
    said = json.loads(place.read_text()) if place.is_file() else {}
    place.write_text(json.dumps(said | content))
    return folder


@pytest.mark.parametrize(
    "key",
    [
        *("auto_map", "attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal", "kernel_config"),
        *("attn_implementation_of_a_later_version", "fusion_config", "compile_config", "distributed_config"),
        *("compression_config", "custom_generate", "custom_pipelines", "_auto_class", "attribute_map", "__dict__"),
        *("backbone", "backbone_config", "backbone_kwargs", "configuration_files", "transformers_weights"),
        *("fast_tokenizer_files", "gguf_file"),
    ],
)
def test_a_key_that_chooses_code_is_refused_at_any_depth_of_any_file(key: str, tmp_path: Path) -> None:
    depths: list[tuple[str, dict[str, Any]]] = [
        (key, {key: KERNEL}),
        (f"text_config.{key}", {"text_config": {key: {}}}),
        (f"a.1.b.{key}", {"a": [0, {"b": {key: [KERNEL]}}]}),
    ]
    files = ("config.json", "tokenizer_config.json", "generation_config.json", "preprocessor_config.json")
    for number, (path, content) in enumerate(depths):
        for file in (*files, "processor_config.json"):
            with pytest.raises(UnsafeConfig, match=r"selects code to run.*remove the key") as refused:
                inspect_folder(write(tmp_path / f"{number}-{file}", file, **content))
            assert f"{file} holds {path!r}" in refused.value.message


def test_nested_quantisation_is_refused_and_null_is_none(tmp_path: Path) -> None:
    nested = {"text_config": {"quantization_config": {"quant_method": "gptq"}}}
    with pytest.raises(UnsafeConfig, match=r"config\.json holds 'text_config\.quantization_config'"):
        inspect_folder(write(tmp_path / "nested", **nested))
    inspect_folder(write(tmp_path / "null", quantization_config=None))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"dtype": "_dynamo"}, "'dtype', and '_dynamo' is none of float32, float16"),
        ("config.json", {"torch_dtype": "hub"}, "'torch_dtype', and 'hub' is none of"),
        ("config.json", {"tokenizer_class": "Trainer"}, "'tokenizer_class', and 'Trainer' is not a tokenizer"),
        ("config.json", {"architecture": "hf-hub:org/model"}, "'architecture', and 'hf-hub:org/model' is not the name"),
        ("config.json", {"architecture": "local-dir:/tmp"}, "'architecture', and"),
        ("config.json", {"model_args": {"checkpoint_path": "x.pth"}}, "'model_args.checkpoint_path', which makes timm"),
        ("config.json", {"model_args": {"a": [{"pretrained_cfg": "b"}]}}, "'model_args.a.0.pretrained_cfg', which"),
        ("config.json", {"model_args": {"features": "/etc/passwd"}}, "'model_args.features', which makes timm"),
        ("config.json", {"vision_config": {"dtype": "hub"}}, "'vision_config.dtype', and 'hub' is none of"),
        ("config.json", {"vision_config": {"architecture": "local-dir:/tmp"}}, "'vision_config.architecture', and"),
        ("config.json", {"vision_config": {"model_args": {"checkpoint_path": "x"}}}, "'vision_config.model_args.c"),
        ("tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"}, "'PreTrainedTokenizerFast' opens any"),
        ("tokenizer_config.json", {"tokenizer_class": ["GPT2Tokenizer"]}, "'tokenizer_class', and"),
        ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}, "'init_inputs', which names a file"),
        ("tokenizer_config.json", {"vocab": "/etc/passwd"}, "'vocab', which names a file"),
        ("tokenizer_config.json", {"merges_file": "merges.txt"}, "'merges_file', which names a file"),
        ("special_tokens_map.json", {"tokenizer_file": "/etc/passwd"}, "'tokenizer_file', which is not a special"),
        ("special_tokens_map.json", {"local_files_only": False}, "'local_files_only', which is not a special token"),
    ],
)
def test_a_name_that_is_looked_up_must_be_one_that_is_known(
    file: str, content: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsafeConfig) as refused:
        inspect_folder(write(tmp_path / "model", file, **content))
    assert f"{file} holds {words}" in refused.value.message or words in refused.value.message


def test_what_models_of_the_hub_say_and_nothing_comes_of_is_taken(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "model", _name_or_path="org/model", _attn_implementation_autoset=True, torch_dtype="bfloat16",
        transformers_version="4.40.0", tokenizer_class="LlamaTokenizerFast", use_timm_backbone=False,
        task_specific_params={"text-generation": {"do_sample": True}}, label2id={"backbone": 0, "auto_map": 1},
        rope_scaling={"rope_type": "linear", "factor": {"__float__": "Infinity"}},
        **{"transformers.js_config": {"dtype": "q4", "kv_cache_dtype": {"q4f16": "float16"}}},
    )  # fmt: skip
    beside: dict[str, dict[str, Any]] = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "name_or_path": "org/other", "init_inputs": [],
            "special_tokens_map_file": "/home/someone/special_tokens_map.json", "processor_class": "SomeProcessor",
            "tokenizer_file": "/home/someone/tokenizer.json", "vocab_file": None, "use_default_system_prompt": False,
            "chat_template": [{"name": "default", "template": "{% generation %}{{ x }}{% endgeneration %}"}],
            "added_tokens_decoder": {"0": {"content": "<s>", "special": True}},
        },
        "special_tokens_map.json": {"bos_token": {"content": "<s>"}, "additional_special_tokens": ["a"]},
        "generation_config.json": {"_from_model_config": True, "cache_implementation": "hybrid", "eos_token_id": [1]},
        "preprocessor_config.json": {"image_processor_type": "ViTImageProcessor", "_valid_processor_keys": ["images"]},
        "chat_template.json": {"chat_template": "{% for m in messages %}{% break %}{% endfor %}"},
    }  # fmt: skip
    for name, content in beside.items():
        (folder / name).write_text(json.dumps(content))
    (folder / "README.md").write_text("---\nauto_map: x\n---\n")
    assert inspect_folder(folder).layers == 2


def test_files_by_which_another_loader_would_be_taken_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeConfig, match=r"adapter_config\.json.*merge_and_unload"):
        inspect_folder(write(tmp_path / "adapter", "adapter_config.json", peft_type="LORA"))
    sharded = write(tmp_path / "sharded")
    (sharded / "shard-00001-model-00001-of-00002.safetensors").touch()
    with pytest.raises(UnsafeConfig, match=r"shard-00001-model-00001-of-00002.*save_pretrained"):
        inspect_folder(sharded)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1, "a": 2}', '{"a":' * 100_000, "\x00", "\ud800"])
def test_a_file_that_is_no_object_is_named(file: str, content: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "model")
    (folder / file).write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UnusableModel, match=f"^{file} is not"):
        inspect_folder(folder)


def test_a_file_larger_than_any_models_is_not_read(tmp_path: Path) -> None:
    for name, most in (("tokenizer_config.json", 16 * 2**20), ("tokenizer.json", 128 * 2**20)):
        folder = write(tmp_path / name)
        with (folder / name).open("wb") as file:
            file.truncate(most + 1)
        with pytest.raises(UnusableModel, match=f"{name} is larger than {most} bytes"):
            inspect_folder(folder)


@pytest.mark.parametrize(
    "template",
    [
        *("{% for x in y %}", "{{ x", "{% import_module 'os' %}"),
        *("{{ " + "(" * 20_000 + " }}", "{{ " + "9" * 5000 + " }}", "x" * (MOST_CHARACTERS + 1)),
    ],
    ids=["unended", "unclosed", "unknown tag", "deep", "long number", "long"],
)  # fmt: skip
def test_a_chat_template_that_does_not_parse_or_is_too_long_is_refused_wherever_it_stands(
    template: str, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    folders = {
        "tokenizer_config.json": write(said, "tokenizer_config.json", chat_template={"tool_use": template}),
        "chat_template.json": write(tmp_path / "json", "chat_template.json", chat_template=template),
        "chat_template.jinja": write(tmp_path / "file"),
        "additional_chat_templates/rag.jinja": write(tmp_path / "more"),
    }
    (tmp_path / "more/additional_chat_templates").mkdir()
    (tmp_path / "file/chat_template.jinja").write_text(template)
    (tmp_path / "more/additional_chat_templates/rag.jinja").write_text(template)
    for file, folder in folders.items():
        with pytest.raises(UnusableModel, match=f"^{file} holds a chat template"):
            inspect_folder(folder)


def test_chat_templates_are_bounded_together(tmp_path: Path) -> None:
    half = "x" * (MOST_CHARACTERS // 2)
    inspect_folder(write(tmp_path / "two", "tokenizer_config.json", chat_template=[half, half]))
    with pytest.raises(UnusableModel, match="holds 3 chat templates of"):
        inspect_folder(write(tmp_path / "three", "tokenizer_config.json", chat_template=[half, half, "x"]))
    many = ["{{ x }}"] * (MOST_TEMPLATES + 1)
    with pytest.raises(UnusableModel, match=f"{len(many)} chat templates; at most {MOST_TEMPLATES}"):
        inspect_folder(write(tmp_path / "many", "tokenizer_config.json", chat_template=many))


def test_a_chat_template_is_parsed_and_nothing_of_it_computed(tmp_path: Path) -> None:
    endless = "{% for a in range(10**9) %}{{ 9 ** 9 ** 9 }}{{ ''.__class__.__mro__ }}{% endfor %}{% include '/x' %}"
    inspect_folder(write(tmp_path / "endless", "tokenizer_config.json", chat_template=endless))
