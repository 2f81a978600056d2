"""Method `vocabulary`: tokens go before the pass, which leaves every layer as it is.

Removing the tokens that texts do not use follows Abdaoui, Pradel and Sigel 2020 (arXiv:2010.05609).
"""

from core.engine.options.base import MethodParameters
from core.methods.descriptions.unpruned import NoParameters
from core.methods.none import Identity


class KeepLayers(Identity):
    """Identity: no layer changes."""

    def __init__(self, parameters: MethodParameters) -> None:
        super().__init__(NoParameters())
