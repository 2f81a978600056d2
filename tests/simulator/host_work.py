"""Work that the product leaves to the CPU while it is at work on a device, which equal results say nothing of.

A mode of torch sees the operators that the product calls, and none of those beneath the simulated devices.
"""

import sys
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.engine.models import accelerator
from core.engine.models.accelerator import BACKENDS, CPUBackend
from tests.simulator.devices import NAME
from tests.simulator.operators import tensors_in

_CORE = f"{Path(accelerator.__file__).parents[2]}/"

_MODEL = {
    "mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "convolution", "conv2d", "embedding", "_softmax",
    "_log_softmax", "softmax", "log_softmax", "native_layer_norm", "layer_norm", "native_batch_norm", "batch_norm",
    "_native_batch_norm_legit", "nll_loss_forward", "cross_entropy_loss", "multinomial",
    "_scaled_dot_product_flash_attention_for_cpu", "scaled_dot_product_attention",
}  # fmt: skip
"""Operators of models, which are work whatever their size."""
_MOVES = {
    "_to_copy", "to", "copy_", "clone", "contiguous", "detach_", "empty", "empty_like", "empty_strided", "new_empty",
    "new_empty_strided", "new_zeros", "new_ones", "new_full", "zeros", "zeros_like", "zero_", "ones", "ones_like",
    "full", "full_like", "fill_", "scalar_tensor", "arange", "eye", "set_", "resize_", "cat", "stack", "index",
    "index_select", "index_put_", "_index_put_impl_", "gather", "scatter_", "repeat", "flip", "lift_fresh",
    "_local_scalar_dense", "_fused_sdp_choice", "is_pinned",
}  # fmt: skip
"""Operators that compute nothing, but make, choose and move values."""
_LEAST_ELEMENTS = 256
"""Elements of its largest operand from which on any other operator is work: small models' weights have more."""

_COMPARED = "logits that were written are compared in main memory"
_READ = "what comes from files is checked before it goes to the device"
_TOKENS = "tokens of windows are in main memory"
_WRITTEN = "what is written is in main memory"
_UNITS = "units are chosen in main memory, by a figure of each"
_MASKS = "a regression over a few hundred masks, in float64"
_COUPLED = "the numbers of coupled channels are found once, and no weight is read"
_DIRECTIONS = "directions of some tokens behind every layer are more than a block"
_GRADIENTS = "gradients of some tokens behind every layer are more than a block"
ON_THE_HOST = {
    "engine/datasets/counted_tokens.py counted_places": _TOKENS,
    "engine/datasets/counted_tokens.py mean_predictions": _TOKENS,
    "engine/datasets/counted_tokens.py plain_ids": _TOKENS,
    "engine/datasets/image_set.py TensorImages.batch": "images are prepared in main memory",
    "engine/evaluation/classifier_reload_check.py _difference": _COMPARED,
    "engine/evaluation/reload_check.py largest_logit": _COMPARED,
    "engine/evaluation/reload_check.py reload_check": _COMPARED,
    "engine/evaluation/timing.py timed": "onnxruntime is timed on the CPU",
    "engine/exporters/hashed/classifier.py _hashed": "numbers of weights, which a hash of NumPy gives",
    "engine/exporters/agreement.py compare": "an engine predicts in main memory",
    "engine/models/accelerator.py _onednn_rounds_factors": "the processor is tried once",
    "engine/models/accelerator.py to_main_memory": "tensors are asked where they are",
    "engine/models/classifier.py build_classifier": _READ,
    "engine/models/tensors.py read_tensor": _READ,
    "engine/pruning/allocation/global_ranking.py _bits": "one threshold for all weights, of the files, before a pass",
    "engine/pruning/allocation/global_ranking.py global_counts": "one threshold for all weights, of the files",
    "engine/pruning/units/adapter_model.py MovingAverage.add": _UNITS,
    "engine/pruning/filters/coupled_channels.py CoupledChannels.remove": _COUPLED,
    "engine/pruning/filters/dependency_graph.py _group": _COUPLED,
    "engine/pruning/filters/dependency_graph.py _member": _COUPLED,
    "engine/pruning/filters/dependency_graph.py _units": _COUPLED,
    "engine/pruning/filters/budget.py _steps_of_units": _UNITS,
    "engine/pruning/filters/rankings.py kernel_sums": _UNITS,
    "engine/pruning/filters/rankings.py between_layers": _UNITS,
    "engine/pruning/units/removal.py _highest": _UNITS,
    "engine/pruning/units/removal.py require_finite": _UNITS,
    "methods/depth/method.py StreamDirections.__init__": _DIRECTIONS,
    "methods/depth/method.py StreamDirections.angle": _DIRECTIONS,
    "methods/depth/method.py StreamDirections.cosine": _DIRECTIONS,
    "engine/pruning/units/unit_slices.py SetSlice._own": _UNITS,
    "engine/pruning/units/unit_slices.py StackSlice.features": _UNITS,
    "engine/pruning/units/unit_slices.py UnitSlice.features": _UNITS,
    "engine/pruning/units/unit_slices.py UnitSlice.spread": _UNITS,
    "engine/recovery/language.py _zeros": _WRITTEN,
    "methods/bonsai/method.py Bonsai._round": _UNITS,
    "methods/bonsai/method.py UnitMasks.masked": _UNITS,
    "methods/bonsai/method.py _Reader.masked": _UNITS,
    "methods/bonsai/method.py _drop_weights": _UNITS,
    "methods/bonsai/method.py _ranks": _UNITS,
    "methods/bonsai/mask_regression.py _fits": _MASKS,
    "methods/bonsai/mask_regression.py lasso": _MASKS,
    "methods/bonsai/mask_regression.py regress": _MASKS,
    "methods/bonsai/mask_regression.py ridge": _MASKS,
    "methods/filter_l1/method.py FilterL1._greedily": _UNITS,
    "methods/flap/method.py _summed": _UNITS,
    "methods/flap/method.py _unit_averages": _UNITS,
    "methods/frontier/output_metric.py measure_outputs": _UNITS,
    "methods/frontier/run_costs.py RunCosts.see": _GRADIENTS,
    "methods/lorashear/bundle_damage.py bundle_damage": _UNITS,
    "methods/lorashear/half_space.py HalfSpaceSchedule._pick": _UNITS,
    "methods/lorashear/half_space.py HalfSpaceSchedule._preferring_exempt": _UNITS,
    "methods/lorashear/half_space.py HalfSpaceSchedule._shrink": _UNITS,
    "methods/lorashear/half_space.py HalfSpaceSchedule.after_step": _UNITS,
    "methods/obs/surgeon.py obs_prune": "the numbers of weights that go of each row are known in main memory",
}
"""Places of the product that work on the CPU, and why."""
_BEFORE_READING = "weights are drawn that those of the files replace"
SEEDED = {
    "engine/models/classifier.py build_classifier": _BEFORE_READING,
    "engine/models/reference_networks.py ScaledAverage.__init__": _BEFORE_READING,
    "engine/models/reference_networks.py _digits_1989": _BEFORE_READING,
    "engine/models/reference_networks.py _lenet_5": _BEFORE_READING,
    "engine/models/reference_networks.py _mlp": _BEFORE_READING,
    "engine/models/reference_networks.py _vgg": _BEFORE_READING,
    "engine/recovery/adapters.py MaskedLoraLinear.__init__": "peft draws, seeded by who adds adapters",
}
"""Places of the product that draw numbers of the process's own generator, and why."""
_WHEREVER = (
    "engine/models/tracing/live_bytes.py FusedAttention.__torch_function__",
    "engine/models/tracing/live_bytes.py LiveBytes.__torch_dispatch__",
    "engine/models/accelerator.py backend_of", "engine/pruning/masks.py lowest",
    "engine/pruning/units/unit_slices.py UnitSlice.per_unit",
)  # fmt: skip
"""Functions that work for others, whose place is their caller's."""


@cache
def _least_elements(op: Any) -> float:
    """Return the elements from which on an operator is work."""
    name = op._schema.name.removeprefix("aten::")
    is_view = any(each.alias_info is not None and not each.alias_info.is_write for each in op._schema.returns)
    if is_view or name in _MOVES:
        return float("inf")
    return 0 if name in _MODEL else _LEAST_ELEMENTS


@cache
def _draws(op: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in op.tags and _least_elements(op) != float("inf")


def _is_on_the_cpu(tensors: list[Tensor], device: object) -> bool:
    """Return True for an operator of the CPU, by its operands, and by what it was asked for where it has none."""
    if tensors:
        return all(each.device.type == "cpu" for each in tensors)
    return device is None or torch.device(str(device)).type == "cpu"


def product_place() -> str | None:
    """Return the function of the product that is at work, by file and name; None where the product did not call."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_CORE):
            place = f"{code.co_filename.removeprefix(_CORE)} {code.co_qualname.partition('.<locals>')[0]}"
            if place not in _WHEREVER:
                return place
        frame = frame.f_back
    return None


class _Watch(TorchDispatchMode):
    """Mode that counts what the CPU is given to do, by the place in the product and what it is."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled here, and a guard against that costs every operator."""
        return False

    def note(self, what: str, allowed: Container[str]) -> None:
        place = product_place()
        if place is not None and place not in allowed:
            self.found[f"{place}: {what}"] += 1

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if args and isinstance(args[0], Tensor) and not args[0].is_cpu:  # most are: it shall cost them little
            return func(*args, **given)
        least, draws = _least_elements(func), _draws(func)
        if draws or least != float("inf"):
            tensors = [*tensors_in((*args, *given.values()))]
            if _is_on_the_cpu(tensors, given.get("device")):
                if draws and not any(isinstance(each, torch.Generator) for each in (*args, *given.values())):
                    self.note(f"{func} draws without a generator", SEEDED)
                elif max((each.numel() for each in tensors), default=0) >= least:
                    self.note(f"{func} on the CPU", ON_THE_HOST)
        return func(*args, **given)


@contextmanager
def at_work_on(device: torch.device) -> Iterator[None]:
    """Require that what is done inside the context is done on a simulated device; nothing of another one.

    No work on the CPU, no random numbers of the process and no question to the interface of the CPU instead, but for
    the places that have a reason.
    """
    if device.type != NAME:
        yield
        return
    watch = _Watch()

    class Asked(CPUBackend):
        """The interface to the CPU, of which is noted that it was asked for."""

        def __init__(self, device: torch.device) -> None:
            super().__init__(device)
            watch.note("asks the interface about the CPU", ON_THE_HOST)

    BACKENDS[CPUBackend.kind.name] = Asked
    try:
        with watch:
            yield
    finally:
        BACKENDS[CPUBackend.kind.name] = CPUBackend
    assert not watch.found, "left to the CPU:\n" + "\n".join(f"{n} x {each}" for each, n in watch.found.most_common())
