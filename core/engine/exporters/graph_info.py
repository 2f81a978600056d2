"""Description of forms that are a language model's graph, traced from its own code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.description import ModelDescription
from core.engine.cuts import Losses
from core.engine.exporters.exporter_info import AddedCost, AddedExporterInfo, RuntimeExample
from core.engine.exporters.sizes import DECODED_TOKENS, MOST_ROUNDS, PREDICTIONS, PROMPT_TOKENS, WINDOW
from secateur_wire.errors import InvalidRequest

_MIXTURES: Final = (
    "MixtralForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
    "OlmoeForCausalLM",
    "GraniteMoeForCausalLM",
    "GraniteMoeSharedForCausalLM",
    "Glm4MoeForCausalLM",
    "GptOssForCausalLM",
)
"""Mixtures whose graphs are tried in each engine; their architectures are discovered."""
_TRACE_SECONDS: Final = 60
_OPERATIONS_PER_SECOND: Final = 5 * 10**10
"""Operations for which a second of tracing counts: a trace computes little, and takes long by the number of layers."""
_DECODE_SLOWDOWN: Final = 5
"""Cost of a product with one token, relative to one of many tokens: weights are read for it alone."""


@dataclass(frozen=True)
class GraphInfo(AddedExporterInfo):
    """Description of a graph's form.

    `bounds` are the largest mean KL divergences of its types, in nats, `weight_bytes` the bytes of a weight.
    """

    bounds: Mapping[str, float] = field(default_factory=dict, hash=False)
    weight_bytes: Mapping[str, int] = field(default_factory=dict, hash=False)

    def file_name(self, kind: str) -> str:
        """Return the name of a type's graph."""
        return f"{self.id}-{kind}{self.suffixes[0]}"

    def check_types(self, description: ModelDescription, types: Sequence[str], losses: Losses, param: str) -> None:
        name, discovered = description.architecture, description.discovered
        if name not in (LANGUAGE_ARCHITECTURES if discovered is None else _MIXTURES):
            shown = name if discovered is None else f"the type {discovered.model_type!r}"
            raise InvalidRequest(
                f"{param}: {self.id} files can be written for {', '.join((*LANGUAGE_ARCHITECTURES, *_MIXTURES))}, but "
                f"not for {shown}: leave it out, or choose one of those models",
                param=param,
            )

    def added_cost(
        self, description: ModelDescription, types: Sequence[str], *, is_timed: bool, measured_tokens: int = 0
    ) -> AddedCost:
        """Return the cost of a trace of the whole model in float32, of the gate, and of measuring the files.

        The model is in memory twice: while it is written, as its module and its graph; while it runs, as its file and
        as the engine lays it out.
        """
        parameters = description.parameters
        sizes = [round(parameters * self.weight_bytes[name]) for name in types]
        reference = 4 * PREDICTIONS * description.hidden_size + 24 * WINDOW * description.vocabulary_size
        timed, traces = 0, 1
        if is_timed and parameters <= self.most_timed_parameters:
            timed = 2 * len(types) * (MOST_ROUNDS + 1) * (PROMPT_TOKENS + _DECODE_SLOWDOWN * DECODED_TOKENS)
            traces = 2
        decoded = PREDICTIONS // WINDOW * DECODED_TOKENS * _DECODE_SLOWDOWN
        evaluated = measured_tokens if parameters <= self.most_timed_parameters else 0
        operations = 2 * parameters * ((PREDICTIONS + decoded + evaluated) * len(types) + PREDICTIONS + timed)
        return AddedCost(
            bytes=sum(sizes),
            temporary_bytes=sum(sizes) if timed else 0,
            memory_bytes=reference + max(2 * 4 * parameters, 2 * max(sizes) * (2 if timed else 1)),
            operations=operations + traces * _TRACE_SECONDS * _OPERATIONS_PER_SECOND,
            processes=1 + len(types) * (1 + bool(timed) + bool(evaluated)),
        )


def text_continued_in(runtime: str, package: str, *, opening: str, step: str) -> RuntimeExample:
    """Return the program that continues a text in an engine.

    `opening` opens the `file` and sets `known`, the names of the graph's inputs. `step` sets `new`, the token that
    follows the tokens that are `given` to the graph.
    """
    return RuntimeExample(
        runtime=runtime,
        about="Continues a text with the likeliest words, without PyTorch",
        packages=(package, "tokenizers", "numpy"),
        script="from pathlib import Path\n\n"
        f"import numpy\nimport {package}\nfrom tokenizers import Tokenizer\n\n"
        "file = Path({file})\n"
        'tokenizer = Tokenizer.from_file(str(file.with_name("tokenizer.json")))\n'
        f"{opening}"
        'ids = tokenizer.encode("{prompt}").ids\n'
        "new = list(ids)\n"
        "for _ in range(24):\n"
        "    places = numpy.arange(len(ids) - len(new), len(ids))[None]\n"
        "    mask = numpy.ones((1, len(ids)), numpy.int64)\n"
        '    given = {{"input_ids": numpy.array([new]), "attention_mask": mask, "position_ids": places}}\n'
        '    given["beam_idx"] = numpy.zeros(1, numpy.int32)\n'
        "    given = {{name: value for name, value in given.items() if name in known}}\n"
        f"{step}"
        "    ids += new\n"
        "print(tokenizer.decode(ids))",
    )
