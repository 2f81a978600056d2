"""Sizes of a model's layers, as far as units can be removed from them: facts that a description of the model keeps."""

from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field


class LayerShape(BaseModel):
    """One decoder layer.

    `parameters` counts all of them; the further numbers are its sizes, as each kind of unit reads them.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, int] = Field(init=False)

    parameters: int

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the numbers of channels, heads and whatever else units are counted by."""
        return self.__pydantic_extra__


class ModelStructure(BaseModel):
    """The layers of a model, and as further fields what each kind of unit must know of all of them."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int] = Field(init=False)

    layers: list[LayerShape]

    @property
    def facts(self) -> Mapping[str, bool | int]:
        """Return what kinds of units know of all layers, as the parameters of one unit."""
        return self.__pydantic_extra__

    @property
    def parameters(self) -> int:
        """Return the parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    def of_layers(self, layers: Iterable[int]) -> "ModelStructure":
        """Return the structure of a model that has these layers alone."""
        return self.model_copy(update={"layers": [self.layers[layer] for layer in layers]})

    @property
    def is_uniform(self) -> bool:
        """Return whether all layers have one shape, but for what some have nothing of."""
        return all(len(set(filter(None, each))) < 2 for each in self._sizes().values())

    @property
    def is_alike(self) -> bool:
        """Return whether all layers have one shape, and what one of them has."""
        return all(len(set(each)) < 2 for each in self._sizes().values())

    def _sizes(self) -> dict[str, list[int]]:
        return {name: [layer.sizes[name] for layer in self.layers] for name in self.layers[0].sizes}
