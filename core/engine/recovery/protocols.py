"""Protocols of recoveries: what is trained of a model, by which loss, and how the result becomes a model again."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from core.engine.datasets.image_set import ImageSet
from core.engine.models.folder import ModelFolder
from core.engine.recovery.losses import Loss
from core.engine.recovery.request import Recovery
from core.engine.recovery.training import StepRule


@dataclass(frozen=True)
class Teacher:
    """The model to learn from: a folder, and the hash or commit of its contents."""

    folder: ModelFolder
    revision: str


@dataclass(frozen=True)
class OpenedModel:
    """A language model in memory, before it is trained.

    `linears` are the layers whose zeros are kept. `frozen_dtype` is that of what is not trained. `windows` are the
    number of the sequences to train on, and their length. `removed_layers` are those that pruning took away of the
    teacher's, by their numbers there.
    """

    folder: ModelFolder
    model: PreTrainedModel
    recovery: Recovery
    linears: Sequence[str]
    teacher: Teacher | None
    device: torch.device
    frozen_dtype: torch.dtype
    windows: tuple[int, int]
    removed_layers: Collection[int] = ()


@dataclass(frozen=True)
class Trainable:
    """Parameters that are trained: those of `module` that take gradients, in words `trained`.

    `rule` keeps zeros; `changed` are the model's parameters that training changes, by name, once `merge` has made it
    the model it was.
    """

    module: nn.Module
    trained: str
    changed: Sequence[str]
    rule: StepRule
    merge: Callable[[], nn.Module]


class LanguageRecovery(ABC):
    """Recovery of language models, on batches of tokens [batch, time]."""

    @abstractmethod
    def prepare(self, opened: OpenedModel) -> Trainable:
        """Choose what is trained, and add it to the model where it is not part of it."""

    @abstractmethod
    def loss(self, opened: OpenedModel) -> Loss:
        """Return the objective; called once after `prepare`."""


class ClassifierRecovery(ABC):
    """Recovery of image classifiers, whose every parameter is trained, on batches of the numbers of images [batch, 1].

    Pruned weights are held at zero.
    """

    @abstractmethod
    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        """Return the objective. `teacher` is the dense model, there for a recovery that learns from one."""
