"""Recover: its description and parameters."""

from typing import Any, Self

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue

from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.cost import CostFacts, GradientCost
from core.methods.method_info import UNCHANGED, MethodInfo
from secateur_wire.methods import Needs


class RecoverParameters(LayerSelection, PropagationOptions):
    """Parameters of `recover`: none of its own, what it does is said in the job's `recovery`."""

    @model_validator(mode="after")
    def _as_they_are(self) -> Self:
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if changed:
            raise ValueError(f"recover prunes nothing and takes no parameters ({', '.join(changed)}): use recovery")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "properties": {}}


class RecoverCost(GradientCost[RecoverParameters]):
    """Cost of a pass that chooses nothing, before training with gradients."""

    def passes(self, facts: CostFacts[RecoverParameters]) -> int:
        return facts.tokens.calibration


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
    cost=RecoverCost(),
)
