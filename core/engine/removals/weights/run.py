"""Removal of single weights: linear layers are pruned one by one, on their calibration inputs."""

from typing import Any

from core.engine.models.folder import ModelFolder
from core.engine.models.precision import forward_dtype
from core.engine.models.tensors import DTYPES
from core.engine.options.axes import MethodParameters
from core.engine.pruning.allocation import global_counts
from core.engine.pruning.layerwise.classifier_pass import OneShot
from core.engine.pruning.plan import LayerwisePlan
from core.engine.pruning.protocols.classifier import ClassifierMethod
from core.engine.pruning.solver import Solver
from core.engine.pruning.zeros_pass import LayerwisePass
from core.engine.quantization.implementations import rounding_for
from core.engine.removals.run import ClassifierRun, LanguageRun, PassRequest
from core.engine.removals.weights.options import prunable_linears, selection_of


class WeightRun(LanguageRun[LayerwisePlan]):
    """Run of the removal of weights from a language model."""

    protocols = (Solver,)

    def plan(self, folder: ModelFolder, request: PassRequest) -> LayerwisePlan:
        description, cut = folder.description, request.cut
        options = selection_of(cut.options)
        linears = prunable_linears(description, options)
        dtype = DTYPES[description.dtype]
        allocation, propagation = options.allocation_options, options.propagation_options
        sparsities = "uniform" if allocation is None else allocation.allocation
        requested: str = "auto" if propagation is None else propagation.forward_dtype
        if requested == "auto" and folder.family.discovered_by is not None:  # its code is untested in other dtypes
            requested = description.dtype
        counts = None
        if options.ranks_entire_model:
            counts = global_counts(linears, lambda linear: folder.read(f"{linear.name}.weight"), cut.sparsity)
        return LayerwisePlan(
            method_id=request.method_id,
            pattern=cut.pattern,
            sparsity=cut.sparsity,
            parameters=options,
            linears=tuple(linears),
            sparsities=tuple(sparsities) if isinstance(sparsities, list) else (cut.sparsity,) * description.layers,
            counts=counts,
            dtype=dtype,
            forward_dtype=forward_dtype(requested, dtype, request.device),
            device=request.device,
            method=request.method,
            rounding=None if request.quantization is None else rounding_for(request.quantization, dtype),
        )

    def walk(self, folder: ModelFolder, plan: LayerwisePlan, **setting: Any) -> LayerwisePass:
        return LayerwisePass(folder, plan, **setting)


class ClassifierWeightRun(ClassifierRun):
    """Run of the removal of weights from a classifier, by a classifier method or a layer-wise one."""

    protocols = (ClassifierMethod, Solver)

    def method(self, implementation: Any, parameters: MethodParameters) -> ClassifierMethod:
        if isinstance(implementation, Solver):
            return OneShot(implementation, selection_of(parameters))
        return super().method(implementation, parameters)
