"""Body of a job: the request that clients write and the server reads.

An id of a server's registry (methods, recoveries, forms of output) is a text here; only the server knows the valid
ones.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Required, Self, TypeAlias, TypedDict, TypeVar

from pydantic import BaseModel, Field, StringConstraints, field_validator, model_validator

from secateur_wire.chat import Answers, CountedTokens, Shape
from secateur_wire.recovery import Recovery
from secateur_wire.requests import LONGEST_TEXTS, LabelName, RequestObject, listed_bytes, spelled

Layout: TypeAlias = Literal["uniform", "per_layer"]
StoredDtype: TypeAlias = Literal["keep", "bfloat16", "float16"]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=300)]
_Samples = Annotated[int, Field(ge=1, le=1_000_000)]
_Prompt = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
_SequenceLength = Annotated[int, Field(ge=2, le=1_048_576)]
_Size = Annotated[int, Field(ge=1, le=10**18)]
_Label = Annotated[str, StringConstraints(max_length=500)]
_Kept = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
_Script = Annotated[str, StringConstraints(min_length=1, max_length=60)]
_Part = TypeVar("_Part")

MOST_LABELS = 50
"""Maximum number of labels in a job's metadata."""


class Calibration(RequestObject):
    """Calibration set: `samples` sequences (null: all) of `sequence_length` tokens, or so many images."""

    dataset: Reference = Field(
        description="The text to calibrate on: a registered name, one of the hub (wikitext, c4, "
        "org/name[@revision][:config[:split]]), or self: text that the model writes itself. For image classifiers: a "
        "set of labelled images."
    )
    samples: _Samples | None = 128
    sequence_length: _SequenceLength | None = Field(
        None, description="Tokens in a sequence. Unset: 2048, or the model's context if shorter."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    generated: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Language models: number of sequences that the model writes itself, in addition to the "
        "dataset's, so that quality on other texts is kept too. Unset: none; with frontier's budget quick, a quarter "
        "of the samples, at most 64; with thorough, three times as many in addition, at most 96.",
    )
    shape: Shape | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Shape of the text that the model writes itself (self, or generated). text: running text, the "
        "default. chat: conversations in the model's own chat template, of a question and an answer, both its own.",
    )
    answers: Answers | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Conversations: whose answers are used. dataset: those of the set, the default. self: the model "
        "answers each conversation's last question itself; the set may be of prompts alone.",
    )
    counted_tokens: CountedTokens | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Conversations: the tokens of which the method takes statistics and losses. all: the default. "
        "assistant: those with which the model predicts the assistant's words; it reads the others too.",
    )


class AnswerEvaluation(RequestObject):
    """Questions that the dense and the pruned model answer, always with the likeliest token.

    The questions are `samples` of each set (null: all): the last question of each conversation, or the beginning of
    each text.
    """

    datasets: Annotated[list[Reference], Field(min_length=1, max_length=20)] = Field(
        description="Sets of questions: conversations or prompts, which the model's chat template renders, or texts, "
        "whose beginnings are continued."
    )
    samples: _Samples | None = 32
    max_new_tokens: Annotated[int, Field(ge=1, le=8192)] = Field(
        128, description="Largest number of tokens of an answer, with the thought before it."
    )
    check: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None,
        description="Check by which an answer is compared with the set's own answer, where a row names no check. "
        "Unset: such rows have no score.",
    )


class Evaluation(RequestObject):
    """Measurements of the dense and the pruned model.

    A language model's perplexity is measured on `samples` windows (null: all) of each text. A classifier's accuracy and
    loss are measured on `samples` images of each set. The zero-shot accuracy on a task is measured on its first
    `task_limit` questions (null: all). Both models continue the `prompts`, for people to read, and answer the questions
    of `answers`.
    """

    datasets: Annotated[list[Reference], Field(max_length=20)] = Field(default_factory=list)
    sequence_length: _SequenceLength | None = Field(
        None,
        description="Tokens in a window of text. Unset: the calibration's, else 2048, or the model's context "
        "if shorter.",
    )
    samples: _Samples | None = None
    shape: Shape | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Shape of the text that the model writes itself (self). text: running text, the default. chat: "
        "conversations in the model's own chat template.",
    )
    counted_tokens: CountedTokens | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Conversations: the tokens whose prediction is measured. assistant: the assistant's words alone, "
        "the default. all: the turns of everybody, and the template's own words.",
    )
    tasks: Annotated[list[Reference], Field(max_length=50)] = Field(
        default_factory=list,
        description="Tasks of lm-evaluation-harness, asked without examples unless num_fewshot is given: boolq, piqa, "
        "hellaswag, winogrande, arc_easy, arc_challenge, openbookqa.",
    )
    task_limit: Annotated[int, Field(ge=2, le=1_000_000)] | None = None
    num_fewshot: Annotated[int, Field(ge=0, le=25)] = Field(
        0,
        exclude_if=lambda count: count == 0,
        description="Tasks: number of solved examples before each question. They are other questions of the same "
        "split, drawn as lm-evaluation-harness does, and the same for both models.",
    )
    prompts: Annotated[list[_Prompt], Field(max_length=8)] = Field(
        default_factory=list,
        description="Texts that the dense and the pruned model continue, always with the likeliest token; the "
        "report's `generations` shows both. They are used as they are, without a chat template. Language models only.",
    )
    prompt_tokens: Annotated[int, Field(ge=1, le=256)] = Field(
        48, description="Largest number of new tokens after each prompt. A model may end its text earlier."
    )
    answers: AnswerEvaluation | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Questions whose answers are compared: how far the pruned model is from the dense one along the "
        "dense model's own answers, how long it answers, and how many answers pass a check. Language models only.",
    )


class VocabularyChoice(BaseModel):
    """Tokens that a language model keeps.

    Their number is `tokens`, or follows from `amount`.
    """

    tokens: Annotated[int, Field(ge=1, le=10**9)] | Literal["auto"] | None = Field(
        None,
        description="Number of tokens that stay. auto: all tokens that the texts use, and those that must stay.",
    )
    amount: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="In place of tokens: the share of the vocabulary's tokens to remove."
    )
    keep: Annotated[list[_Kept], Field(max_length=10_000)] = Field(
        default_factory=list,
        description="Texts that take as many tokens as before, such as names and commands: at most 65,536 bytes "
        "together. Longer texts belong in a data set, named in datasets.",
    )
    scripts: Annotated[list[_Script], Field(max_length=200)] | None = Field(
        None,
        description="Scripts, such as Latin or Cyrillic, whose tokens fill the number up. Unset: those of the texts.",
    )
    round_to: Annotated[int, Field(ge=1, le=4096)] = Field(
        64, description="The number of tokens is a multiple of this. Tokens are added for it, never empty rows."
    )
    datasets: Annotated[list[Reference], Field(max_length=20)] = Field(
        default_factory=list, description="Further texts whose tokens are counted, besides the calibration text."
    )

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if self.tokens is not None and self.amount is not None:
            raise ValueError("tokens and amount both say how many tokens stay: leave one of them out")
        return self

    def number_of(self, vocabulary_size: int) -> int | None:
        """Return the number of tokens that stay, before it is rounded; None where the texts decide."""
        if self.amount is not None:
            return max(1, round((1 - self.amount) * vocabulary_size))
        return None if self.tokens == "auto" else self.tokens


class Vocabulary(VocabularyChoice, RequestObject, frozen=True):
    __doc__ = f'{VocabularyChoice.__doc__}    With neither, or as the word "auto": all tokens that the texts use.\n'

    @model_validator(mode="before")
    @classmethod
    def _as_texts_use(cls, given: object) -> object:
        if given == "auto":
            return {"tokens": "auto"}
        if isinstance(given, Mapping) and given.get("tokens") is None and given.get("amount") is None:
            return {**given, "tokens": "auto"}
        return given


class ModelLimits(RequestObject):
    """Limits of the resulting model. A limit whose figure could not be measured counts as missed."""

    max_perplexity_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest perplexity allowed, as pruned / dense, on every evaluation dataset."
    )
    max_bits_per_byte_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Largest bits per byte allowed, as pruned / dense, on every evaluation dataset. For the same text "
        "it is the ratio of the logarithms of the perplexities.",
    )
    max_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="Image classifiers: how much top-1 accuracy may fall below the dense model's, on every "
        "evaluation dataset. 0.01 is one percentage point.",
    )
    max_task_accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="How much accuracy may fall on every zero-shot task, and in the mean of several."
    )
    max_answer_kl: Annotated[float, Field(gt=0)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Largest mean KL divergence allowed along the dense model's own answers, in nats a token, on every "
        "set of evaluation.answers.",
    )
    max_length_ratio: Annotated[float, Field(ge=1)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Largest factor allowed between the lengths of the pruned and the dense model's answers, on every "
        "set of evaluation.answers: 1.25 allows 0.8 to 1.25 times the dense length.",
    )
    max_latency_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None,
        description="Largest time allowed, as pruned / dense. Leave room for the spread of timings, which the "
        "report gives.",
    )
    max_bytes: Annotated[int, Field(gt=0)] | None = Field(
        None,
        description="Largest number of bytes of the weights as they are stored; if packed or hashed, in that form.",
    )
    max_bytes_ratio: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Largest size allowed, as stored / dense bytes of the weights."
    )
    max_parameters: Annotated[int, Field(gt=0)] | None = Field(
        None, description="Largest number of parameters that are not zero."
    )


class Gates(ModelLimits):
    """Limits that a job must meet to succeed. A gate whose figure could not be measured counts as missed."""

    max_export_kl: Annotated[float, Field(gt=0)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Largest mean KL divergence between the predictions of a file of output.exports and the "
        "artifact's, in nats: 0 means equal, and 1 nat is a factor e in probability.",
    )
    beats_dense_at_equal_bytes: bool | None = Field(
        None,
        exclude_if=lambda value: not value,
        description="Whether the artifact must be no worse than the best dense file of no more bytes, beyond the error "
        "of the difference, on every evaluation dataset. An unknown difference counts as missed. Language models only.",
    )


class Export(RequestObject):
    """A form that is added to the verified artifact, with a file for each type."""

    format: str
    types: list[Annotated[str, StringConstraints(max_length=100)]] = Field(min_length=1, max_length=20)


class Quantization(RequestObject, frozen=True):
    """Codes of few bits, and scales that multiply them, in place of the weights of the blocks' linear layers.

    Codes are symmetric around zero; embeddings, output head and norms keep their dtype. The files are those of
    compressed-tensors (`pack-quantized`), without the codes of zeros where `format` is packed.
    """

    scheme: Literal["int8", "int4"] = Field(
        description="int8: 8 bits, and a scale for each output channel. int4: 4 bits, and a scale for each output "
        "channel in each group of `group_size` inputs."
    )
    group_size: Annotated[int, Field(ge=32, le=128)] | None = Field(
        None,
        description="int4: number of inputs that share a scale: 128, 64 or 32. Unset: the largest that divides the "
        "number of inputs of every layer.",
    )
    rounding: str | None = Field(
        None, description="How codes are chosen. Unset: gptq if the job has a calibration text, or else nearest."
    )


class Output(RequestObject):
    """The form of the checkpoint."""

    format: str = "dense"
    compression: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="hashed: number of values stored for each weight of a linear layer, zeros included. Unset: 1/8.",
    )
    dtype: StoredDtype = Field(
        "keep",
        description="Dtype of the artifact's weights. keep: the model's own. bfloat16, float16: wider weights are "
        "rounded to it, and the job measures the rounded weights. float16 is refused where a weight is beyond its "
        "range. Language models only.",
    )
    layout: Layout = Field(
        "uniform",
        description="Whether layers keep the same shape when heads and channels are removed. uniform: every layer "
        "gets the same shape, and the model loads everywhere. per_layer: shapes may differ, and `from_pretrained` "
        "needs trust_remote_code=True. No effect where nothing gets narrower.",
    )
    quantization: Quantization | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Store the blocks' linear layers in 8 or 4 bits. All figures are then those of the quantised "
        "model. Language models only.",
    )
    exports: Annotated[Sequence[Export], Field(max_length=20)] = Field(
        default_factory=list,
        exclude_if=lambda value: not value,
        description="Files to add to the artifact, such as GGUF. Each is run in its own runtime before the job ends. "
        "Language models only.",
    )
    importance_matrix: bool | None = Field(
        None,
        exclude_if=lambda value: value is None,
        description="Whether GGUF types below 8 bits are rounded with an importance matrix: the mean square of each "
        "input of the artifact's linear layers on the calibration text. Unset: if the job has a calibration text.",
    )


def _is_none(value: object) -> bool:
    return value is None


_LIMITS = ("parameters", "bytes", "latency_ratio", "decode_ratio", "memory_bytes")
"""Fields of a target, of which one is given."""


class Target(RequestObject, frozen=True):
    """Limit of the artifact: exactly one field besides `engine`. The others are left out in answers."""

    parameters: _Size | None = Field(
        None,
        exclude_if=_is_none,
        description="Largest number of parameters. With structured methods all of the artifact's; else those that "
        "are not zero.",
    )
    bytes: _Size | None = Field(
        None,
        exclude_if=_is_none,
        description="Largest number of bytes of the artifact's tensors, as `metrics.bytes.artifact` counts them; if "
        "packed, as `report.packed.bound_bytes` does. Headers of the files come on top, some hundred bytes a tensor.",
    )
    latency_ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        exclude_if=_is_none,
        description="Structured methods: largest pruned / dense time of a prefill, which is the forward pass over a "
        "whole sequence, measured on the job's own worker as in `metrics.latency`. The worker searches for the "
        "sparsity.",
    )
    decode_ratio: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        exclude_if=_is_none,
        description="Structured methods: largest pruned / dense time of a decode step, which generates one token with "
        "the cache. Measured as `latency_ratio` is.",
    )
    memory_bytes: _Size | None = Field(
        None,
        exclude_if=_is_none,
        description="frontier with pattern structured: largest number of bytes of the artifact's tensors and of the "
        "cache of keys and values of one sequence, as long as those it is calibrated on, in the artifact's dtype.",
    )
    engine: Annotated[str, Field(max_length=64)] | None = Field(
        None,
        exclude_if=_is_none,
        description="Engine in which a `latency_ratio` or `decode_ratio` counts, for frontier with pattern structured: "
        "transformers, llama-cpp, openvino or onnxruntime. Of the last three, `output.exports` must have the files. "
        "Unset: transformers.",
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(getattr(self, name) is not None for name in _LIMITS) != 1:
            raise ValueError(f'name exactly one of {", ".join(_LIMITS)}, such as {{"parameters": 1e8}}')
        if self.engine is not None and not self.is_time:
            raise ValueError("engine is for latency_ratio and decode_ratio alone: leave it out")
        return self

    @property
    def kind(self) -> str:
        return next(name for name in _LIMITS if getattr(self, name) is not None)

    @property
    def is_time(self) -> bool:
        """Return True if the limit is a ratio of times."""
        return self.latency_ratio is not None or self.decode_ratio is not None

    @property
    def limit(self) -> float:
        limit: float = getattr(self, self.kind)
        return limit


class JobFields(TypedDict, total=False):
    """Fields of a `JobBody` as keyword arguments, with its parts as mappings."""

    model: Required[str]
    method: Required[str]
    sparsity: float | None
    pattern: str | None
    target: Mapping[str, Any] | None
    parameters: Mapping[str, Any]
    calibration: Mapping[str, Any] | None
    vocabulary: Mapping[str, Any] | Literal["auto"] | None
    evaluation: Mapping[str, Any]
    recovery: Mapping[str, Any] | None
    gates: Mapping[str, Any]
    output: Mapping[str, Any]
    queue: str
    priority: int
    time_limit_seconds: float | None
    metadata: Mapping[str, str]


class JobBody(RequestObject):
    """A job to run. See /v1/methods for methods, their patterns and parameters."""

    model: Reference = Field(
        description="The model: a registered name, org/name[@revision] on the hub, or job:ID for the artifact of a job."
    )
    method: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    sparsity: float | None = Field(
        None,
        description="Share to remove: of the prunable weights, which become zero, or with structured methods of the "
        "model's parameters. Leave it out with a pattern n:m, which fixes it, and with a target, from which it is "
        "computed or, for a latency, searched for.",
    )
    pattern: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = Field(
        None,
        description="unstructured: zeros anywhere. n:m, such as 2:4: n of every m neighbouring weights stay, "
        "the others become zero. structured: heads, channels or layers are removed. Unset: the method's first "
        "pattern.",
    )
    target: Target | None = Field(
        None,
        description="In place of sparsity: an upper bound for the artifact. Not with n:m, which fixes the sparsity.",
    )
    parameters: dict[str, Any] = Field(default_factory=dict)
    calibration: Calibration | None = None
    vocabulary: Vocabulary | None = Field(
        None,
        exclude_if=_is_none,
        description="Language models: also remove tokens from the vocabulary, with their rows of the embedding and "
        'the head. "auto" keeps all tokens that the texts use.',
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)
    recovery: Recovery | None = Field(None, description="Training after pruning.")
    gates: Gates = Field(default_factory=Gates)
    output: Output = Field(default_factory=Output)
    queue: Annotated[
        str,
        spelled(
            r"^[a-z0-9][a-z0-9_-]{0,62}$",
            "1 to 63 lowercase letters a to z, digits, hyphens and underscores, the first a letter or a digit",
        ),
    ] = "default"
    priority: Annotated[int, Field(ge=-100, le=100)] = Field(0, description="Jobs with a higher priority run first.")
    time_limit_seconds: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Time limit of one attempt. The service's own limit holds if this is unset or larger."
    )
    metadata: Annotated[dict[LabelName, _Label], Field(max_length=MOST_LABELS)] = Field(default_factory=dict)

    @field_validator("parameters", "vocabulary", "evaluation", "recovery", "output")
    @classmethod
    def _has_short_texts(cls, part: _Part) -> _Part:
        size = sum(listed_bytes(part.model_dump() if isinstance(part, BaseModel) else part))
        if size > LONGEST_TEXTS:
            raise ValueError(
                f"the texts in its lists may have {LONGEST_TEXTS} bytes together, not {size}: register long texts as a "
                "data set, and name that, such as in vocabulary.datasets"
            )
        return part
