"""Rows of the report, one for each linear layer that was pruned."""

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from core.engine.architectures.layer_shape import LinearShape
from core.engine.pruning.compensation.refit import Fitted
from core.engine.pruning.input_statistics import InputStatistic, relative_error
from core.engine.pruning.results import LayerRow
from core.engine.pruning.targets import PrunableLinear
from core.errors import RunFailed


class LayerRows:
    """Rows in the order of pruning. `all` are the complete ones.

    Their figures stay on the device until `complete` reads those of many layers together: each read makes the program
    wait for all that the device has been given to do.
    """

    def __init__(self, rows: Iterable[LayerRow] = ()) -> None:
        self.all = list(rows)
        self._unread: list[tuple[LayerRow, Tensor]] = []

    def add(
        self, linear: PrunableLinear, shape: LinearShape, fitted: Fitted, saved_OI: Tensor, inputs: InputStatistic
    ) -> None:
        """Add a layer; `saved_OI` are its pruned weights as they are saved, in float32."""
        target = linear.target.sparsity if linear.target.count is None else linear.target.count / shape.numel
        row = LayerRow(
            name=linear.name,
            layer=shape.layer,
            out_features=shape.out_features,
            in_features=shape.in_features,
            target=target,
            zeros=0,
            sparsity=0.0,
            reconstruction_error=None,
            refit=fitted.refit,
            ridge=fitted.ridge,
            conjugate_gradient=fitted.steps,
        )
        zeros, total = (saved_OI == 0).sum(dtype=torch.float64), saved_OI.sum(dtype=torch.float64)
        energies: list[Tensor] = []
        if inputs.tokens:
            energies = [inputs.energy(linear.weight_OI), inputs.energy(linear.weight_OI - saved_OI)]
        self._unread.append((row, torch.stack([zeros, total, *energies])))

    def complete(self) -> None:
        """Read the figures of the layers that were added since; raises RunFailed where weights are not finite."""
        figures = torch.cat([each for _, each in self._unread]).tolist() if self._unread else []
        for row, own in self._unread:
            zeros, total, *energies = (figures.pop(0) for _ in range(len(own)))
            if not math.isfinite(total):
                raise RunFailed(f"{row.name}: its inputs are not finite, there is nothing to solve for")
            error = relative_error(*energies) if energies else None
            sparsity = zeros / (row.out_features * row.in_features)
            self.all.append(replace(row, zeros=int(zeros), sparsity=sparsity, reconstruction_error=error))
        self._unread = []
