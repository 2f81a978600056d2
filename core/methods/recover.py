"""Method `recover`, which prunes nothing: the pass measures the model and counts its zeros, then the model is trained.

Training with adapters follows Hu 2021 (arXiv:2106.09685), training with a teacher Hinton 2015 (arXiv:1503.02531).
"""

from core.methods.none import Identity


class Recover(Identity):
    """Identity; the job's recovery trains the model."""
