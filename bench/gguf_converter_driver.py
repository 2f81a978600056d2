"""Runs in the converter's own environment: converts folders to files in float32; pairs of them on stdin, as JSON.

The first argument is where the packages lie that the converter needs and its environment lacks. Tokenizers are not
compared, as the converter knows those of published models alone: all are written as one that it knows.
"""

import json
import sys
from pathlib import Path

sys.path.append(sys.argv[1])

import gguf
import torch
from conversion import get_model_class
from conversion.base import ModelBase, ModelType, TextModel, get_model_architecture

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
