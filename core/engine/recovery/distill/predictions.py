"""A teacher's predictions, computed whenever they are needed, or once for each sequence and kept."""

import hashlib

import torch
from torch import Tensor, nn

from core.engine.recovery.distill.divergence import TopWords, row_slices, softened
from core.engine.recovery.distill.info import INFO, TOP_WORDS, USES_TO_KEEP


def are_kept(sequences: int, length: int, uses: int) -> bool:
    """Return whether predictions are kept: each used often enough, on average, and all of them within the bound."""
    is_repeated = uses >= USES_TO_KEEP * sequences
    return is_repeated and sequences * length * INFO.token_bytes <= INFO.most_kept_bytes


class Predictions:
    """Predictions of a teacher at a temperature, for sequences of tokens [batch, time]."""

    def __init__(self, teacher: nn.Module, temperature: float, *, keeps: bool) -> None:
        self._teacher = teacher
        self._temperature = temperature
        self._kept: dict[bytes, TopWords] | None = {} if keeps else None

    @torch.no_grad()
    def of(self, tokens_BT: Tensor) -> Tensor | TopWords:
        """Return the logits [batch · time, vocabulary], or what is kept of them.

        What is kept is computed one sequence at a time. It does not depend on the others of a batch then, so that a
        resumed run, which computes it again, has the same to the last bit, and needs no copy of it on disk.
        """
        if self._kept is None:
            return self._logits(tokens_BT)
        parts = []
        for sequence_T in tokens_BT:
            key = hashlib.blake2b(sequence_T.cpu().numpy().tobytes(), digest_size=16).digest()
            if key not in self._kept:
                self._kept[key] = self._top_words(sequence_T[None])
            parts.append(self._kept[key])
        return TopWords.joined(parts)

    def _logits(self, tokens_BT: Tensor) -> Tensor:
        logits_BTV: Tensor = self._teacher(input_ids=tokens_BT, use_cache=False).logits
        return logits_BTV.flatten(0, 1)

    def _top_words(self, tokens_1T: Tensor) -> TopWords:
        logits_TV = self._logits(tokens_1T)
        return TopWords.joined(
            [
                TopWords.of(softened(logits_TV[start:end], self._temperature), TOP_WORDS)
                for start, end in row_slices(logits_TV)
            ]
        )
