"""None: its description, and the parameters of methods that prune nothing."""

from typing import Any, Self

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue

from core.engine.options.propagation import PropagationOptions
from core.engine.removals.weights.options import LayerSelection
from core.methods.method_info import MethodInfo
from secateur_wire.methods import Needs


class NoParameters(LayerSelection, PropagationOptions):
    """Parameters of a method that prunes nothing: none may be set."""

    @model_validator(mode="after")
    def _as_they_are(self) -> Self:
        changed = [
            name
            for name, field in type(self).model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        ]
        if changed:
            raise ValueError(f"a method that prunes nothing takes no parameters: leave {', '.join(changed)} out")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "properties": {}}


INFO = MethodInfo(
    id="none",
    rank=145,
    title="No pruning",
    summary="Prunes nothing. Writes the model as it is in the forms and the dtype of the job's output, measures each, "
    "and checks it.",
    description="Removes nothing and trains nothing. It stores the model in a narrower dtype, or as files for other "
    "runtimes, such as GGUF, and measures what that costs. Compare pruned models with it: it makes a model smaller "
    "in a few minutes. Choose under Output what is written.",
    gains="The forms make the files smaller, not the method: bfloat16 takes half the bytes of float32, and a Q8_0 GGUF "
    "file about a quarter.",
    paper=None,
    task_families=("language-model",),
    patterns=(),
    needs=Needs(calibration=False, gradients=False, training=False),
    parameters=NoParameters,
)
