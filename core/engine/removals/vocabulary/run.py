"""Run of the removal of tokens: they went before the pass, which only measures the model and writes it."""

from dataclasses import replace

from core.engine.models.folder import ModelFolder
from core.engine.options.axes import PropagationOptions
from core.engine.pruning.plan import LayerwisePlan
from core.engine.removals.run import PassRequest
from core.engine.removals.weights.options import LayerSelection
from core.engine.removals.weights.run import WeightRun


class UnchangedLayers(LayerSelection, PropagationOptions):
    """Options of a pass that changes no layer."""


class VocabularyRun(WeightRun):
    """Run over the model that lost its tokens."""

    def plan(self, folder: ModelFolder, request: PassRequest) -> LayerwisePlan:
        return super().plan(folder, replace(request, cut=replace(request.cut, options=UnchangedLayers(), sparsity=0.0)))
