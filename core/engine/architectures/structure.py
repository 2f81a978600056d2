"""Sizes of a model's layers that removable units depend on. A model's description keeps them."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field


class LayerShape(BaseModel):
    """Sizes of one decoder layer.

    `parameters` counts all parameters; the other fields are the sizes that the kinds of units read.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    parameters: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the numbers by which units are counted, such as channels and heads."""
        return self.__pydantic_extra__


class ModelStructure(BaseModel):
    """Layers of a model, and the facts of all layers that the kinds of units need."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int] = Field(init=False)

    layers: list[LayerShape]

    @property
    def facts(self) -> Mapping[str, bool | int]:
        """Return the facts of all layers that the kinds of units need, such as the parameters of one unit."""
        return self.__pydantic_extra__

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    def of_layers(self, layers: Iterable[int]) -> "ModelStructure":
        """Return the structure of a model with these layers alone."""
        return self.model_copy(update={"layers": [self.layers[layer] for layer in layers]})

    @property
    def is_uniform(self) -> bool:
        """Return True if all layers have one shape, where a layer without units of a kind is ignored for that kind."""
        return all(len(set(filter(None, each))) < 2 for each in self._sizes().values())

    @property
    def is_alike(self) -> bool:
        """Return True if all layers have one shape and the same kinds of units."""
        return all(len(set(each)) < 2 for each in self._sizes().values())

    def _sizes(self) -> dict[str, list[int]]:
        return {name: [layer.sizes[name] for layer in self.layers] for name in self.layers[0].sizes}
