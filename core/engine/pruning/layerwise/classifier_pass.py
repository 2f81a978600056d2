"""Layer-wise pruning of an image classifier: its layers, as matrices, by a one-shot method."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from core.counting import counted
from core.engine.architectures.structure import LinearShape
from core.engine.models.hooks import removed_after
from core.engine.models.tensors import DTYPES
from core.engine.options.axes import MethodParameters
from core.engine.options.patterns import require_divisible
from core.engine.pruning.allocation import global_counts
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.layer_matrix import groups_of, input_rows, layer_of, set_matrix, to_matrix
from core.engine.pruning.masks import LayerTarget
from core.engine.pruning.network import Network
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.solver import PrunableLinear, Solver
from core.engine.pruning.streams.lockstep import run_in_lockstep, wait_at_barrier
from secateur_wire.errors import InvalidParameters

_ERROR_ROWS = 1024
"""Approximate number of rows of a layer's input on which its reconstruction error is measured without XᵀX."""


class OneShot(ClassifierMethod):
    """One-shot pruning: the layers, in order of execution, are pruned by `solver` as matrices.

    in_flight: all batches go through the model once, in lockstep. When all have reached a layer, its statistic is
    complete; it is pruned, and the batches continue through the pruned weights. two_pass: all statistics are the dense
    model's. A grouped convolution is pruned group by group, each with its own inputs. Relative errors of the layers'
    outputs go into the figures.
    """

    def __init__(self, solver: Solver, parameters: MethodParameters) -> None:
        self.solver = solver
        self.parameters = parameters

    @torch.no_grad()
    def prune(self, network: Network) -> None:
        require_divisible(network.layers, network.pattern)
        targets = layer_targets(network, self.parameters)
        walk = _ClassifierPass(network, self.solver, targets)
        if self.solver.statistic is Statistic.NONE:
            for shape in network.layers:
                walk.prune(shape.name)
            return
        parameters = self.parameters.propagation_options
        assert parameters is not None
        size = parameters.micro_batch or network.batch_size
        batches = [
            network.calibration.batch(numbers).to(network.device)
            for numbers in torch.arange(len(network.calibration)).split(size)
        ]
        with _forward_precision(parameters.forward_dtype, network.device):
            if parameters.propagation == "in_flight":
                with walk.collecting(wait=True):
                    run_in_lockstep(
                        [partial(network.logits, pixels_BCHW) for pixels_BCHW in batches],
                        walk.prune,
                        lambda index, logits: None,
                    )
            else:
                with walk.collecting(wait=False):
                    for pixels_BCHW in counted(batches, "collecting statistics of batches"):
                        network.logits(pixels_BCHW)
                for name in counted(list(walk.statistics), "pruning layers"):
                    walk.prune(name)
        walk.finish()


@contextmanager
def _forward_precision(forward_dtype: str, device: torch.device) -> Iterator[None]:
    """Set the precision of the calibration forward inside the context: float32, unless another is requested."""
    if forward_dtype in ("auto", "float32"):
        yield
    else:
        with torch.autocast(device.type, DTYPES[forward_dtype]):
            yield


def layer_targets(network: Network, parameters: MethodParameters) -> dict[str, LayerTarget]:
    """Return the target of each layer; raises InvalidParameters for an allocation that classifiers do not support."""
    options = parameters.allocation_options
    allocation = "uniform" if options is None else options.allocation
    if options is not None and options.measured_allocation:
        raise InvalidParameters(
            f"parameters.allocation: {allocation!r} is made for the decoder layers of language models: use 'uniform', "
            "or a list with one sparsity per layer",
            param="parameters.allocation",
        )
    counts: Mapping[str, int] = {}
    if parameters.ranks_entire_model:
        counts = global_counts(
            network.layers, lambda shape: to_matrix(layer_of(network.model, shape.name)).contiguous(), network.sparsity
        )
    rates = layer_rates(network.layers, allocation, network.sparsity)
    return {name: LayerTarget(network.pattern, rate, counts.get(name)) for name, rate in rates.items()}


def layer_rates(layers: Sequence[LinearShape], allocation: Any, sparsity: float) -> dict[str, float]:
    """Return the sparsity of each layer, by name, from a list or "uniform".

    Raises InvalidParameters where the list is too short.
    """
    if not isinstance(allocation, list):
        return {shape.name: sparsity for shape in layers}
    if len(allocation) <= max(shape.layer for shape in layers):
        raise InvalidParameters(
            f"parameters.allocation: {len(allocation)} sparsities given, but the model has at least "
            f"{max(shape.layer for shape in layers) + 1} layers",
            param="parameters.allocation",
        )
    return {shape.name: allocation[shape.layer] for shape in layers}


class _ClassifierPass:
    """Statistics of the layers' inputs during a pass, and the pruning of each layer once."""

    def __init__(self, network: Network, solver: Solver, targets: Mapping[str, LayerTarget]) -> None:
        self.network, self.solver, self.targets = network, solver, targets
        self.layers = {shape.name: layer_of(network.model, shape.name) for shape in network.layers}
        self.places = {shape.name: place for place, shape in enumerate(network.layers)}
        self.statistics: dict[str, list[InputStatistic]] = {}
        self.pruned: set[str] = set()
        network.figures["reconstruction_errors"] = {}

    @contextmanager
    def collecting(self, *, wait: bool) -> Iterator[None]:
        """Collect each layer's inputs inside the context; with `wait`, each batch waits until all have reached it."""

        def hook(name: str) -> Any:
            def arrive(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
                if name not in self.pruned:  # a layer may run more than once
                    self._add_inputs(name, arguments[0])
                    if wait:
                        wait_at_barrier(name)

            return arrive

        handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in self.layers.items()]
        with removed_after(handles):
            yield

    def _add_inputs(self, name: str, inputs: Tensor) -> None:
        layer = self.layers[name]
        images = len(inputs)
        for X_BGLI in input_rows(name, layer, inputs, images):
            if name not in self.statistics:
                rows = X_BGLI.shape[2] * len(self.network.calibration)
                stride = max(1, rows // _ERROR_ROWS)
                self.statistics[name] = [
                    InputStatistic(self.solver.statistic, sample_stride=stride) for _ in range(groups_of(layer))
                ]
            for statistic, X_BLI in zip(self.statistics[name], X_BGLI.unbind(1), strict=True):
                statistic.update(X_BLI)

    def prune(self, name: str) -> None:
        """Prune a layer, with the statistics of its inputs if any; raises WorkStopped when the job is stopped."""
        self.network.progress.raise_if_stopped()
        layer, target = self.layers[name], self.targets[name]
        dense_OI = to_matrix(layer)
        statistics = self.statistics.pop(name, None) or [InputStatistic(Statistic.NONE, sample_stride=1)]
        edges = [
            round(target.of_tensor(dense_OI.numel()) * part / len(statistics)) for part in range(len(statistics) + 1)
        ]
        parts = []
        lost = total = 0.0
        for part_OI, statistic, (before, after) in zip(
            dense_OI.chunk(len(statistics)), statistics, pairwise(edges), strict=True
        ):
            own = target if len(statistics) == 1 else LayerTarget(target.pattern, target.sparsity, after - before)
            linear = PrunableLinear(name, self.places[name], part_OI.contiguous(), own)
            (pruned_OI,) = self.solver.prune([linear], statistic, self.network.notes.append)
            parts.append(pruned_OI)
            if statistic.tokens:
                lost += float(statistic.energy(part_OI - pruned_OI))
                total += float(statistic.energy(part_OI))
        set_matrix(layer, torch.cat(parts))
        self.pruned.add(name)
        if total > 0:
            self.network.figures["reconstruction_errors"][name] = math.sqrt(max(lost, 0.0) / total)
        self.network.progress.advance(len(self.pruned) / len(self.layers))

    def finish(self) -> None:
        """Report the layers that no image has reached, which stay dense."""
        left = [name for name in self.layers if name not in self.pruned]
        if left:
            self.network.notes.append(f"left dense, since no image's forward reads them: {', '.join(left)}")
