"""Material of the clients: a model of two layers, a text it can read, and jobs of every kind that take seconds."""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from tests.model_folders import write_llama

MODEL, TEXT = "tiny", "words"
_WORDS = 60
_LENGTH = 32


def write_model(folder: Path, seed: int) -> Path:
    """Write a Llama of two layers with a tokenizer, whose words are w0 to w59."""
    write_llama(folder, seed=seed)
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(_WORDS)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w3"})
    )
    return folder


def write_words(file: Path, seed: int, *, passages: int = 40) -> Path:
    """Write passages of fifty of these words."""
    chosen = random.Random(seed)
    lines = [" ".join(f"w{chosen.randrange(4, _WORDS)}" for _ in range(50)) for _ in range(passages)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n\n".join(lines) + "\n")
    return file


@dataclass(frozen=True)
class Kind:
    """A kind of job: its body but for what all have in common, how often it comes, and how it ends where nothing comes
    between: None for well, else the code of its error.
    """

    name: str
    weight: int
    body: Mapping[str, Any]
    ends: str | None = None


_CALIBRATION = {"dataset": TEXT, "samples": 8, "sequence_length": _LENGTH}
_EVALUATION = {"datasets": [TEXT], "samples": 4, "sequence_length": _LENGTH}

KINDS = (
    Kind("magnitude", 3, {"method": "magnitude", "sparsity": 0.5}),
    Kind("from the hub", 1, {"model": "seeds/tiny", "method": "magnitude", "sparsity": 0.5}),
    Kind("magnitude 2:4", 2, {"method": "magnitude", "pattern": "2:4", "evaluation": _EVALUATION}),
    Kind("wanda", 3, {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION, "evaluation": _EVALUATION}),
    Kind("sparsegpt", 2, {"method": "sparsegpt", "sparsity": 0.6, "calibration": _CALIBRATION}),
    Kind("sparsegpt 2:4", 1, {"method": "sparsegpt", "pattern": "2:4", "calibration": _CALIBRATION}),
    Kind("structured", 2, {"method": "llm-pruner", "sparsity": 0.2, "calibration": _CALIBRATION}),
    Kind(
        "packed",
        1,
        {"method": "wanda", "sparsity": 0.5, "calibration": _CALIBRATION, "output": {"format": "packed"}},
    ),
    Kind(
        "recovery",
        2,
        {
            "method": "wanda",
            "sparsity": 0.5,
            "calibration": _CALIBRATION,
            "evaluation": _EVALUATION,
            "recovery": {"method": "finetune", "steps": 4, "batch_size": 2, "checkpoint_every": 2},
        },
    ),
    Kind(
        "gate missed",
        1,
        {
            "method": "magnitude",
            "sparsity": 0.9,
            "evaluation": _EVALUATION,
            "gates": {"max_perplexity_ratio": 0.001},
        },
        ends="gate_missed",
    ),
    Kind(
        "time limit",
        1,
        {"method": "magnitude", "sparsity": 0.5, "time_limit_seconds": 0.05},
        ends="time_limit_exceeded",
    ),
)


def choose(chosen: random.Random) -> Kind:
    return chosen.choices(KINDS, [kind.weight for kind in KINDS])[0]
