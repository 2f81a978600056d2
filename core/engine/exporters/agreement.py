"""Agreement of exported files with the artifact: an engine must give the token ids and predictions of transformers."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from core.engine.datasets.token_windows import evaluation_windows
from core.engine.exporters.engine import RunningEngine
from core.engine.exporters.exporter_info import PARAM
from core.engine.exporters.probe_lines import varied_lines
from core.engine.exporters.sizes import PREDICTIONS, WINDOW
from core.engine.models.folder import ModelFolder
from core.engine.models.streamed import StreamedModel, call_block
from secateur_wire.errors import ExportFailed, ExportMismatch, TooLittleText

_MOST_LINES: Final = 10_000
_CHARACTERS: Final = 400_000
"""Most characters of the job's texts for predictions."""
_ROWS: Final = 8
"""Predictions compared at a time: their float64 log-probabilities stay in a processor's cache."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a file with the artifact: mean KL divergence in nats, and share of tokens with equal top prediction.

    `perplexity` is the file's own, and `artifact_perplexity` the artifact's, on the same windows. `decoded_kl` is the
    mean over the predictions that were computed one by one, with the keys and values of those before; None: none was.
    """

    kl: float
    top_1: float
    perplexity: float
    artifact_perplexity: float
    predictions: int
    decoded_kl: float | None = None


class Reference:
    """Predictions of the artifact in transformers, in float32, with the weights of one block in memory at a time."""

    @torch.inference_mode()
    def __init__(self, folder: ModelFolder, windows_NT: Tensor, device: torch.device) -> None:
        self.windows_NT = windows_NT
        self._model = StreamedModel(folder, dtype=torch.float32, device=device)
        hidden_NTD = self._model.embed(windows_NT)
        arguments = self._model.block_arguments(windows_NT)
        walk = self._model.filled_blocks(range(len(self._model)), "predicting by blocks", torch.float32)
        for index, block in walk:
            hidden_NTD = torch.cat([call_block(block, each, arguments[index]) for each in hidden_NTD.split(1)])
        self._hidden_NTD = hidden_NTD

    @torch.inference_mode()
    def logits(self, window: int) -> Tensor:
        """Return the logits after each token of a window, [time, vocabulary]."""
        tokens_1T, hidden_1TD = self.windows_NT[window : window + 1], self._hidden_NTD[window : window + 1]
        logits_TV: Tensor = self._model.logits(tokens_1T, hidden_1TD, torch.arange(tokens_1T.shape[1]))[0]
        return logits_TV.cpu()


def compared_windows(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase, context: int) -> Tensor:
    """Return windows of token ids [windows, time] for `PREDICTIONS` predictions, or as many as the documents allow."""
    length = min(WINDOW, context)
    count = -(-PREDICTIONS // length)
    read, characters = [], 0
    for document in documents:
        read.append(document[: _CHARACTERS - characters])
        characters += len(read[-1])
        if characters >= _CHARACTERS:
            break
    sources: tuple[Callable[[], list[str]], ...] = (lambda: read, lambda: varied_lines(_MOST_LINES))
    for make in sources:
        with suppress(TooLittleText):
            return evaluation_windows(make(), tokenizer, samples=count, length=length, name="compared")
    raise ExportFailed(
        f"the artifact's tokenizer gives fewer than {PREDICTIONS} tokens for {_MOST_LINES} lines", param=PARAM
    )


def require_token_ids(
    engine: RunningEngine, tokenizer: PreTrainedTokenizerBase, lines: Sequence[str], file: str
) -> None:
    """Require that an engine tokenizes lines as the tokenizer does; raises ExportMismatch naming one."""
    ours: Sequence[list[int]] = tokenizer(list(lines))["input_ids"]
    for line, own, theirs in zip(lines, ours, engine.token_ids(lines), strict=True):
        if own != theirs:
            same = next(place for place, (one, other) in enumerate(zip_longest(own, theirs)) if one != other)
            raise ExportMismatch(
                f"{file}: {engine.name} reads {line[:100]!r}, from token {same} on, as {theirs[same : same + 8]}, the "
                f"artifact's tokenizer as {own[same : same + 8]}",
                param=PARAM,
            )


def compare(engine: RunningEngine, reference: Reference, windows: int | None = None, *, decoded: int = 0) -> Agreement:
    """Compare the predictions of the open file with the artifact's, in float64, a few predictions at a time.

    The first `windows` are compared; None for all. The last `decoded` tokens of a window are computed one by one.
    """
    divergence = decoded_divergence = same = loss = artifact_loss = 0.0
    predictions, targets, decoded_predictions = 0, 0, 0
    for number, window_T in enumerate(reference.windows_NT[:windows]):
        steps = min(decoded, len(window_T) - 1)
        expected_TV = reference.logits(number)
        theirs_TV = torch.from_numpy(engine.logits(window_T.tolist(), steps).copy())
        for start in range(0, len(window_T), _ROWS):
            rows = slice(start, start + _ROWS)
            expected_RV, theirs_RV = (each[rows].double().log_softmax(-1) for each in (expected_TV, theirs_TV))
            divergence_R = (expected_RV.exp() * (expected_RV - theirs_RV)).sum(-1)
            divergence += float(divergence_R.sum())
            decoded_divergence += float(divergence_R[max(len(window_T) - steps - start, 0) :].sum())
            same += float((expected_RV.argmax(-1) == theirs_RV.argmax(-1)).sum())
            next_R = window_T[1:][rows]
            loss -= float(theirs_RV[: len(next_R)].gather(1, next_R[:, None]).sum())
            artifact_loss -= float(expected_RV[: len(next_R)].gather(1, next_R[:, None]).sum())
        predictions += len(window_T)
        decoded_predictions += steps
        targets += len(window_T) - 1
    perplexity, artifact_perplexity = (
        torch.tensor([loss, artifact_loss], dtype=torch.float64).div(targets).exp().tolist()
    )
    return Agreement(
        divergence / predictions,
        same / predictions,
        perplexity,
        artifact_perplexity,
        predictions,
        decoded_divergence / decoded_predictions if decoded_predictions else None,
    )


def require_bound(agreement: Agreement, most_kl: float | None, file: str, engine: str, instead: str) -> None:
    """Require that a file keeps a bound, where it is decoded too; raises ExportMismatch with both figures and a remedy.

    None: there is no bound.
    """
    divergences = (("", agreement.kl), (" of decoded tokens", agreement.decoded_kl))
    for which, kl in divergences:
        if most_kl is not None and kl is not None and not kl <= most_kl:
            raise ExportMismatch(
                f"{file} does not predict in {engine} what the artifact does in transformers: their mean KL divergence"
                f"{which} is {kl:.3g} nats over {agreement.predictions} predictions, at most {most_kl:g} is allowed: "
                f"{instead}",
                param=PARAM,
            )
