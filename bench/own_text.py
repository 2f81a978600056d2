"""Processor seconds of own text: `python -m bench.own_text [--samples 8] [--length 512] [--ending 0.005]`.

The model has random weights, 18 layers of 640 features and a vocabulary of 262,144 words, which are its tokens. As
random weights end no text, `--ending` makes that share of the vocabulary end tokens, so that a text ends after any
token with about this probability.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

from core.engine.models.accelerator import default_device
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.precision import writing_dtype
from core.engine.models.self_text import generate_documents, sequences_at_once
from core.engine.models.tensors import DTYPES

_WORDS = 2**18
_SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>")


def write_model(folder: Path) -> Path:
    """Write the model and its tokenizer; return the folder."""
    words = {word: number for number, word in enumerate((*_SPECIAL, *(f"w{n}" for n in range(len(_SPECIAL), _WORDS))))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    named = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), _SPECIAL, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=_WORDS,
        hidden_size=640,
        intermediate_size=2048,
        num_hidden_layers=18,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=256,
        sliding_window=512,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    model: Any = Gemma3ForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.own_text", description=__doc__)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--ending", type=float, default=0.0)
    options = parser.parse_args()
    device = default_device()
    with TemporaryDirectory() as place:
        folder = open_model(write_model(Path(place)))
        dtype = writing_dtype(DTYPES[folder.description.dtype], device)
        model, tokenizer = load_model(folder, device, dtype=dtype), folder.tokenizer()
        model.config.eos_token_id = [1, *range(len(_SPECIAL), len(_SPECIAL) + round(options.ending * _WORDS))]
        begun, processor = time.perf_counter(), time.process_time()
        documents = list(
            generate_documents(
                model,
                tokenizer,
                tokens=options.samples * options.length,
                length=options.length,
                seed=0,
                at_once=sequences_at_once(folder.description, options.length, device, dtype),
            )
        )
        processor, seconds = time.process_time() - processor, time.perf_counter() - begun
    tokens = sum(len(document.split()) for document in documents)
    print(
        f"{tokens:,} tokens in {len(documents)} documents, {dtype}, {torch.get_num_threads()} threads: "
        f"{processor:.1f} processor seconds, {seconds:.1f} seconds"
    )


if __name__ == "__main__":
    main()
