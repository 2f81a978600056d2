"""Frontier: ADMM (Boža 2024, arXiv:2401.02938) at the rates and with the compensation that its parameters ask for."""

from core.methods.admm.method import ADMM


class Frontier(ADMM):
    """ADMM's mask and weights; what else there is to it, the pass does: two models side by side, and the refits."""
