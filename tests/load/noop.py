"""A method that does nothing, known only where this module is loaded: by the API and the workers of the load run.

LOAD_FOLDER in the environment holds what the runs share: `runs.log`.
"""

import os
from pathlib import Path

from core.methods.descriptions.zeros import RandomParameters
from core.methods.method_info import MethodInfo
from core.methods.registry import METHODS
from secateur_wire.methods import Needs

NOOP = MethodInfo(
    id="noop",
    title="Nothing",
    summary="Does nothing.",
    description="Does nothing, for tests of what is around it.",
    gains="None.",
    paper=None,
    task_families=("language-model",),
    patterns=("unstructured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=RandomParameters,
    removes="weights",
)
METHODS[NOOP.id] = NOOP

FOLDER = Path(os.environ["LOAD_FOLDER"])
