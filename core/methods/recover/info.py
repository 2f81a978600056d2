"""Recover: its description and parameters."""

from core.methods.method_info import UNCHANGED, MethodInfo
from core.methods.none.info import NoParameters
from secateur_wire.methods import Needs


class RecoverParameters(NoParameters):
    """Parameters of `recover`: none of its own, what it does is said in the job's `recovery`."""


INFO = MethodInfo(
    id="recover",
    rank=140,
    title="Recover",
    summary="Prunes nothing. Trains a model that was pruned before, or any other, and keeps its zeros. The job's "
    "recovery says what is trained, and how.",
    description="Removes nothing. Trains a model that was pruned before, to win back quality, and keeps every zero. It "
    "trains all weights, low-rank adapters, or towards the predictions of the dense model. Choose under "
    "Recovery what is trained and on which text.",
    gains=UNCHANGED,
    paper=None,
    task_families=("language-model", "image-classification"),
    patterns=(),
    needs=Needs(calibration=False, gradients=True, training=True),
    parameters=RecoverParameters,
    holds="model",
)
