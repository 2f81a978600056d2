"""Tensors of a model with one entry for each token: embeddings, heads and their biases. A description keeps them."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from core.engine.architectures.architecture import Architecture
from core.engine.checkpoints.safetensors_header import WEIGHT_BYTES, WEIGHT_DTYPES, TensorEntry


class VocabularyTable(BaseModel):
    """Tensor with an entry for each token, of so many parameters and bytes; `others` are no token's.

    A table of numbers, as of the experts that a token goes to, has no parameters.
    """

    tokens: int
    parameters: int
    bytes: int
    others: int = 0

    def of_tokens(self, tokens: int) -> "VocabularyTable":
        """Return the table of a model that keeps this number of tokens."""
        return self.model_copy(update={"tokens": min(tokens, self.tokens)})

    def in_dtype(self, dtype: str) -> "VocabularyTable":
        """Return the table with its parameters in a dtype; numbers stay as they are."""
        return self.model_copy(update={"bytes": self.parameters * WEIGHT_BYTES[dtype] or self.bytes})


def vocabulary_tables(
    family: Architecture, tensors: Mapping[str, TensorEntry], tokens: int
) -> Iterator[VocabularyTable]:
    """Yield the tables among the tensors, which are given by their names in the model, of a model with these tokens."""
    for name, entry in tensors.items():
        dimension = family.vocabulary_dimension(name)
        if dimension is not None and dimension < len(entry.shape) and entry.numel:
            rows = entry.shape[dimension]
            yield VocabularyTable(
                tokens=min(rows, tokens),
                parameters=entry.numel // rows if entry.dtype in WEIGHT_DTYPES else 0,
                bytes=entry.nbytes // rows,
                others=max(rows - tokens, 0),
            )
