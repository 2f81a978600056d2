"""A tiny model and a text it can read."""

from pathlib import Path
from typing import Any

import numpy
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.service import read_dataset, read_model, register_dataset, register_model
from core.settings import Settings
from tests.sources.conftest import write_wordy_model

LAYERS = 6


def write_model(folder: Path, layers: int = LAYERS) -> Path:
    """A Llama whose words are w0 to w95, with its tokenizer."""
    return write_wordy_model(folder, num_hidden_layers=layers)


def write_words(text: Path) -> Path:
    """Write forty passages of fifty of its words."""
    generator = numpy.random.default_rng(0)
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text("\n\n".join(" ".join(f"w{n}" for n in generator.integers(4, 96, 50)) for _ in range(40)))
    return text


def add_model(sessions: sessionmaker[Session], settings: Settings, team: str, name: str, folder: Path) -> None:
    with transaction(sessions) as session:
        register_model(session, team, read_model(ModelBody(name=name, path=str(folder.resolve())), settings))


def add_text(
    sessions: sessionmaker[Session], settings: Settings, team: str, name: str, file: Path, kind: str = "text"
) -> None:
    """Register a text, or what is in another format."""
    body = DatasetBody.model_validate({"name": name, "path": str(file.resolve()), "format": kind})
    with transaction(sessions) as session:
        register_dataset(session, team, read_dataset(body, settings))


def register_layers(
    sessions: sessionmaker[Session], settings: Settings, team: str, *, layers: int = LAYERS, samples: int = 8
) -> dict[str, Any]:
    """A job on a model of some layers, with text it can read."""
    folder = write_model(settings.models_root / "layered", layers)
    text = write_words(settings.datasets_root / "words.txt")
    add_model(sessions, settings, team, "layered", folder)
    add_text(sessions, settings, team, "words", text)
    return {
        "model": "layered", "method": "sparsegpt", "sparsity": 0.5,
        "calibration": {"dataset": "words", "samples": samples, "sequence_length": 32},
        "evaluation": {"datasets": ["words"], "samples": 8, "sequence_length": 32},
    }  # fmt: skip
