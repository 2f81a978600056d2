"""GGUF: its description."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

from core.engine.architectures.description import ModelDescription
from core.engine.cuts import Losses
from core.engine.exporters.exporter_info import AddedCost, AddedExporterInfo, ExportRuntime, RuntimeExample, chat_in
from core.engine.exporters.gguf.families import written_form
from core.engine.exporters.gguf.file_types import EXACT, FILE_TYPES, FIRST, stored_bytes
from core.engine.exporters.sizes import DECODED_TOKENS, MOST_ROUNDS, PREDICTIONS, PROMPT_TOKENS, WINDOW
from secateur_wire.errors import InvalidRequest

_LEAST_BLOCK = 32
_DENSE_TYPE = "Q8_0"
"""Type that makes an unpruned model smaller at almost no cost, and whose sizes are not chosen by llama.cpp."""
_COMPARED_TYPES = (_DENSE_TYPE, "Q4_K_M")
"""Types that users choose most: almost no cost, and the smallest that is close."""
_DECODE_SLOWDOWN = 5
"""Cost of a product with one token, relative to one of many tokens: weights are read for it alone."""


class _GgufInfo(AddedExporterInfo):
    def check_types(self, description: ModelDescription, types: Sequence[str], losses: Losses, param: str) -> None:
        written_form(description, losses, param)
        blocks = {name: FILE_TYPES[name].block for name in types}
        widths = {linear.in_features for linear in description.linears} | {description.hidden_size}
        for name, block in blocks.items():
            if all(width % block for width in widths):
                fitting = [
                    each for each, kind in FILE_TYPES.items() if any(width % kind.block == 0 for width in widths)
                ]
                raise InvalidRequest(
                    f"{param}: {name} stores rows of whole blocks of {block}, and no tensor of this model has such "
                    f"rows (they have {', '.join(map(str, sorted(widths)))} weights): use {', '.join(fitting)}",
                    param=param,
                )

    def compared_types(self, description: ModelDescription) -> Sequence[str]:
        types = []
        for name in _COMPARED_TYPES:
            with suppress(InvalidRequest):
                self.check_types(description, [name], Losses(), "output.exports")
                types.append(name)
        return types

    def dense_sizes(self, description: ModelDescription) -> Mapping[str, int]:
        try:
            self.check_types(description, [_DENSE_TYPE], Losses(), "output.exports")
        except InvalidRequest:
            return {}
        matrices: list[tuple[int, ...]] = [
            (linear.experts or 1, linear.out_features, linear.in_features) for linear in description.linears
        ]
        outer = (description.vocabulary_size, description.hidden_size)
        matrices += [outer] * (1 if description.tied_embeddings else 2)
        vectors = description.parameters - sum(math.prod(each) for each in matrices)
        sizes = [stored_bytes(each, _DENSE_TYPE) for each in matrices]
        return {_DENSE_TYPE: sum(sizes) + stored_bytes((vectors,), EXACT)}

    def widths(self, types: Sequence[str]) -> tuple[int, ...]:
        """Return the block sizes in which rows are stored: those of the types, and the least one of all types."""
        blocks = {FILE_TYPES[name].block for name in types} - {1}
        return tuple(sorted(blocks | ({_LEAST_BLOCK} if blocks else set()), reverse=True))

    def added_cost(
        self, description: ModelDescription, types: Sequence[str], *, is_timed: bool, measured_tokens: int = 0
    ) -> AddedCost:
        """Return the cost of the files (the first type's is always written), of their gate, and of measuring them."""
        parameters = description.parameters
        sizes = {name: round(parameters * FILE_TYPES[name].weight_bytes) for name in {*types, FIRST}}
        largest, layer = max(sizes.values()), description.prunable_parameters // max(description.layers, 1)
        ends = max(parameters - description.prunable_parameters, 0)
        reference = (
            4 * (ends + layer + PREDICTIONS * description.hidden_size) + 24 * WINDOW * description.vocabulary_size
        )
        gated = PREDICTIONS * (len(sizes) + 1)
        evaluated = measured_tokens * len(types) if parameters <= self.most_timed_parameters else 0
        temporary = [0 if FIRST in types else sizes[FIRST]]
        timed, mixed = 0, sum(FILE_TYPES[name].is_mixed for name in types)
        if is_timed and parameters <= self.most_timed_parameters:
            temporary.append(max(sizes[name] for name in types) + bool(mixed) * sizes[FIRST])
            timed = 2 * len(types) * (MOST_ROUNDS + 1) * (PROMPT_TOKENS + _DECODE_SLOWDOWN * DECODED_TOKENS)
        return AddedCost(
            bytes=sum(sizes[name] for name in types),
            temporary_bytes=max(temporary),
            memory_bytes=max(reference + largest, 2 * largest if timed else 0),
            operations=2 * parameters * (gated + evaluated + timed),
            processes=2 + len(sizes) + (len(types) if evaluated else 0) + (1 + len(types) + mixed if timed else 0),
        )


INFO = _GgufInfo(
    id="gguf",
    rank=50,
    written="added",
    task_families=("language-model",),
    summary="gguf: files for llama.cpp and programs built on it. Each is run in llama.cpp before the job ends, and "
    "must predict as the artifact does.",
    ways_to_run=(chat_in("llama.cpp", "llama-cpp-py-sync"),),
    example=RuntimeExample(
        runtime="llama.cpp",
        about="Continues a text with the likeliest words, in the package that the worker tried this file in; other "
        "programs built on llama.cpp take the file too",
        packages=("llama-cpp-py-sync",),
        script="from llama_cpp_py_sync import Llama\n\n"
        "model = Llama({file}, n_ctx=2048)\n"
        'print("{prompt}" + model.generate("{prompt}", max_tokens=24, temperature=0.0))',
    ),
    types=tuple(FILE_TYPES),
    importance_types=tuple(name for name, kind in FILE_TYPES.items() if kind.is_mixed),
    suffixes=(".gguf",),
    runtime=ExportRuntime("llama.cpp", module="llama_cpp_py_sync", extra="gguf"),
    packages=("llama_cpp_py_sync",),
    most_timed_parameters=2 * 10**9,
)
