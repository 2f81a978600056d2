"""Opening of the language models that a stage is told of."""

from core.engine.models.folder import ModelFolder, open_model
from core.pipeline.messages import ModelPlace


def open_place(place: ModelPlace) -> ModelFolder:
    """Open a model folder on this machine; raises what `open_model` does."""
    return open_model(place.path, own_artifact=place.own_artifact, discovered=place.discovered)
