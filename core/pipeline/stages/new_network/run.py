"""Creation of a small network with random weights."""

import shutil

import torch

from core.engine.models.reference_networks import ReferenceConfig, ReferenceNetwork
from core.pipeline.stages.new_network.spec import NewNetworkOutput, NewNetworkSpec
from core.pipeline.stages.run import StageContext
from secateur_wire.errors import UnusableModel


def run(spec: NewNetworkSpec, context: StageContext) -> NewNetworkOutput:
    """Create a reference network with random weights; no partial folder is left behind."""
    torch.manual_seed(spec.seed)
    config = ReferenceConfig(
        network=spec.network,
        num_labels=spec.classes,
        num_channels=spec.channels,
        image_size=spec.image_size,
        hidden_sizes=spec.hidden_sizes,
        architectures=[ReferenceNetwork.__name__],
    )
    try:
        model = ReferenceNetwork(config)
    except RuntimeError as error:  # torch refuses layers of width 0
        raise UnusableModel(
            f"{spec.network} cannot be built for images of {spec.image_size} x {spec.image_size}: {error}",
            param="image_size",
        ) from error
    partial = spec.target.with_name(f"{spec.target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    partial.rename(spec.target)
    return NewNetworkOutput(parameters=model.num_parameters())
