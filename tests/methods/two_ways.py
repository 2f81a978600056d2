"""A method that is one thing with zeros and another structured, with a class for each in a module of its own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest

from core import methods
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS

TWO_WAYS = "two-ways"
_FILES = {
    "__init__.py": '"""Two ways."""',
    "info.py": '''
        """Two ways: its description and parameters."""

        from pydantic import Field

        from core.engine.removals.weights.options import LayerSelection
        from core.engine.options.propagation import PropagationOptions
        from core.methods.method_info import ZEROS, MethodInfo
        from core.methods.two_ways.structured_info import STRUCTURED
        from secateur_wire.methods import Needs


        class TwoWaysParameters(LayerSelection, PropagationOptions):
            """Parameters of `two-ways`."""

            first: int = Field(0, ge=0, le=1, description="The first weight that goes.")


        INFO = MethodInfo(
            id="two-ways",
            rank=36,
            title="Two ways",
            summary="Removes every other weight.",
            description="Removes every other weight.",
            gains=ZEROS,
            paper=None,
            task_families=("language-model",),
            patterns=("unstructured", "n:m", "structured"),
            needs=Needs(calibration=True, gradients=False, training=False),
            parameters=TwoWaysParameters,
            removes="weights",
            variants={"structured": STRUCTURED},
        )
    ''',
    "structured_info.py": '''
        """Two ways, structured: its description and parameters."""

        from pydantic import Field

        from core.engine.removals.widths.options import WidthOptions
        from core.methods.method_info import SMALLER, Variant
        from secateur_wire.methods import Needs


        class StructuredParameters(WidthOptions):
            """Parameters of `two-ways` with pattern structured."""

            last: bool = Field(True, description="Whether the last units go, or the first.")

            def forwards(self, description, share, calibration, window):
                """Return the tokens of a method that reads the text a thousand times."""
                return 1000 * calibration


        STRUCTURED = Variant(
            description="Removes the last heads and channels.",
            gains=SMALLER,
            needs=Needs(calibration=True, gradients=False, training=False),
            parameters=StructuredParameters,
            removes="widths",
        )
    ''',
    "method.py": '''
        """Two ways, 2026."""

        from core.engine.pruning.input_statistics import Statistic
        from core.engine.pruning.protocols.layerwise import Method
        from core.methods.two_ways.structured import TwoWaysStructured

        __all__ = ["TwoWays", "TwoWaysStructured"]


        class TwoWays(Method):
            """Removal of every other column."""

            statistic = Statistic.NONE

            def __init__(self, parameters):
                self.first = parameters.first

            def prune(self, linears, inputs, note):
                pruned = [linear.weight_OI.clone() for linear in linears]
                for weight_OI in pruned:
                    weight_OI[:, self.first :: 2] = 0
                return pruned
    ''',
    "structured.py": '''
        """Two ways, structured."""

        import torch

        from core.engine.pruning.protocols.units import UnitMethod


        class TwoWaysStructured(UnitMethod):
            """Removal of units by their place."""

            weight_reads = 0

            def __init__(self, parameters):
                self.sign = -1 if parameters.last else 1

            def select(self, context):
                return context.keep_highest(
                    [
                        {each.kind: self.sign * torch.arange(each.units) for each in context.unit_sets(layer)}
                        for layer in range(context.layers)
                    ]
                )
    ''',
}


def write_method(place: Path) -> Path:
    """Write the method's folder into a place, which is returned."""
    folder = place / "two_ways"
    folder.mkdir()
    for file, source in _FILES.items():
        (folder / file).write_text(dedent(source))
    return place


@contextmanager
def _known_here(place: Path) -> Iterator[MethodInfo]:
    """Make the method of a folder known in the test's process, as it is in a new one."""
    package = f"{methods.__name__}.two_ways"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(place)])
        info = import_module(f"{package}.info").INFO
        patch.setitem(METHODS, info.id, info)
        yield info
    for module in [each for each in sys.modules if each == package or each.startswith(f"{package}.")]:
        del sys.modules[module]
    delattr(methods, "two_ways")


@pytest.fixture
def two_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MethodInfo]:
    """The method, known while a test runs."""
    with _known_here(write_method(tmp_path_factory.mktemp("more"))) as info:
        yield info
