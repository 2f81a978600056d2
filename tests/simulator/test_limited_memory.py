"""A process whose memory has a real limit: what runs out goes on with less at a time, to the same result."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from core.engine.models.memory_limit import memory_left, memory_limited
from core.engine.recovery.request import Recovery
from core.progress import Progress
from tests.engine.apart import Apart
from tests.engine.recovering import make_pruned, train
from tests.engine.tiny import make_model, make_tokens
from tests.simulator.jobs import prune_language

_MB = 2**20


class _Log(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)


def _prune(folder: Path) -> None:
    torch.set_num_threads(1)
    source, tokens = make_model(folder / "model", intermediate_size=512, num_hidden_layers=2), make_tokens(256, 64)
    results = []
    for name, room in (("whole", 2**40), ("limited", 64 * _MB)):
        with memory_limited(room):
            results.append(
                prune_language(
                    source, folder / name, torch.device("cpu"), "wanda", calibration=tokens, budget=0,
                    propagation="two_pass", micro_batch=256,
                )
            )  # fmt: skip
    whole, limited = results
    assert not whole["micro_batches"] and limited["micro_batches"][-1]["calibration"] < 256
    figures = [(each["perplexity"]["text"].dense, each["perplexity"]["text"].pruned) for each in results]
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)


def _train(folder: Path) -> None:
    torch.set_num_threads(1)
    source = make_pruned(folder / "model", intermediate_size=4096, num_hidden_layers=2)
    recovery = Recovery(
        method="finetune", steps=2, batch_size=32, learning_rate=3e-3, checkpoint_every=100, sequence_length=64
    )
    whole = train(source, folder / "whole", recovery, make_tokens(64, 64))
    log = _Log()
    with memory_limited(64 * _MB):
        limited = train(source, folder / "limited", recovery, make_tokens(64, 64), progress=log)
    assert any("at most 16 go through the model together" in line for line in log.lines)
    assert limited.losses == pytest.approx(whole.losses, rel=1e-5)


@pytest.mark.parametrize("work", [_prune, _train])
def test_what_runs_out_of_memory_comes_to_the_same_with_less_at_a_time(
    work: Callable[[Path], None], tmp_path: Path
) -> None:
    Apart(work, tmp_path).wait()


def _allocate() -> None:
    with memory_limited(64 * _MB):
        assert 32 * _MB < memory_left() <= 64 * _MB
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.zeros(32 * _MB)
    torch.zeros(32 * _MB)


def test_what_is_free_is_what_the_limit_leaves() -> None:
    Apart(_allocate).wait()
