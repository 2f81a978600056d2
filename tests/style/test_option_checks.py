from textwrap import dedent

import pytest

from tests.style.option_checks import definitions_of, findings
from tests.style.source import Source, parsed, product

_PRODUCT = {
    "core/engine/options/base.py": """
        from pydantic import BaseModel
        class MethodParameters(BaseModel):
            seed: int
    """,
    "core/engine/options/width.py": """
        from core.engine.options.base import MethodParameters
        class Width(MethodParameters):
            round_to: int
        Alias = Width | MethodParameters
        def is_width(x): return isinstance(x, Width)
    """,
    "core/engine/options/patterns.py": """
        from typing import Literal
        PatternFamily = Literal["unstructured", "n:m", "structured"]
        STRUCTURED = Pattern("structured")
    """,
    "core/engine/recovery/trained.py": "from core.engine.options.width import Width\nclass Trained(Width): ...\n",
    "core/engine/architectures/description.py": """
        from pydantic import BaseModel
        class ModelDescription(BaseModel):
            task: Literal["language-model"]
    """,
    "core/methods/flap/info.py": """
        from core.engine.options import width
        class Called(width.Width): ...
        INFO = MethodInfo(id="flap", parameters=Called)
        def is_own(x): return isinstance(x, Called) and x.kind == "flap"
    """,
}
"""A small product, whose classes are called neither Options nor Parameters."""


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("option_class_asked_for", "from core.engine.options.width import Width\nisinstance(x, Width)"),
        ("option_class_asked_for", "from core.engine.options.width import Width as W\nissubclass(x, (int, W))"),
        ("option_class_asked_for", "from core.engine.options import width\nisinstance(x, int | width.Width)"),
        ("option_class_asked_for", "from core.engine.options.width import Alias\nisinstance(x, Alias)"),
        ("option_class_asked_for", "from core.engine.recovery.trained import Trained\nisinstance(x, Trained)"),
        ("option_class_asked_for", "from core.methods.flap.info import Called\nisinstance(x, Called)"),
        ("option_class_asked_for", "from core.engine.options.width import Width\nmatch x:\n    case Width(): ..."),
        ("option_class_asked_for", "from core.engine.options.width import Width\ntype(x) is Width"),
        ("option_class_asked_for", "from core.engine.options.width import Width\ntype(x) in (int, Width)"),
        ("option_class_asked_for", "from core.engine.options.width import Width\nx.__class__ == Width"),
        ("option_class_asked_for", "hasattr(x, 'round_to')"),
        ("option_class_asked_for", "getattr(x, 'round_to', None)"),
        ("option_class_asked_for", "'round_to' in variant.parameters.model_fields"),
        ("id_compared", "x.method == 'flap'"),
        ("id_compared", "x.pattern in (None, 'structured')"),
        ("id_compared", "match x.pattern:\n    case 'n:m' | 'other': ..."),
        ("id_compared", "from core.engine.options.patterns import STRUCTURED\nx.pattern != STRUCTURED.text"),
        ("task_asked_for", "x.task == 'language-model'"),
        (
            "task_asked_for",
            "from core.engine.architectures.description import ModelDescription\nisinstance(x, ModelDescription)",
        ),
    ],
)
def test_each_way_of_asking_is_found_outside_the_room(rule: str, source: str) -> None:
    found = list(findings(_product(source)))
    assert [(each.rule, each.file) for each in found] == [(rule, "core/service/a.py")]
    assert found[0].line > source.count("import")


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(x, Width)",  # a class of that name from elsewhere
        "from core.engine.options.width import Width\nWidth(round_to=8)",
        "from core.engine.options.width import Width\nx = Width if y else None",
        "hasattr(x, 'head_dim')",
        "getattr(x, 'round_to')",
        "goal == 'flap'",
        "x.pattern == y.pattern",
    ],
)
def test_what_does_not_ask_is_left_alone(source: str) -> None:
    assert not list(findings(_product(source)))


def test_the_product_defines_everything_that_is_looked_for() -> None:
    definitions = definitions_of(product())
    kinds = ("options", "members", "ids", "patterns", "descriptions")
    assert not [kind for kind in kinds if not getattr(definitions, kind)], "these moved: look for them where they are"


def _product(source: str) -> list[Source]:
    files = _PRODUCT | {"core/service/a.py": source}
    return [parsed(file, dedent(text)) for file, text in files.items()]
