"""Methods that keep every layer as it is: descriptions and parameters."""

from typing import Any, Self

from pydantic import GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue

from core.engine.options.axes import MethodParameters, PropagationOptions, SensitivityOptions
from core.engine.removals.vocabulary import VocabularyOptions
from core.engine.removals.weights import LayerSelection
from core.methods.descriptions.zeros import HAN_2015
from core.methods.method_info import BOTH_TASKS, MethodInfo, PlanOffer, arxiv
from secateur_wire.methods import Needs


class VocabularyParameters(VocabularyOptions):
    """Parameters of `vocabulary`."""


VOCABULARY = MethodInfo(
    id="vocabulary",
    title="Vocabulary",
    summary="Removes tokens that the texts do not use, with their rows of the embedding and the head.",
    description="Removes tokens that the calibration text, and further texts, do not use. Text that needs only kept "
    "tokens is read and predicted exactly as before; other text takes more tokens. In small models the "
    "embedding is the largest part: it has a fifth to more than half of the parameters. Name all the texts "
    "that matter: a language that they lack becomes slow and bad.",
    gains="The embedding and the head get smaller, and with them the file and the memory. In small models writing gets "
    "faster too, because the head is read for each token.",
    paper=arxiv("2010.05609", "Load What You Need: Smaller Versions of Multilingual BERT", "Abdaoui, Pradel, Sigel"),
    patterns=("structured",),
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


NONE = MethodInfo(
    id="none",
    title="No pruning",
    summary="Prunes nothing. Writes the model as it is in the forms and the dtype of the job's output, measures each, "
    "and checks it.",
    description="Removes nothing and trains nothing. It stores the model in a narrower dtype, or as files for other "
    "runtimes, such as GGUF, and measures what that costs. Compare pruned models with it: it makes a model smaller "
    "in a few minutes. Choose under Output what is written.",
    gains="The forms make the files smaller, not the method: bfloat16 takes half the bytes of float32, and a Q8_0 GGUF "
    "file about a quarter.",
    patterns=(),
    parameters=NoParameters,
)


class RecoverParameters(NoParameters):
    """Parameters of `recover`: none of its own, what it does is said in the job's `recovery`."""


RECOVER = MethodInfo(
    id="recover",
    title="Recover",
    summary="Prunes nothing. Trains a model that was pruned before, or any other, and keeps its zeros. The job's "
    "recovery says what is trained, and how.",
    description="Removes nothing. Trains a model that was pruned before, to win back quality, and keeps every zero. It "
    "trains all weights, low-rank adapters, or towards the predictions of the dense model. Choose under "
    "Recovery what is trained and on which text.",
    task_families=BOTH_TASKS,
    patterns=(),
    needs=Needs(calibration=False, gradients=True, training=True),
    parameters=RecoverParameters,
    holds="model",
)


class SensitivityParameters(SensitivityOptions, MethodParameters):
    """Parameters of `sensitivity`."""


SENSITIVITY = MethodInfo(
    id="sensitivity",
    measures=True,
    title="Sensitivity",
    summary="Prunes nothing. Measures how the loss rises with the pruning rate of each layer alone, for any method "
    "that makes weights zero. A later job can take its rates from the result.",
    description="Removes nothing and makes no model. It prunes one layer at several rates, measures how much the loss "
    "rises, puts the layer back, and goes on to the next. The curves show which layers can lose much. A "
    "later job with the parameter allocation set to job:ID spreads its sparsity by them.",
    paper=HAN_2015,
    task_families=BOTH_TASKS,
    patterns=(),
    parameters=SensitivityParameters,
    offers=(
        PlanOffer(
            goals=("sensitivity",),
            place=10,
            reason="wanda is the cheapest method that looks at activations",
            parameters={"method": "wanda"},
        ),
        *(
            PlanOffer(
                goals=("sensitivity",),
                place=20,
                reason="magnitude can be measured on any model",
                task=task,
                parameters={"method": "magnitude"},
            )
            for task in ("language-model", "image-classification")
        ),
    ),
)
