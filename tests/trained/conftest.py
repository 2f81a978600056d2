"""The sample model and text, fetched once by pinned hash into a home that later runs reuse."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import calibration_windows, evaluation_windows
from core.engine.models.folder import ModelFolder, open_model
from tests.conftest import CORES
from worker.samples.language import CALIBRATION, EVALUATION, MODEL


@pytest.fixture(autouse=True)
def threads() -> None:
    torch.set_num_threads(CORES)


@pytest.fixture(scope="session")
def smollm2(samples: Path) -> ModelFolder:
    return open_model(samples / "models" / MODEL)


@pytest.fixture(scope="session")
def calibration(samples: Path, smollm2: ModelFolder) -> Tensor:
    """Windows of millions of characters, which take seconds to tokenize."""
    text = samples / "datasets" / f"{CALIBRATION}.jsonl"
    return calibration_windows(
        read_documents(text, "jsonl"), smollm2.tokenizer(), samples=8, length=256, seed=0, name=CALIBRATION
    )


@pytest.fixture(scope="session")
def little_calibration(samples: Path, smollm2: ModelFolder) -> Tensor:
    """Two short windows, of the first documents."""
    text = samples / "datasets" / f"{CALIBRATION}.jsonl"
    return calibration_windows(
        islice(read_documents(text, "jsonl"), 10), smollm2.tokenizer(), samples=2, length=128, seed=0, name=CALIBRATION
    )


@pytest.fixture(scope="session")
def evaluation(samples: Path, smollm2: ModelFolder) -> Tensor:
    """Windows of the whole text, which takes seconds to tokenize."""
    text = samples / "datasets" / f"{EVALUATION}.jsonl"
    return evaluation_windows(
        read_documents(text, "jsonl"), smollm2.tokenizer(), samples=8, length=256, name=EVALUATION
    )


@pytest.fixture(scope="session")
def little_text(samples: Path, smollm2: ModelFolder) -> Tensor:
    """Two short windows, of the first articles: enough to tell apart what is far apart."""
    text = samples / "datasets" / f"{EVALUATION}.jsonl"
    return evaluation_windows(
        islice(read_documents(text, "jsonl"), 2), smollm2.tokenizer(), samples=2, length=128, name=EVALUATION
    )
