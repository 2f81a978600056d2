"""Vocabulary: its description and parameters."""

from core.engine.removals.vocabulary.options import VocabularyOptions
from core.methods.method_info import MethodInfo
from core.methods.plan_offer import PlanOffer
from secateur_wire.methods import Needs, Paper


class VocabularyParameters(VocabularyOptions):
    """Parameters of `vocabulary`."""


INFO = MethodInfo(
    id="vocabulary",
    rank=135,
    title="Vocabulary",
    summary="Removes tokens that the texts do not use, with their rows of the embedding and the head.",
    description="Removes tokens that the calibration text, and further texts, do not use. Text that needs only kept "
    "tokens is read and predicted exactly as before; other text takes more tokens. In small models the "
    "embedding is the largest part: it has a fifth to more than half of the parameters. Name all the texts "
    "that matter: a language that they lack becomes slow and bad.",
    gains="The embedding and the head get smaller, and with them the file and the memory. In small models writing gets "
    "faster too, because the head is read for each token.",
    paper=Paper(
        title="Load What You Need: Smaller Versions of Multilingual BERT",
        authors="Abdaoui, Pradel, Sigel",
        year=2020,
        url="https://arxiv.org/abs/2010.05609",
    ),
    task_families=("language-model",),
    patterns=("structured",),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=VocabularyParameters,
    removes="vocabulary",
    offers=(
        PlanOffer(
            goals=("speed", "size"),
            place=1,
            reason="tokens that your text does not use cost nothing to remove: text like it is read and predicted as "
            "before",
            pattern="structured",
            parameters={"tokens": "auto"},
        ),
    ),
)
