"""Whatever a config says, models are built with this project's choice of attention and experts."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from core.engine.checkpoints.code_choices import TOKENIZER_CLASSES
from core.engine.models.folder import ModelFolder, open_model
from core.engine.models.loading import build_model, load_model
from core.engine.models.streamed import StreamedModel
from core.pipeline.stages.search.run import random_model
from tests.engine.tiny import make_model

CPU = torch.device("cpu")
KERNEL = "kernels-community/flash-attn"


def tampered(folder: ModelFolder) -> ModelFolder:
    """The opened folder as if its config had come past every check."""
    folder.config._attn_implementation = KERNEL
    folder.config._experts_implementation = KERNEL
    return dataclasses.replace(folder, config=folder.config)


@pytest.mark.parametrize(("name", "attention"), [("llama", "sdpa"), ("gpt2", "sdpa"), ("gemma2", "eager")])
def test_a_models_attention_is_this_projects_choice(name: str, attention: str, tmp_path: Path) -> None:
    path = make_model(tmp_path / "model", name)
    opened = open_model(path)
    for model in (
        load_model(tampered(open_model(path)), CPU),
        build_model(tampered(open_model(path)), torch.float32),
        StreamedModel(tampered(open_model(path)), dtype=torch.float32, device=CPU).model,
        random_model(opened, tampered(opened).config, torch.float32, CPU),
    ):
        assert (model.config._attn_implementation, model.config._experts_implementation) == (attention, "eager")


@pytest.mark.parametrize("name", sorted(TOKENIZER_CLASSES))
def test_a_tokenizer_class_that_is_taken_reads_data(name: str) -> None:
    kind = tokenizer_class_from_name(name)
    assert kind is None or issubclass(
        kind,
        (transformers.TokenizersBackend, transformers.PythonBackend, transformers.SentencePieceBackend),
    )
