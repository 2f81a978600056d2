"""Options of methods that remove tokens from the vocabulary."""

from core.engine.options.axes import MethodParameters
from secateur_wire.job_body import VocabularyChoice


class VocabularyOptions(MethodParameters, VocabularyChoice):
    """Options of methods that remove tokens from the vocabulary: those of the body's field `vocabulary`."""
