"""Experts of a mixture: the facts of them that the engine needs, as an architecture has them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ExpertMatrix:
    """A parameter that stacks one matrix of every expert: [experts, outputs, inputs].

    `name` and its `bias`, [experts, outputs], are named within the experts' module. `parts` are the patterns of the
    keys by which files hold a single expert's matrix, in parts of as many outputs each, in order: `{}` stands for the
    layer, then for the expert. There are none where files hold the parameter as it is.
    """

    name: str
    bias: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experts:
    """The experts of a block: a module that is given tokens with the experts each goes to, and adds up what these give.

    `module` is its name within the block. `reading` multiplies the tokens, `giving` what becomes of its outputs.
    `transposed`: stacks are [experts, inputs, outputs]. Each token goes to `top_k` of them.
    """

    module: str
    reading: ExpertMatrix
    giving: ExpertMatrix
    transposed: bool
    top_k: int

    @property
    def matrices(self) -> tuple[ExpertMatrix, ExpertMatrix]:
        """Return the two stacks, in the order of their use."""
        return (self.reading, self.giving)

    def parameter(self, matrix: ExpertMatrix) -> str:
        """Return a stack's name within the block."""
        return f"{self.module}.{matrix.name}"
