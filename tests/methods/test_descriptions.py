"""Descriptions of methods agree with what their classes do."""

from collections import Counter
from importlib import import_module

import pytest

from core.engine.options.patterns import parse_pattern
from core.engine.pruning.protocols.classifier import ClassifierMethod, FilterMethod
from core.engine.pruning.protocols.layerwise import Method
from core.engine.removals.experts.options import ExpertOptions
from core.engine.removals.filters.options import FilterParameters
from core.engine.removals.run import language_run
from core.engine.removals.weights.options import LayerSelection
from core.engine.removals.widths.options import WidthOptions
from core.methods.engine import build_classifier_method, build_method
from core.methods.registry import METHODS, get_method, parse_parameters

PRUNING = [info.id for info in METHODS.values() if info.prunes]


@pytest.mark.parametrize("method_id", METHODS)
def test_a_methods_folder_is_named_as_it_is(method_id: str) -> None:
    assert import_module(f"core.methods.{method_id.replace('-', '_')}.info").INFO is METHODS[method_id]


def test_no_two_methods_have_one_place() -> None:
    assert max(Counter(info.rank for info in METHODS.values()).values()) == 1


@pytest.mark.parametrize("method_id", METHODS)
def test_what_it_removes_is_what_its_parameters_and_patterns_are_for(method_id: str) -> None:
    info = get_method(method_id)
    kinds = {"weights": LayerSelection, "widths": WidthOptions, "filters": FilterParameters,
             "experts": ExpertOptions}  # fmt: skip
    assert (info.removes is not None) == info.prunes
    for removes, kind in kinds.items():
        if info.prunes:
            assert (info.removes == removes) == issubclass(info.parameters, kind)
    smaller = ("widths", "layers", "experts", "filters", "vocabulary")
    assert (info.patterns == ("structured",)) == (info.removes in smaller)


@pytest.mark.parametrize("method_id", PRUNING)
def test_a_pattern_alone_says_as_its_removal_does_whether_the_model_shrinks(method_id: str) -> None:
    info = get_method(method_id)
    for family in info.patterns:
        pattern = parse_pattern("2:4" if family == "n:m" else family)
        assert info.variant(pattern.text).shrinks == pattern.shrinks


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
