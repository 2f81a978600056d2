"""Recovery of SmolLM2-135M, cut to 2:4, on text that neither pruned nor trained it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from core.engine.datasets.text_files import read_documents
from core.engine.datasets.token_windows import training_windows
from core.engine.models.folder import ModelFolder, open_model
from core.engine.pruning.streams.measure import measure
from core.engine.recovery.language import Recovered
from core.engine.recovery.request import Recovery
from tests.engine.recovering import save, train
from tests.engine.sweeping import save as save_swept
from tests.engine.sweeping import sweep
from worker.samples.language import CALIBRATION

pytestmark = pytest.mark.nightly
STEPS, BATCH, LENGTH = 10, 4, 64


def test_adapters_win_back_perplexity_and_lose_no_zero(
    smollm2: ModelFolder, samples: Path, calibration: Tensor, evaluation: Tensor, tmp_path: Path
) -> None:
    evaluation = evaluation[:2]
    swept = sweep(
        smollm2.path, tmp_path / "prune", calibration=calibration[:4], evaluations={"text": evaluation},
        method="wanda", pattern="2:4",
    )  # fmt: skip
    pruned = save_swept(swept, smollm2.path, tmp_path / "pruned")
    windows = training_windows(
        read_documents(samples / "datasets" / f"{CALIBRATION}.jsonl", "jsonl"), smollm2.tokenizer(), samples=None,
        most=STEPS * BATCH, length=LENGTH, seed=0, name=CALIBRATION,
    )  # fmt: skip
    asked = Recovery(method="lora", steps=STEPS, batch_size=BATCH, learning_rate=1e-3)
    recovered = train(pruned, tmp_path / "recover", asked, windows)
    after = perplexity(recovered, pruned, tmp_path, evaluation)
    before = swept.perplexity["text"]
    print(f"perplexity: dense {before.dense:.2f}, pruned {before.pruned:.2f}, recovered {after:.2f}, "
          f"{recovered.seconds:.0f} s, loss {recovered.losses[0]:.2f} to {recovered.losses[-1]:.2f}")  # fmt: skip
    assert before.dense < after < 0.75 * before.pruned
    for row in swept.layers:
        assert recovered.zeros[row.name] == (row.zeros, row.zeros) and row.sparsity >= 0.5


def perplexity(recovered: Recovered, pruned: Path, folder: Path, evaluation: Tensor) -> float:
    saved = open_model(save(recovered, pruned, folder / "recovered"))
    work = folder / "measure"
    measured = measure(
        saved, {"text": evaluation}, work=work, device=torch.device("cpu"), activation_budget_bytes=2**30
    )
    return measured.perplexity["text"]
