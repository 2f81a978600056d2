"""Frontier: ADMM (Boža 2024, arXiv:2401.02938) at the rates and with the compensation its parameters ask for.

Its variant for a smaller model is `structured`'s.
"""

from core.methods.admm.method import ADMM
from core.methods.frontier.structured import StructuredFrontier

__all__ = ["Frontier", "StructuredFrontier"]


class Frontier(ADMM):
    """ADMM's mask and weights; what else there is to it, the pass does: two models side by side, and the refits."""
