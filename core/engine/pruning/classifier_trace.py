"""Trace of an image classifier: the operations and activations of its passes over images, without weights.

The model is built on the meta device, where operators compute shapes alone.
"""

import weakref
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.engine.architectures.description import ClassifierPasses
from core.engine.evaluation.flops import count_flops
from core.engine.models.classifier import ClassifierFolder, build_without_weights

_IMAGES = 8
_META = torch.device("meta")


class _LiveBytes(TorchDispatchMode):
    """Mode that counts the bytes of new storages: those in use, and the `peak`. Storages from before do not count."""

    def __init__(self, existing: Iterable[Tensor]) -> None:
        TorchDispatchMode.__init__(self)
        self.peak: int = 0
        self._current = 0
        self._known = {each.untyped_storage()._cdata for each in existing}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, and a guard against that would slow every operator."""
        return False

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        answer = func(*args, **(kwargs or {}))
        for each in tree_leaves(answer):
            if isinstance(each, Tensor):
                self._count(each.untyped_storage())
        return answer

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._known:
            return
        self._known.add(storage._cdata)
        self._current += storage.nbytes()
        self.peak = max(self.peak, self._current)
        weakref.finalize(storage, self._end, storage._cdata, storage.nbytes())

    def _end(self, key: int, nbytes: int) -> None:
        self._known.discard(key)
        self._current -= nbytes


def trace_classifier(folder: ClassifierFolder, image_shape: tuple[int, int, int]) -> ClassifierPasses:
    """Return the facts of a classifier's passes over images of (channels, height, width).

    Only its config and headers are read. Raises UnusableModel where its class rejects the config, and the model's own
    errors where it does not run.
    """
    model = build_without_weights(folder)
    weights = [*model.parameters(), *model.buffers()]
    gradients = sum(each.nbytes for each in model.parameters())

    def peak(run: Callable[[nn.Module, Tensor], object]) -> int:
        counted = _LiveBytes(weights)
        with counted:
            run(model, torch.empty(_IMAGES, *image_shape, device=_META))
        return counted.peak

    return ClassifierPasses(
        image_shape=image_shape,
        operations=count_flops(model, image_shape),
        evaluation_bytes=peak(_evaluate) // _IMAGES,
        training_bytes=max(0, peak(_train) - gradients) // _IMAGES,
    )


@torch.no_grad()
def _evaluate(model: nn.Module, pixels_BCHW: Tensor) -> None:
    model(pixel_values=pixels_BCHW)


def _train(model: nn.Module, pixels_BCHW: Tensor) -> None:
    labels_B = torch.zeros(len(pixels_BCHW), dtype=torch.int64, device=_META)
    model.train()
    try:
        nn.functional.cross_entropy(model(pixel_values=pixels_BCHW).logits.float(), labels_B).backward()
    finally:
        model.zero_grad()
        model.eval()
