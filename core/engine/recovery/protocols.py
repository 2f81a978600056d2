"""Protocols of recoveries: the trained parameters, the loss, and the merge of the result into a model."""

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
    """Model to learn from: a folder, and the hash or commit of its contents."""

    folder: ModelFolder
    revision: str


@dataclass(frozen=True)
class OpenedModel:
    """Language model in memory, before training.

    `linears` are the layers whose zeros are kept. `frozen_dtype` is the dtype of frozen parameters. `windows` are the
    number of training sequences, and their length. `removed_layers` are the teacher's layers that pruning removed, by
    their numbers there.
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
    """Trained parameters: those of `module` with gradients, and `trained` describes them in words.

    `rule` keeps zeros. `changed` are the parameters of the original model that training changes, by name, after `merge`
    has restored its form.
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
        """Choose the trained parameters, and add them to the model where they are not part of it."""

    @abstractmethod
    def loss(self, opened: OpenedModel) -> Loss:
        """Return the objective; called once after `prepare`."""


class ClassifierRecovery(ABC):
    """Recovery of image classifiers, which trains every parameter, on batches of image numbers [batch, 1].

    Pruned weights are kept at zero.
    """

    @abstractmethod
    def image_loss(self, images: ImageSet, recovery: Recovery, teacher: nn.Module | None) -> Loss:
        """Return the objective. `teacher` is the dense model, given to a recovery that learns from one."""
