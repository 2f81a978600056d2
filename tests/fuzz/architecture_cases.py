"""Configs of small models with mistakes in them, each made from its number alone: one that fails can be made again."""

import json
import random
from collections.abc import Mapping
from typing import Any

from tests.fuzz.cases import dumps, mutated
from tests.fuzz.config_cases import CLASSES, KEYS, NAMES

TYPES = (
    *("llama", "gpt2", "gemma2", "qwen3"),
    *("bloom", "cohere", "falcon", "gpt_neox", "gptj", "mpt", "nemotron", "olmo", "opt", "phi", "persimmon", "xglm"),
    *("deepseek_v3", "jamba", "mamba", "mixtral", "recurrent_gemma"),
)
"""Types whose configs are mutated: with a declared architecture; discovered ones; some with experts or states."""

Config = dict[str, Any]


def case(number: int, configs: Mapping[str, Config]) -> tuple[str, str, list[str]]:
    """Return the type whose config it was, the text of the mutated config.json, and what was done to it."""
    source = random.Random(f"config with mistakes {number}")
    model_type = TYPES[number % len(TYPES)]
    config = json.loads(json.dumps(configs[model_type]))
    done = []
    for _ in range(source.choice([0, 1, 1, 1, 1, 2, 2, 3])):
        mutate = source.choice([_scale, _scale, _lengthen, _choose_code, _borrow])
        key = source.choice(sorted(config))
        done.append(f"{mutate.__name__.strip('_')} {key}")
        mutate(source, config, key, configs)
    if source.random() < 0.4:
        done.append("mutated")
        config = mutated(source, config, 1)
    return model_type, dumps(config), done


def _scale(source: random.Random, config: Config, key: str, configs: Mapping[str, Config]) -> None:
    """Multiply a number by a power of two, or move it a little; those of a list alike."""
    factor, step = source.choice(
        [(1, 1), (1, -1), (1, 7), (-1, 0), (0, 0), *((2**power, 0) for power in (1, 2, 20, 70))]
    )

    def scaled(value: Any) -> Any:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return value * factor + step if is_number else value

    value = config[key]
    config[key] = [scaled(each) for each in value] if isinstance(value, list) else scaled(value)


def _lengthen(source: random.Random, config: Config, key: str, configs: Mapping[str, Config]) -> None:
    value = config[key]
    config[key] = (value[:4] if isinstance(value, list) else [value]) * source.choice([0, 2, 1000, 200_000])


def _choose_code(source: random.Random, config: Config, key: str, configs: Mapping[str, Config]) -> None:
    config[source.choice(KEYS)] = source.choice([*NAMES, *CLASSES, {"AutoModelForCausalLM": NAMES[1]}])


def _borrow(source: random.Random, config: Config, key: str, configs: Mapping[str, Config]) -> None:
    """Take a setting of another type, or all of them but the name."""
    other = configs[source.choice(TYPES)]
    taken = source.choice([*sorted(other), "model_type", "architectures"])
    config |= other | {"model_type": config["model_type"]} if source.random() < 0.2 else {taken: other[taken]}
