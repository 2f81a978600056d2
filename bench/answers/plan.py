"""Jobs of the bench of answers: what is removed, on which mixtures of text, and whether it is distilled then. Loads no
torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.service.jobs.resolution.dataset import SELF
from worker.samples.language import CALIBRATION, EVALUATION

WIKIPEDIA, AS_TODAY, QUARTER, HALF, CHATS = (
    "Wikipedia",
    "Wikipedia and a default job's own text",
    "¾ Wikipedia, ¼ chats",
    "½ Wikipedia, ½ chats",
    "chats",
)
_CHAT_SHARES: Final = {WIKIPEDIA: 0.0, QUARTER: 0.25, HALF: 0.5, CHATS: 1.0}
_BATCH: Final = 2
"""Sequences in a step of a distillation."""
MIXTURES: Final = (WIKIPEDIA, AS_TODAY, QUARTER, HALF, CHATS)
"""Texts to calibrate on; chats are those that the model has with itself in its own template."""


@dataclass(frozen=True)
class Removal:
    """Removal of weights by a method; `of_blocks` is the share of the blocks' parameters that goes."""

    title: str
    method: str
    pattern: str
    of_blocks: float
    parameters: dict[str, Any]


def _structured(share: float) -> Removal:
    parameters = {"budget": "quick", "drop_layers": 0}
    return Removal(f"frontier, structured {share:.0%}", "frontier", "structured", share, parameters)


REMOVALS: Final = {
    each.title: each
    for each in (
        _structured(0.2),
        _structured(0.3),
        Removal("wanda, 50 %", "wanda", "unstructured", 0.5, {}),
        Removal("wanda, 2:4", "wanda", "2:4", 0.5, {}),
    )
}
GOAL_REMOVAL: Final = next(iter(REMOVALS))
"""Removal that the goals are about."""


@dataclass(frozen=True)
class Case:
    """Job of the sample model: a removal, a mixture and a seed. `distilled`: it trains on the same mixture then."""

    removal: str
    mixture: str
    seed: int
    distilled: bool = False

    @property
    def text(self) -> str:
        """Return the mixture, and what was done with it."""
        return f"{self.mixture}, distilled" if self.distilled else self.mixture

    @property
    def title(self) -> str:
        return f"{self.removal}, {self.text}, seed {self.seed}"

    def body(self, blocks: float, samples: int, length: int, windows: int, steps: int) -> dict[str, Any]:
        """Return the body without the model; `blocks` is the blocks' share of the dense model's parameters.

        Calibration is on `samples` sequences of `length` tokens, bits per byte on as many `windows`; `steps` are those
        of a distillation.
        """
        removal = REMOVALS[self.removal]
        sparsity = removal.of_blocks * (blocks if removal.pattern == "structured" else 1)
        return {
            "method": removal.method,
            "pattern": removal.pattern,
            "sparsity": round(sparsity, 4),
            "parameters": dict(removal.parameters),
            "calibration": {"sequence_length": length, "seed": self.seed, **_text(self.mixture, samples)},
            "evaluation": {"datasets": [EVALUATION], "samples": windows, "sequence_length": length},
            **({"recovery": self._recovery(samples, length, steps)} if self.distilled else {}),
        }

    def _recovery(self, samples: int, length: int, steps: int) -> dict[str, Any]:
        """Return the distillation, in which the dense model writes as much of the text as it does of the mixture."""
        recovery = {"method": "distill", "steps": steps, "batch_size": _BATCH, "sequence_length": length}
        recovery["seed"] = self.seed
        if self.mixture == AS_TODAY:
            return recovery | {"dataset": CALIBRATION}
        chats = _CHAT_SHARES[self.mixture]
        if chats == 1:
            return recovery | {"dataset": SELF, "shape": "chat", "samples": samples}
        shape = {"shape": "chat"} if chats else {}
        return recovery | {"dataset": CALIBRATION, "own_text": chats, **shape}


def cases(removals: Sequence[str], mixtures: Sequence[str], seeds: int) -> Iterator[Case]:
    """Yield the jobs, seed by seed, those without training first; a default job's own text is `frontier`'s."""
    for seed in range(seeds):
        for distilled in (False, True):
            for removal in removals:
                for mixture in mixtures:
                    if mixture != AS_TODAY or REMOVALS[removal].method == "frontier":
                        yield Case(removal, mixture, seed, distilled)


def _text(mixture: str, samples: int) -> dict[str, Any]:
    """Return the text that a mixture names in a job's `calibration`."""
    if mixture == AS_TODAY:
        return {"dataset": CALIBRATION, "samples": samples}
    chats = round(_CHAT_SHARES[mixture] * samples)
    if chats == samples:
        return {"dataset": SELF, "shape": "chat", "samples": samples}
    shape = {"shape": "chat"} if chats else {}
    return {"dataset": CALIBRATION, "samples": samples - chats, "generated": chats, **shape}
