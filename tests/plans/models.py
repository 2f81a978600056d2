"""Models of which there are headers alone: a plan reads no weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.database import new_id
from core.engine.architectures.classifier_architecture import ClassifierDescription
from core.engine.architectures.describe import Description
from core.engine.architectures.description import ModelDescription, describe_language_model
from core.engine.architectures.layer_shape import LinearShape
from core.engine.architectures.registry import LANGUAGE_ARCHITECTURES
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.service.registry.tables import DatasetRow, ModelRow
from secateur_wire.models import ImageShape


def llama(
    *,
    layers: int = 30,
    hidden: int = 576,
    intermediate: int = 1536,
    heads: int = 9,
    groups: int = 3,
    words: int = 49152,
) -> ModelDescription:
    """Return the description of a Llama in bfloat16 with tied embeddings, unsaid the shapes of SmolLM2-135M."""
    width = hidden // heads * groups
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (words, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        block = f"model.layers.{layer}"
        for name, rows in (("q_proj", hidden), ("k_proj", width), ("v_proj", width), ("o_proj", hidden)):
            shapes[f"{block}.self_attn.{name}.weight"] = (rows, hidden)
        for name in ("gate_proj", "up_proj"):
            shapes[f"{block}.mlp.{name}.weight"] = (intermediate, hidden)
        shapes[f"{block}.mlp.down_proj.weight"] = (hidden, intermediate)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{block}.{name}.weight"] = (hidden,)
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": words,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    return describe_language_model(config, entries(shapes), LANGUAGE_ARCHITECTURES["LlamaForCausalLM"])


def entries(shapes: dict[str, tuple[int, ...]], dtype: str = "BF16", weight_bytes: int = 2) -> dict[str, TensorEntry]:
    """Return headers of tensors of these shapes, one behind the other."""
    found, end = {}, 0
    for name, shape in shapes.items():
        size = weight_bytes
        for each in shape:
            size *= each
        found[name] = TensorEntry(name, dtype, shape, Path("model.safetensors"), end, end + size)
        end += size
    return found


def add_model(session: Session, team_id: str, name: str, description: Description, revision: str | None = None) -> None:
    session.add(
        ModelRow(
            id=new_id("model"),
            team_id=team_id,
            name=name,
            path=f"/nowhere/{name}",
            source="test",
            revision=revision or f"sha256:{name}",
            description=description.model_dump(mode="json"),
        )
    )


def add_set(
    session: Session, team_id: str, name: str, *, characters: int = 4_000_000, format: str = "jsonl", **images: int
) -> None:
    """Add a text, or with `images` and `classes` an image set."""
    session.add(
        DatasetRow(
            id=new_id("dataset"),
            team_id=team_id,
            name=name,
            path=f"/nowhere/{name}",
            format="image_folder" if images else format,
            text_field="text",
            image_field="image" if images else None,
            label_field="label" if images else None,
            source="test",
            documents=0 if images else 100,
            characters=0 if images else characters,
            bytes=characters,
            sha256="0" * 64,
            **images,
        )
    )


def refusing(**reasons: str) -> ModelDescription:
    """Return a small Llama that cannot be offered what is named, for these reasons."""
    small = llama(layers=4, hidden=64, intermediate=128, heads=4, groups=2, words=128)
    return small.model_copy(update={"discovered": replace(small.known_as, refused=reasons)})


def convolutions(classes: int = 10) -> ClassifierDescription:
    """Return the description of a classifier of two convolutions and a linear layer, in float32."""
    shapes = (("first", 16, 3, 9), ("second", 32, 16, 9), ("classifier", classes, 32, 1))
    linears = [
        LinearShape(name=name, layer=number, out_features=rows, in_features=inputs * kernel, kernel=kernel)
        for number, (name, rows, inputs, kernel) in enumerate(shapes)
    ]
    prunable = sum(each.numel for each in linears)
    return ClassifierDescription(
        family="ResNet",
        architecture="ResNetForImageClassification",
        parameters=prunable + 200,
        prunable_parameters=prunable,
        bytes=4 * (prunable + 200),
        dtype="float32",
        layers=3,
        linears=linears,
        classes=classes,
        labels=[str(number) for number in range(classes)],
        image=ImageShape(channels=3, height=32, width=32),
    )
