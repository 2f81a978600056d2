"""GGUF: its description."""

from collections.abc import Sequence

from core.engine.architectures.description import ModelDescription
from core.engine.exporters.exporter_info import Cut, ExporterInfo
from core.engine.exporters.gguf.cells import written_form
from core.engine.exporters.gguf.file_types import FILE_TYPES, FIRST
from core.errors import InvalidRequest


class _GgufInfo(ExporterInfo):
    def check_types(self, description: ModelDescription, types: Sequence[str], cut: Cut, param: str) -> None:
        written_form(description, cut, param)
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

    def added_bytes(self, description: ModelDescription, types: Sequence[str]) -> int:
        return round(description.parameters * sum(FILE_TYPES[name].weight_bytes for name in {*types, FIRST}))


INFO = _GgufInfo(
    id="gguf",
    rank=50,
    written="added",
    task_families=("language-model",),
    summary="gguf: files for llama.cpp, and what is built on it. Each is run there before the job ends, and has to "
    "predict what the artifact does.",
    opening="In llama.cpp, which needs nothing else of this folder:",
    command="llama-cli --model {file}",
    types=tuple(FILE_TYPES),
    suffix=".gguf",
)
