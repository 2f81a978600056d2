"""Rows, columns and cells of the frontier's bench, and in which order they are run. Loads no torch."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.contest import PEER, Job, target_title
from core.methods.frontier.info import FrontierParameters


@dataclass(frozen=True)
class Setting:
    """A row: a method and its parameters, by Secateur's engine or by the peer. `frontier`, and what `generates`,
    calibrates on text of the model's own too, as much as the service takes where a job does not say. One of a `grid`,
    beside which what is chosen by itself is set, is run only where it is named. What `draws` reads no text: its seed is
    that of the mask.
    """

    title: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    is_peer: bool = False
    generates: bool = False
    grid: bool = False
    draws: bool = False

    def fits(self, target: "Target") -> bool:
        """Whether there is such a job: where a pattern fixes all rates there is nothing to allocate."""
        return target.pattern == "unstructured" or "allocation" not in self.parameters

    def sequences(self, samples: int) -> tuple[int, int]:
        """How many of so many calibration sequences are drawn, and how many the model writes."""
        if self.method != "frontier" and not self.generates:
            return samples, 0
        parameters = self.parameters if self.method == "frontier" else {}
        drawn, generated = FrontierParameters.model_validate(parameters).split_calibration(samples)
        assert drawn is not None
        return drawn, generated


REFERENCE = "sparsegpt"
"""The setting that ratios are against."""
SETTINGS = {
    each.title: each
    for each in (
        Setting("random", "random", draws=True),
        Setting("wanda", "wanda"),
        Setting(REFERENCE, "sparsegpt"),
        Setting(PEER, "sparsegpt", is_peer=True),
        Setting("conjugate-gradient", "sparsegpt", {"compensation": {"conjugate_gradient": 10}}),
        Setting("refit", "sparsegpt", {"compensation": {"refit": 0.5}}),
        Setting("both", "sparsegpt", {"compensation": {"refit": 0.5, "conjugate_gradient": 10}}),
        Setting("self text", "sparsegpt", generates=True),
        Setting("allocation", "sparsegpt", {"allocation": "fisher"}),
        *(
            Setting(
                f"both, {share}", "sparsegpt", {"compensation": {"refit": share, "conjugate_gradient": 10}}, grid=True
            )
            for share in (0.25, 0.75, 1.0)
        ),
        Setting("admm", "admm"),
        Setting("frontier", "frontier"),
        Setting("frontier thorough", "frontier", {"budget": "thorough"}),
    )
}


@dataclass(frozen=True)
class Target:
    """A column: what is to be zero."""

    pattern: str
    sparsity: float

    @property
    def title(self) -> str:
        return target_title(self.pattern, self.sparsity)

    def job(self, method: str) -> Job:
        return Job(method, self.pattern, self.sparsity)


TARGETS = {
    "50": Target("unstructured", 0.5),
    "60": Target("unstructured", 0.6),
    "70": Target("unstructured", 0.7),
    "2:4": Target("2:4", 0.5),
    "4:8": Target("4:8", 0.5),
}
SIZED = "50"
"""The target at which the number of calibration sequences varies."""


@dataclass(frozen=True)
class Pruning:
    """One pruning: names of setting and target, the seed that draws the calibration sequences, and how many."""

    setting: str
    target: str
    seed: int
    samples: int

    @property
    def title(self) -> str:
        return f"seed {self.seed}, {self.setting} {TARGETS[self.target].title}, {self.samples} sequences"


@dataclass(frozen=True)
class Plan:
    """What is asked for. `compared` are the settings whose calibration `sizes` vary and that are asked tasks; seeds are
    counted from 0, and of them the first `size_seeds` vary the sizes; tasks are asked at `task_targets`, none with a
    `task_limit` of 0.
    """

    settings: Sequence[str]
    targets: Sequence[str]
    seeds: int
    samples: int
    compared: Sequence[str]
    sizes: Sequence[int]
    size_seeds: int
    task_limit: int
    task_targets: Sequence[str]

    @property
    def asked(self) -> list[str]:
        """The targets of the zero-shot table; none where nothing is asked."""
        return [target for target in self.targets if target in self.task_targets] if self.task_limit else []

    @property
    def sized_seeds(self) -> range:
        """The seeds that vary the number of calibration sequences."""
        return range(min(self.size_seeds, self.seeds))

    def is_asked(self, pruning: Pruning) -> bool:
        """Whether a cell's model is asked the zero-shot tasks: with the first seed alone, for its error is that of the
        questions.
        """
        first = pruning.seed == 0 and pruning.samples == self.samples
        return first and pruning.setting in self.compared and pruning.target in self.asked

    def prunings(self) -> list[Pruning]:
        """Each once; all of a seed before the next seed, so that every table is there once after the first."""
        return list(dict.fromkeys(self._all()))

    def _all(self) -> Iterator[Pruning]:
        for seed in range(self.seeds):
            for target in self.targets:
                for setting in self.settings:
                    if SETTINGS[setting].fits(TARGETS[target]):
                        yield Pruning(setting, target, seed, self.samples)
            if seed in self.sized_seeds:
                for samples in self.sizes:
                    for setting in self.compared:
                        yield Pruning(setting, SIZED, seed, samples)
