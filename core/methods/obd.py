"""Optimal Brain Damage (LeCun, Denker & Solla 1989, NIPS 2).

Each round deletes the weights of least saliency by the diagonal of the Hessian, and retrains the rest.
"""

from typing import Any

import torch

from core.engine.datasets.image_set import draw_images
from core.engine.pruning.iterative.curvature import mean_squares
from core.engine.pruning.iterative.rounds import matrices, prunable_weights, prune_in_rounds, zero_lowest
from core.engine.pruning.network import Network, mean_loss
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.methods.descriptions.classifiers import OBDParameters


class OBD(ClassifierMethod):
    """Saliency s_k = ½·h_kk·w_k²; the lowest of the entire network are deleted first. Each round computes h_kk anew.

    `curvature` decides how h_kk is computed. The figures of each round hold the predicted increase of the loss, which
    is the sum of the saliencies, and the measured one. Both are taken on the images that h_kk was computed from.
    """

    def __init__(self, parameters: OBDParameters) -> None:
        self.parameters = parameters

    def prune(self, network: Network) -> None:
        parameters = self.parameters
        images = draw_images(network.calibration, parameters.curvature_images, parameters.seed)
        total = round(network.sparsity * prunable_weights(network))

        def cut(share: float) -> dict[str, Any]:
            h = mean_squares(network, images, parameters.curvature)
            saliencies = {name: weight_OI.square() * h[name] / 2 for name, weight_OI in matrices(network).items()}
            before = mean_loss(network, images)
            count = round(share * total)
            deleted = zero_lowest(network, saliencies, count)
            predicted = sum(
                float(saliencies[name][deleted_OI].sum(dtype=torch.float64)) for name, deleted_OI in deleted.items()
            )
            return {
                "removed": count,
                "deleted": sum(int(deleted_OI.sum()) for deleted_OI in deleted.values()),
                "predicted_increase": predicted,
                "measured_increase": mean_loss(network, images) - before,
                "loss_before": before,
            }

        prune_in_rounds(network, parameters, parameters.seed, cut)
