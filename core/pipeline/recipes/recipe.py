"""Recipe of one job: the checked request with every default filled in."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, Field, JsonValue, SerializeAsAny, ValidationError, ValidationInfo, field_validator

from core.engine.cuts import Removal
from core.engine.exporters.registry import ADDED, OFFERED
from core.engine.options.axes import MethodParameters
from core.engine.quantization.settings import ROUNDINGS, reads_inputs
from core.engine.recovery.request import RECOVERIES, Recovery
from core.methods.registry import get_method, parse_parameters
from core.pipeline.recipes.request import ResolvedRequest, is_chosen_by_cost
from core.validation import RegisteredId, invalid_request
from secateur_wire import job_body as wire
from secateur_wire.gone import without_unasked
from secateur_wire.job_body import Calibration, Evaluation, Gates, JobBody, Target, Vocabulary, VocabularyChoice
from secateur_wire.requests import inherited


def _restored_forms() -> str:
    """Return the forms that the client restores, as words that continue a summary of each form."""
    described = [form for form, each in OFFERED.items() if each.summary]
    restored = [form for form, each in OFFERED.items() if each.replaces_weights]
    return "both" if restored == described and len(restored) == 2 else " and ".join(restored)


class Export(wire.Export):
    __doc__ = wire.Export.__doc__

    format: Annotated[str, RegisteredId(ADDED)] = Field(
        description=" ".join(each.summary for each in ADDED.values()),
    )
    types: list[Annotated[str, RegisteredId(dict.fromkeys(each for form in ADDED.values() for each in form.types))]] = (
        inherited(wire.Export, "types")
    )


class Quantization(wire.Quantization, frozen=True):
    __doc__ = wire.Quantization.__doc__

    rounding: Annotated[str, RegisteredId(ROUNDINGS)] | None = inherited(
        wire.Quantization,
        "rounding",
        description=f"{' '.join(each.summary for each in ROUNDINGS.values())} Unset: gptq if the job has a calibration "
        "text, or else nearest.",
    )


class Output(wire.Output):
    __doc__ = wire.Output.__doc__

    format: Annotated[str, RegisteredId(OFFERED)] = inherited(
        wire.Output,
        "format",
        description=f"{' '.join(each.summary for each in OFFERED.values() if each.summary)} "
        f"`secateur download --unpack` restores {_restored_forms()} bit by bit.",
    )
    quantization: Quantization | None = inherited(wire.Output, "quantization")
    exports: list[Export] = inherited(wire.Output, "exports")


def stores_dense_model(method: str, vocabulary: Vocabulary | None) -> bool:
    """Return whether a job's files are the dense model's in other forms: no weight is changed, and no token goes."""
    return get_method(method).only_stores and vocabulary is None


class Recipe(BaseModel, frozen=True):
    """Complete description of a job, the same for every worker; only choices that depend on the device are left open.

    A job's row stores the recipe as JSON (`body`), and `load` makes a recipe from it. It was checked against its model
    when the job was submitted, and is not checked again.
    """

    model: str
    method: str
    sparsity: float | None
    pattern: str
    target: Target | None = None
    parameters: SerializeAsAny[MethodParameters]
    calibration: Calibration | None
    vocabulary: Vocabulary | None = Field(None, exclude_if=lambda vocabulary: vocabulary is None)
    evaluation: Evaluation
    recovery: Recovery | None = None
    gates: Gates
    output: Output
    queue: str
    priority: int
    time_limit_seconds: float | None = None
    metadata: dict[str, str]

    @field_validator("parameters", mode="before")
    @classmethod
    def _of_the_method(cls, given: object, info: ValidationInfo) -> object:
        """Parse JSON as the method's own class of parameters for the pattern; raises InvalidParameters."""
        if not isinstance(given, Mapping):
            return given
        return parse_parameters(info.data.get("method", ""), given, info.data.get("pattern"))

    @classmethod
    def load(cls, body: Mapping[str, object]) -> Self:
        """Make the recipe from a job's row, which an earlier release may have written.

        Later fields get their default, and fields that have left are dropped where they have theirs.

        Raises a kind of InvalidRequest if this release cannot run the recipe.
        """
        try:
            return cls.model_validate(without_unasked(body))
        except ValidationError as error:
            raise invalid_request(error) from None

    @property
    def request(self) -> ResolvedRequest:
        """Return the part of the recipe that decides which weights go, as it was checked."""
        return ResolvedRequest(
            self.method,
            self.pattern,
            self.sparsity,
            self.parameters,
            layout=self.output.layout,
            at_least=self.target is not None,
        )

    @property
    def is_chosen_by_cost(self) -> bool:
        """Return True if what goes follows from costs of parts, which a worker looks up before it prunes."""
        return is_chosen_by_cost(self.target, self.parameters, self.output.layout)

    @property
    def is_searched(self) -> bool:
        """Return True if a worker times models, or looks costs up, before it prunes."""
        return self.is_chosen_by_cost or (self.target is not None and self.target.is_time)

    @property
    def removal(self) -> Removal | None:
        """Return the kind of removal, None where nothing is pruned."""
        return self.request.removal

    @property
    def vocabulary_choice(self) -> VocabularyChoice | None:
        """Return which tokens stay: as the method's parameters or the body's field say; None where all do."""
        return self.vocabulary or self.parameters.vocabulary_choice

    @property
    def shrinks(self) -> bool:
        """Return whether parts of the model go, so that it gets smaller."""
        return self.request.shrinks

    @property
    def reads_calibration(self) -> bool:
        """Return whether a stage reads the calibration text as windows of tokens: to prune, to round or to weight."""
        is_pruned = self.measures or (self.removal is not None and not self.removal.reads_texts)
        return is_pruned or self.rounds_by_inputs or bool(self.output.importance_matrix)

    @property
    def rounds_by_inputs(self) -> bool:
        """Return whether weights are rounded by statistics of what their layers read."""
        return self.output.quantization is not None and reads_inputs(self.output.quantization)

    @property
    def is_rounded_by_pass(self) -> bool:
        """Return whether the pass that prunes also quantises: where it keeps all shapes, and no training follows."""
        return self.output.quantization is not None and self.recovery is None and self.request.pass_removal.zeroes

    @property
    def is_rounded_at_last(self) -> bool:
        """Return whether a pass of its own quantises what pruning and training made."""
        return self.output.quantization is not None and not self.is_rounded_by_pass

    @property
    def measures(self) -> bool:
        """Return whether the job prunes nothing and only measures the model."""
        return get_method(self.method).measures

    @property
    def stores_dense_model(self) -> bool:
        """Return whether the artifact is the dense model, only stored in another form."""
        return stores_dense_model(self.method, self.vocabulary)

    @property
    def times_exports(self) -> bool:
        """Return whether added files are timed: if parts of the model went, or nothing was pruned."""
        return bool(self.output.exports) and (self.shrinks or get_method(self.method).only_stores)

    @property
    def export_types(self) -> dict[str, list[str]]:
        """Return the types of the files that are added to the artifact, by form."""
        return {each.format: list(each.types) for each in self.output.exports}

    @property
    def timed_length(self) -> int:
        """Return the number of tokens in the sequence that a language model is timed on."""
        parts = (self.calibration, self.evaluation)
        return next((part.sequence_length for part in parts if part and part.sequence_length), 512)

    def body(self) -> dict[str, JsonValue]:
        """Return the recipe as JSON: a job with this body does the same again."""
        return self.model_dump(mode="json")

    def shown_body(self) -> dict[str, JsonValue]:
        """Return the body as people write it: without the values that a new job gets if they are left out."""
        body, recovery = self.model_dump(mode="json", exclude_defaults=True), self.recovery
        if recovery and recovery.lora is None and RECOVERIES[recovery.method].adapters == "unless null":
            # Without the null, adapters are trained.
            body |= {"recovery": recovery.model_dump(mode="json", exclude_defaults=True) | {"lora": None}}
        usual = {name: field.default for name, field in JobBody.model_fields.items()}
        return {name: value for name, value in body.items() if value not in (None, {}, usual[name])}
