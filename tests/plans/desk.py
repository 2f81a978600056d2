"""A team for which plans are made, of models of which there are headers alone: a plan reads no weights."""

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import new_id, transaction
from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.describe import describe_language_model
from core.engine.architectures.description import ClassifierDescription, Description, ModelDescription
from core.engine.architectures.structure import LinearShape
from core.engine.checkpoints.safetensors_header import TensorEntry
from core.service.jobs.queue import claim, finish_succeeded
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.plans.service import plan
from core.service.registry.tables import DatasetRow, ModelRow
from core.settings import Settings
from core.storage import Store, StoredFile
from secateur_wire.errors import SecateurError
from secateur_wire.models import ImageShape
from secateur_wire.plans import Goal, Plan, PlanBody


def llama(
    *, layers: int = 30, hidden: int = 576, intermediate: int = 1536, heads: int = 9, groups: int = 3,
    words: int = 49152,
) -> ModelDescription:  # fmt: skip
    """Return the description of a Llama in bfloat16 with tied embeddings, unsaid the shapes of SmolLM2-135M."""
    width = hidden // heads * groups
    inner: dict[str, tuple[int, ...]] = {
        **{f"self_attn.{name}_proj": (hidden, hidden) for name in "qo"},
        **{f"self_attn.{name}_proj": (width, hidden) for name in "kv"},
        **{f"mlp.{name}_proj": (intermediate, hidden) for name in ("gate", "up")},
        "mlp.down_proj": (hidden, intermediate), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": (words, hidden), "model.norm.weight": (hidden,)} | {
        f"model.layers.{layer}.{name}.weight": shape for layer in range(layers) for name, shape in inner.items()
    }
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": groups, "vocab_size": words, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }  # fmt: skip
    entries, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * prod(shape)
        entries[name] = TensorEntry(name, "BF16", shape, Path("model.safetensors"), end, end + size)
        end += size
    return describe_language_model(config, entries, LANGUAGE_ARCHITECTURES["LlamaForCausalLM"])


def add_model(session: Session, team_id: str, name: str, description: Description) -> None:
    facts: dict[str, Any] = {"path": f"/nowhere/{name}", "source": "test", "revision": f"sha256:{name}"}
    described = description.model_dump(mode="json")
    session.add(ModelRow(id=new_id("model"), team_id=team_id, name=name, description=described, **facts))


def add_set(session: Session, team_id: str, name: str, *, characters: int = 4_000_000, **images: int) -> None:
    """Add a text, or with `images` and `classes` an image set."""
    facts: dict[str, Any] = {"path": f"/nowhere/{name}", "source": "test", "sha256": "0" * 64, "bytes": characters}
    text = {"format": "jsonl", "text_field": "text", "documents": 100, "characters": characters}
    pictures = {
        "format": "image_folder", "text_field": "text", "image_field": "image", "label_field": "label", "documents": 0,
        "characters": 0,
    }  # fmt: skip
    kind = pictures if images else text
    session.add(DatasetRow(id=new_id("dataset"), team_id=team_id, name=name, **facts, **kind, **images))


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
        family="ResNet", architecture="ResNetForImageClassification", parameters=prunable + 200,
        prunable_parameters=prunable, bytes=4 * (prunable + 200), dtype="float32", layers=3, linears=linears,
        classes=classes, labels=[str(number) for number in range(classes)],
        image=ImageShape(channels=3, height=32, width=32),
    )  # fmt: skip


MODELS: dict[str, Description] = {
    "smol": llama(),
    "wide": llama().model_copy(update={"dtype": "float32", "bytes": 2 * llama().bytes}),
    "large": llama(layers=32, hidden=4096, intermediate=11008, heads=32, groups=8, words=32000),
    "odd": llama(layers=3, hidden=66, intermediate=198, heads=3, groups=3, words=100),
    "narrow": llama(layers=1, hidden=16, intermediate=8, heads=2, groups=2, words=64),
    "channels": refusing(channels="they are shared"),
    "layers": refusing(channels="they are shared", layers="their numbers count"),
    "weights": refusing(weights="they are shared", channels="they are shared", layers="their numbers count"),
    "gradients": refusing(resume="a state goes from block to block"),
    "images": convolutions(),
    "other-images": convolutions(classes=7),
}

BODY = {
    "model": "smol",
    "method": "frontier",
    "sparsity": 0.4,
    "calibration": {"dataset": "my-calibration", "samples": 32, "sequence_length": 512},
    "evaluation": {"datasets": ["my-articles"], "samples": 64},
}
METRICS = {
    "perplexity": {"my-articles": {"dense": 20.0, "pruned": 23.0, "ratio": 1.15}},
    "sparsity": {"prunable": 0.4, "model": 0.316},
    "parameters": {"dense": 134_515_008, "nonzero": 92_047_680},
}


class Desk:
    """A team with header-only models, for which plans are made."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings, store: Store, team: str) -> None:
        self.sessions, self.settings, self.store, self.team = sessions, settings, store, team
        with transaction(sessions) as session:
            for name, description in MODELS.items():
                add_model(session, team, name, description)

    def register(self, *texts: str, **images: int) -> None:
        with transaction(self.sessions) as session:
            for name in texts:
                add_set(session, self.team, name)
            if images:
                add_set(session, self.team, "photos-train", **images)

    def context(self, session: Session) -> RequestContext:
        return RequestContext(session, self.team, self.store, self.settings)

    def plan(self, model: str, goal: Goal, **asked: Any) -> Plan:
        body = PlanBody(model=model, goal=goal, **asked)
        with transaction(self.sessions) as session:
            return plan(self.context(session), body)

    def refusal(self, model: str, goal: Goal, **asked: Any) -> SecateurError:
        with pytest.raises(SecateurError) as raised:
            self.plan(model, goal, **asked)
        return raised.value

    def ended_job(self, body: Mapping[str, Any], metrics: Mapping[str, Any], model: str = "smol") -> str:
        """Id of a job that ended with these figures."""
        with transaction(self.sessions) as session:
            job = submit(self.context(session), JobBody.model_validate(body)).id
            claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            described = MODELS[model].model_dump(mode="json", exclude={"linears", "structure"})
            report = {"model": described, "artifact": MODELS[model].model_dump(mode="json"), "layers": []}
            files = [StoredFile("secateur.json", 2, "0" * 64)]
            assert finish_succeeded(session, job, 1, metrics=metrics, report=report, files=files)
        return job
