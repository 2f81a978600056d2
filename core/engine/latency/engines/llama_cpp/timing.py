"""Timing of GGUF files in llama.cpp, whose form for layers of different shapes allows layers without parts."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from core.engine.exporters.engine import running
from core.engine.exporters.gguf.exporter import GgufFiles
from core.engine.exporters.gguf.family import refusal
from core.engine.exporters.gguf.file_types import ALL_TYPES, FIRST
from core.engine.exporters.gguf.runtime import LlamaCpp
from core.engine.exporters.gguf.settings import GgufSettings, read_settings
from core.engine.exporters.gguf.vocabulary import Vocabulary
from core.engine.exporters.gguf.writer import write_gguf
from core.engine.latency.small_models import present_layers, random_folder
from core.engine.latency.timing import FileTiming
from core.engine.latency.variants import ModelShape
from core.engine.models.folder import ModelFolder

_NO_VOCABULARY: Final = Vocabulary(kind="no_vocab", pre="", tokens=[], types=[], adds={})
"""Vocabulary of a file that no text is read with: llama.cpp then counts tokens alone."""


class LlamaCppTiming(FileTiming):
    engine = LlamaCpp

    def write(self, folder: ModelFolder, shape: ModelShape, kind: str, file: Path) -> Path:
        GgufFiles().require_runtime()
        source = file.with_name(f"{file.name}-folder")
        written, plain = random_folder(folder, shape, source), FIRST if ALL_TYPES[kind].is_mixed else kind
        settings = read_settings(written)
        left = {
            f"{written.family.blocks}.{layer}.{name}."
            for layer, variant in enumerate(present_layers(shape))
            for sublayer, size in zip(written.family.sublayers, variant, strict=True)
            if not size
            for name in (sublayer.norm, sublayer.output.rpartition(".")[0])
        }
        if left:
            tensors = {name: each for name, each in written.tensors.items() if not name.startswith(tuple(left))}
            written, settings = replace(written, tensors=tensors), _without_parts(settings, shape)
        target, first = file.with_suffix(".gguf"), file.with_suffix(f".{plain}.gguf")
        write_gguf(first, written, settings, _NO_VOCABULARY, kind=plain, name=file.name)
        if plain == kind:
            first.replace(target)
        else:
            with running(LlamaCpp, largest_file=first.stat().st_size, tokens=1, threads=1) as llama_cpp:
                llama_cpp.quantise(first, target, ALL_TYPES[kind].number)
            first.unlink()
        for each in source.iterdir():
            each.unlink()
        source.rmdir()
        return target


def _without_parts(settings: GgufSettings, shape: ModelShape) -> GgufSettings:
    """Return the settings of a file in whose layers parts are left out; raises the refusal of a family without them."""
    form = next((each for each in settings.family.forms if each.has_layers), None)
    if form is None:
        raise refusal("layers without attention", f"an attention in each layer, as {settings.form.name}")
    layers = present_layers(shape)
    if not all(each.ffn_width for each in layers):
        raise refusal("layers without FFN", "an FFN in each layer, whose attention llama.cpp leaves out otherwise")
    if not layers[0].kv_groups and any(each.kv_groups for each in layers):
        raise refusal("a first layer without attention", "one, from which llama.cpp reads the size of all heads")
    group = max(settings.heads) // max(settings.kv_heads)
    keys = settings.keys | {
        "feed_forward_length": [each.ffn_width for each in layers],
        "attention.head_count": [each.kv_groups * group for each in layers],
        "attention.head_count_kv": [each.kv_groups for each in layers],
    }
    return replace(settings, form=form, keys=keys)
