"""Frontier: ADMM (Boža 2024, arXiv:2401.02938) with an allocation of rates, a refit and two-stream propagation.

The variant that makes a model smaller is in `structured`.
"""

from core.methods.admm import ADMM


class Frontier(ADMM):
    """ADMM's mask and weights; the pass propagates the dense and the pruned model side by side, and refits layers."""
