"""Tensors of a model with one entry for each token: embeddings, heads and their biases. A description keeps them."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import TensorEntry


class VocabularyTable(BaseModel):
    """Tensor with `rows` entries, one for each token; each has so many parameters and takes so many bytes."""

    rows: int
    parameters: int
    bytes: int

    def with_rows(self, rows: int) -> "VocabularyTable":
        """Return the table of a model with fewer tokens."""
        return self.model_copy(update={"rows": min(rows, self.rows)})


def vocabulary_tables(family: Architecture, tensors: Mapping[str, TensorEntry]) -> list[VocabularyTable]:
    """Return the tables of the tensors, which are given by their names in the model."""
    return list(_tables(family, tensors))


def _tables(family: Architecture, tensors: Mapping[str, TensorEntry]) -> Iterator[VocabularyTable]:
    for name, entry in tensors.items():
        dimension = family.vocabulary_dimension(name)
        if dimension is not None and dimension < len(entry.shape) and entry.numel:
            rows = entry.shape[dimension]
            yield VocabularyTable(rows=rows, parameters=entry.numel // rows, bytes=entry.nbytes // rows)
