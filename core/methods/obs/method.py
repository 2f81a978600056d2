"""Optimal Brain Surgeon, layer by layer (Hassibi & Stork 1993, NIPS 5), each output row a problem of its own.

For one linear layer the squared error of the outputs is a quadratic in the weights, the same for every output row, with
Hessian H = 2XᵀX / tokens; so the update is exact. Every row deletes its cheapest weights one at a time.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from core.engine.options.patterns import require_divisible
from core.engine.pruning.compensation.column_update import damped_inverse_factor
from core.engine.pruning.input_statistics import InputStatistic, Statistic
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.network import Network
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.protocols.layerwise import Method
from core.engine.pruning.targets import LayerTarget, PrunableLinear
from core.methods.obs.info import OBSParameters, is_exact
from core.methods.obs.surgeon import obs_prune
from core.methods.obs.whole_network import GlobalOBS

_FREE = 1e18
"""The [H⁻¹]_jj of an input that is always zero: its weights cost nothing and are deleted first."""


class OBS(Method):
    """Deletion of as many weights in every row, to within one, so that the layer loses exactly its target."""

    statistic = Statistic.GRAM

    def __init__(self, parameters: OBSParameters) -> None:
        self.damping = parameters.damping

    def prune(
        self, linears: Sequence[PrunableLinear], inputs: InputStatistic, note: Callable[[str], None]
    ) -> list[Tensor]:
        factor_II, dead_I = damped_inverse_factor(
            inputs.gram_II * (2 / inputs.tokens), self.damping, lambda text: note(f"{linears[0].name}: {text}")
        )
        inverse_II = factor_II.T @ factor_II
        inverse_II.diagonal()[dead_I] = _FREE
        return [
            obs_prune(
                linear.weight_OI, inverse_II, row_counts(linear.weight_OI, linear.target), pattern=linear.target.pattern
            ).weights_RP
            for linear in linears
        ]


class ClassifierOBS(ClassifierMethod):
    """Optimal Brain Surgeon of a classifier: of the entire network where it is small enough, else layer by layer."""

    def __init__(self, parameters: OBSParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        require_divisible(network.layers, network.pattern)
        if is_exact(self.parameters, network.layers):
            GlobalOBS(self.parameters).prune(network)
        else:
            network.figures["mode"] = "layer_wise"
            OneShot(OBS(self.parameters), self.parameters).prune(network)


def row_counts(weight_OI: Tensor, target: LayerTarget) -> Tensor:
    """Return the number of weights each row loses, int64 [out_features]; the first rows may lose one more."""
    rows, size = weight_OI.shape
    if target.pattern.of is not None and target.pattern.keep is not None:
        return torch.full((rows,), size // target.pattern.of * (target.pattern.of - target.pattern.keep))
    least, more = divmod(target.of_tensor(weight_OI.numel()), rows)
    counts_R = torch.full((rows,), least)
    counts_R[:more] += 1
    return counts_R
