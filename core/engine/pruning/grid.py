"""Grids of quantised weights: codes of a few bits, and the scales that multiply them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.checkpoints.quantisation import packed_config

_SHRINKAGES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Shares of the smallest scale without clipping that are tried where the inputs are known."""


@dataclass(frozen=True)
class Grid:
    """Symmetric grid of a weight [out_features, in_features]: codes −2ᵇ⁻¹ … 2ᵇ⁻¹ − 1 of b `bits`, times scales.

    `scales_GO` are float32, [groups, out_features]: one for each row in each group of in_features / groups columns.
    They are values of `dtype`, in which they are saved.
    """

    scales_GO: Tensor
    bits: int
    dtype: torch.dtype

    def codes_of(self, weight_OI: Tensor) -> Tensor:
        """Return the codes, int8, that are nearest to a weight."""
        codes_OGI = codes(self._grouped(weight_OI), self._scales_OG1, self.bits)
        return codes_OGI.to(torch.int8).view(weight_OI.shape)

    def values_of(self, codes_OI: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Return codes times scales in a dtype, or in the scales' own, as readers of the saved weight compute them."""
        return (self._grouped(codes_OI).float() * self._scales_OG1).view(codes_OI.shape).to(dtype or self.dtype)

    @property
    def _scales_OG1(self) -> Tensor:
        return self.scales_GO.T.unsqueeze(2)

    def _grouped(self, values_OI: Tensor) -> Tensor:
        return values_OI.reshape(len(values_OI), len(self.scales_GO), -1)


@dataclass(frozen=True)
class GridFit:
    """Fit of grids to weights that read one input.

    There is a scale for each row in each group of `group_size` columns (None: one for the whole row); the largest
    weight gets the largest code. Where Σ x² of each input is given as `squares_I`, smaller scales, which clip the
    largest weights, are tried too: the one with the least squared error, weighted by it, stays.
    """

    bits: int
    group_size: int | None
    dtype: torch.dtype
    squares_I: Tensor | None = None

    def grid_of(self, weight_OI: Tensor) -> Grid:
        """Return the grid of a weight [out_features, in_features]."""
        return self.grid(self.scales_of(weight_OI.T, 0))

    def grid(self, scales_GO: Tensor) -> Grid:
        return Grid(scales_GO, self.bits, self.dtype)

    def scales_of(self, columns_IO: Tensor, first: int) -> Tensor:
        """Return the scales [groups, out_features] of whole groups of columns, of which the first is column `first`."""
        values_GIO = columns_IO.float().unflatten(0, (-1, self.group_size or len(columns_IO)))
        unclipped_GO = values_GIO.abs().amax(dim=1) / (2 ** (self.bits - 1) - 1)
        best_GO = self._saved(unclipped_GO)
        if self.squares_I is None:
            return best_GO
        squares_GI1 = self.squares_I[first : first + len(columns_IO)].float().view(*values_GIO.shape[:2], 1)

        def error(scales_GO: Tensor) -> Tensor:
            scales_G1O = scales_GO.unsqueeze(1)
            values = codes(values_GIO, scales_G1O, self.bits).mul_(scales_G1O)
            return values.sub_(values_GIO).square_().mul_(squares_GI1).sum(dim=1)

        least_GO = error(best_GO)
        for share in _SHRINKAGES:
            scales_GO = self._saved(unclipped_GO * share)
            error_GO = error(scales_GO)
            best_GO = torch.where(error_GO < least_GO, scales_GO, best_GO)
            least_GO = torch.minimum(error_GO, least_GO)
        return best_GO

    def _saved(self, scales_GO: Tensor) -> Tensor:
        """Return scales as they are saved; groups without any weight, or of none but tiny ones, get scale 1."""
        saved_GO = scales_GO.to(self.dtype).float()
        return torch.where(saved_GO > 0, saved_GO, 1)


@dataclass(frozen=True)
class QuantisedWeight:
    """Quantised weight of a linear layer: its int8 codes, its grid, and the number of weights that were pruned.

    `pruned` is a float64 on the weight's device. Other weights may be zero too, because they are nearest to zero.
    """

    codes_OI: Tensor
    grid: Grid
    pruned: Tensor

    @classmethod
    def of(cls, rounded_OI: Tensor, grid: Grid, pruned_OI: Tensor) -> "QuantisedWeight":
        """Return a weight from its values on the grid, and the mask of its pruned weights."""
        return cls(grid.codes_of(rounded_OI), grid, pruned_OI.sum(dtype=torch.float64))

    @property
    def weight_OI(self) -> Tensor:
        """The weight as readers of the saved one compute it, in the grid's dtype."""
        return self.grid.values_of(self.codes_OI)

    def packed(self, name: str) -> dict[str, Tensor]:
        """Return the tensors that are saved in the place of the weight, by their keys; `name` is the weight's key.

        The library compressed-tensors packs the codes. There is a scale for each row in each group of columns.
        """
        from compressed_tensors.compressors import BaseCompressor  # slow to load, and only these jobs need it
        from compressed_tensors.quantization import QuantizationConfig

        # packed where it is saved from, as it takes several times the memory of the codes
        codes_OI, scales_OG = self.codes_OI.cpu(), self.grid.scales_GO.T.to(self.grid.dtype).contiguous().cpu()
        groups = scales_OG.shape[1]
        declared = packed_config(self.grid.bits, None if groups == 1 else codes_OI.shape[1] // groups, [])
        scheme = QuantizationConfig.model_validate(declared).config_groups["group_0"]
        compressor = BaseCompressor.get_value_from_registry(declared["format"])
        # it divides by the scales, so that ones leave the codes as they are
        ones_OG = torch.ones_like(scales_OG, dtype=torch.float32)
        saved = compressor.compress({"weight": codes_OI.float(), "weight_scale": ones_OG}, scheme)
        return {
            f"{name.removesuffix('weight')}{key}": value for key, value in (saved | {"weight_scale": scales_OG}).items()
        }


def codes(values: Tensor, scales: Tensor, bits: int) -> Tensor:
    """Return the codes nearest to values, which are divided by scales that have their shape, or are broadcast to it."""
    end = 2 ** (bits - 1)
    return (values / scales).round_().clamp_(-end, end - 1)
