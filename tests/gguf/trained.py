"""A small Llama that has learnt its lines: its predictions are far from uniform, so that a wrong file shows."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from core.engine.exporters.gguf.probe_lines import varied_lines

LINES = varied_lines(400)
_STEPS = 40


def save_trained(folder: Path, **changes: object) -> Path:
    """Save a model with its tokenizer; `changes` are of its config. It is trained once for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in _files(json.dumps(changes, sort_keys=True)).items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files(changes: str) -> dict[str, bytes]:
    tokenizer = _tokenizer()
    ids = torch.tensor(tokenizer("\n".join(LINES))["input_ids"])
    torch.manual_seed(0)
    shape: dict[str, object] = {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "bos_token_id": 1,
        "eos_token_id": 0,
    }
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **(shape | json.loads(changes))))
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(_STEPS):
        starts = torch.randint(0, len(ids) - 64, (4,))
        batch = torch.stack([ids[start : start + 64] for start in starts])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    with TemporaryDirectory() as place:
        model.save_pretrained(place)
        tokenizer.save_pretrained(place)
        return {file.name: file.read_bytes() for file in Path(place).iterdir()}


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    splits = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(splits)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        LINES,
        trainers.BpeTrainer(
            vocab_size=500,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=["<|end|>", "<|begin|>"],
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>")
