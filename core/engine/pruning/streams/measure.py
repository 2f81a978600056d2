"""Measurements on streams, in passes and after training: perplexity and verification logits.

Perplexity comes from streamed hidden states; the logits are the saved model's expected ones for a few tokens.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from core.engine.architectures.description import ModelDescription
from core.engine.datasets.window_losses import WindowSpans
from core.engine.evaluation.perplexity import measure_perplexity
from core.engine.models.folder import ModelFolder
from core.engine.models.micro_batches import AtOnce
from core.engine.models.precision import fast_arithmetic
from core.engine.models.streamed import StreamedModel
from core.engine.models.tensors import DTYPES, write_tensors
from core.engine.pruning.plan import MICRO_BATCH_TOKENS
from core.engine.pruning.streams.hidden_states import ActivationBudget
from core.engine.pruning.streams.stream import Stream
from core.engine.resume.store import ResumeStore

VERIFICATION_TOKENS = 64


@dataclass(frozen=True)
class Measured:
    """Perplexity by evaluation set, and the mean losses of its windows in nats.

    `verification` has a few tokens and their logits.
    """

    perplexity: dict[str, float]
    window_losses: dict[str, tuple[float, ...]]
    verification: Path


@torch.inference_mode()
def measure(
    folder: ModelFolder,
    evaluations: dict[str, Tensor],
    *,
    work: Path,
    device: torch.device,
    dtype: torch.dtype | None = None,
    micro_batch: int | None = None,
    activation_budget_bytes: int,
    spans: Mapping[str, WindowSpans | None] | None = None,
) -> Measured:
    """Measure perplexity and verification logits on token ids [sequences, time], block by block, as a pass does.

    `dtype` (of the forwards; by default the folder's own) and `micro_batch` must equal those of the pass with which the
    result is compared. `work` is a folder for activations beyond the budget. `spans` are the predicted tokens of
    evaluations that do not predict every token.
    """
    work.mkdir(parents=True, exist_ok=True)
    dtype = dtype or DTYPES[folder.description.dtype]
    planned = {
        name: min(len(each), micro_batch or max(1, MICRO_BATCH_TOKENS // each.shape[1]))
        for name, each in evaluations.items()
    }

    def run(at_once: int) -> Measured:
        streamed = StreamedModel(folder, dtype=dtype, device=device)
        store, budget = ResumeStore(work, ""), ActivationBudget(activation_budget_bytes)

        def stream(name: str, tokens_NT: Tensor, batch: int = 1) -> Stream:
            size = min(at_once, batch)
            return Stream(name, tokens_NT, streamed, store, budget, dtype=dtype, micro_batch=size, resumable=False)

        texts = {
            name: stream(f"evaluation-{number}", each, planned[name])
            for number, (name, each) in enumerate(evaluations.items())
        }
        probe = stream("verification", verification_tokens(folder.description))
        streams = [*texts.values(), probe]
        for each in streams:
            each.start()
        for index, block in streamed.filled_blocks(range(len(streamed)), "measuring perplexity by blocks", dtype):
            for each in streams:
                each.advance(block, index)
        verification = work / "verification.safetensors"
        write_verification(streamed, probe, verification)
        measured = {
            name: measure_perplexity(streamed, pairs(each), spans=(spans or {}).get(name))
            for name, each in texts.items()
        }
        return Measured(
            {name: each.value for name, each in measured.items()},
            {name: each.window_losses for name, each in measured.items()},
            verification,
        )

    with fast_arithmetic(device):
        return AtOnce(max(planned.values(), default=1)).run(run)


def verification_tokens(description: ModelDescription) -> Tensor:
    """Return random token ids [1, time], the same for every model with this vocabulary and context."""
    length = min(VERIFICATION_TOKENS, description.context_length)
    return torch.randint(description.vocabulary_size, (1, length), generator=torch.Generator().manual_seed(0))


def write_verification(streamed: StreamedModel, probe: Stream, file: Path) -> None:
    """Write the verification tokens and their logits, once the stream has passed all blocks."""
    (tokens_1T,), hidden_1TD = probe.tokens, probe.hidden(0)
    logits = streamed.logits(tokens_1T, hidden_1TD, torch.arange(tokens_1T.shape[1]))
    write_tensors(file, {"tokens": tokens_1T, "logits": logits.float()})


def pairs(stream: Stream) -> Iterator[tuple[Tensor, Tensor]]:
    """Return tokens [batch, time] and hidden states [batch, time, hidden_size] of each micro-batch."""
    return ((stream.tokens[index], hidden) for index, hidden in stream.batches())
