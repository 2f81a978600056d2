"""Runs of removals: the classes in a kind's module `run`, one for language models and one for classifiers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from core.discovery import require_class
from core.engine import removals
from core.engine.cuts.cut import Cut
from core.engine.cuts.removal import Removal
from core.engine.models.folder import ModelFolder
from core.engine.options.axes import MethodParameters
from core.engine.pruning.plan import PruningPlan
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.results import PruneResult
from core.engine.pruning.streams.hidden_states import ActivationBudget
from secateur_wire.base import JsonObject
from secateur_wire.job_body import Quantization

P = TypeVar("P", bound=PruningPlan)
_MODULE = "run"


@dataclass(frozen=True)
class PassRequest:
    """Request for a plan: the kind of removal, the cut with the device's alignment, and the method with its id.

    With a `quantization` the pass rounds all linear layers of the blocks; only a pass that keeps all shapes does.
    """

    removal: Removal
    cut: Cut
    method_id: str
    method: Any
    device: torch.device
    quantization: Quantization | None = None


class LanguagePass(Protocol[P]):
    """Pass over the blocks of a language model that can continue with smaller micro-batches.

    `budget` is that of its hidden states.
    """

    folder: ModelFolder
    plan: P
    budget: ActivationBudget

    def run(self) -> PruneResult: ...

    def halve_micro_batches(self, error: str) -> bool: ...


class LanguageRun(ABC, Generic[P]):
    """Run of a kind of removal on language models. `protocols` are its methods' protocols, the preferred one first."""

    protocols: ClassVar[Sequence[type[Any]]]

    @abstractmethod
    def plan(self, folder: ModelFolder, request: PassRequest) -> P:
        """Return the plan of a pass; raises InvalidSparsity where the device's alignment rules the sparsity out."""

    @abstractmethod
    def walk(self, folder: ModelFolder, plan: P, **setting: Any) -> LanguagePass[P]:
        """Return the pass that executes the plan; `setting` are the keyword arguments of `BlockPass`."""

    def pruned_config(self, folder: ModelFolder, plan: P) -> JsonObject:
        """Return the config.json of a model pruned by this plan. It does not depend on the choice of units."""
        return folder.raw_config


class ClassifierRun:
    """Run of a kind of removal on image classifiers. `protocols` are its methods' protocols, in order of preference."""

    protocols: ClassVar[Sequence[type[Any]]] = (ClassifierMethod,)

    def method(self, implementation: Any, parameters: MethodParameters) -> ClassifierMethod:
        """Return the classifier method for a method's implementation."""
        assert isinstance(implementation, ClassifierMethod)
        return implementation


def language_run(removal: Removal) -> LanguageRun[Any]:
    """Return the run of a kind of removal on language models."""
    return require_class(removals, removal.id, _MODULE, LanguageRun)()


def classifier_run(removal: Removal) -> ClassifierRun:
    """Return the run of a kind of removal on image classifiers."""
    return require_class(removals, removal.id, _MODULE, ClassifierRun)()
