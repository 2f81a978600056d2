"""Descriptions of methods agree with what their classes do."""

import pytest

from core.engine.pruning.protocols.classifier import ClassifierMethod, FilterMethod
from core.engine.pruning.protocols.layerwise import Method
from core.engine.removals.run import language_run
from core.engine.removals.weights.options import LayerSelection
from core.methods.engine import build_classifier_method, build_method
from core.methods.registry import METHODS, get_method, parse_parameters

PRUNING = [info.id for info in METHODS.values() if info.prunes]


@pytest.mark.parametrize("method_id", PRUNING)
def test_its_classes_are_those_its_tasks_need(method_id: str) -> None:
    info, parameters = get_method(method_id), parse_parameters(method_id, {})
    if "language-model" in info.task_families:
        if isinstance(parameters, LayerSelection):
            method = build_method(method_id, parameters, (Method,))
            assert isinstance(method, Method)
            assert method.statistic.name.lower() == info.reads
        else:
            removal = info.variant(info.patterns[0]).removal
            assert removal is not None and build_method(method_id, parameters, language_run(removal).protocols)
    if "image-classification" in info.task_families:
        built = build_classifier_method(method_id, parameters)
        assert isinstance(built, ClassifierMethod)
        assert isinstance(built, FilterMethod) == (info.removes == "filters")


def test_a_method_without_a_class_for_a_pass_is_named() -> None:
    with pytest.raises(LookupError, match=r"'layers'.*ClassifierRun"):
        build_classifier_method("depth", parse_parameters("depth", {}))
