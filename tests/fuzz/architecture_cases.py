"""Configs of small models with mistakes in them, each made from its number alone: one that fails can be made again."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from tests.fuzz.cases import NUMBERS, ODD
from tests.fuzz.config_cases import CLASSES, KEYS, NAMES

TYPES = (
    *("llama", "gpt2", "gemma2", "qwen3"),
    *("bloom", "cohere", "falcon", "gpt_neox", "gptj", "mpt", "nemotron", "olmo", "opt", "phi", "persimmon", "xglm"),
    *("deepseek_v3", "jamba", "mamba", "mixtral", "recurrent_gemma"),
)
"""Types whose configs are mutated: with a declared architecture; discovered ones; some with experts or states."""
_LEVELS = (1, 3, 20, 70, 200)

Config = dict[str, Any]


def case(number: int, configs: Mapping[str, Config]) -> tuple[str, str, list[str]]:
    """Return the type whose config it was, the text of the mutated config.json, and what was done to it."""
    source = random.Random(f"secateur architecture {number}")
    model_type = TYPES[number % len(TYPES)]
    config = json.loads(json.dumps(configs[model_type]))
    done = []
    for _ in range(source.choice([0, 1, 1, 1, 1, 2, 2, 3])):
        mutate = source.choice(_MUTATIONS)
        holder = source.choice(
            [config, config, config, *(each for each in config.values() if isinstance(each, dict) and each)]
        )
        key = source.choice(sorted(holder))
        done.append(f"{mutate.__name__.strip('_')} {key}")
        mutate(source, holder, key, configs)
    return model_type, json.dumps(config), done


def _delete(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    del holder[key]


def _retype(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    value = holder[key]
    others: list[Any] = [str(value), [value], [value, value], {"value": value}, None, bool(value), not value]
    if isinstance(value, int | float):
        others += [float(value), int(value), value + 0.5, str(value)]
    holder[key] = source.choice(others)


def _scale(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    """Multiply a number by a power of two or ten, or move it a little; those of a list alike."""
    change: Callable[[Any], Any] = source.choice(
        [
            *(lambda number, power=power: number * 2**power for power in (1, 2, 5, 20, 70)),
            *(lambda number, power=power: number * 10**power for power in (1, 4, 9, 30)),
            *(lambda number, power=power: type(number)(number / 2**power) for power in (1, 2, 10)),
            *(lambda number, step=step: number + step for step in (-1, 1, 7)),
            lambda number: -number,
            lambda number: number * 0,
        ]
    )
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = change(value)
    elif isinstance(value, list):
        holder[key] = [
            change(each) if isinstance(each, int | float) and not isinstance(each, bool) else each for each in value
        ]
    else:
        holder[key] = source.choice(NUMBERS)


def _swap(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    other = source.choice(sorted(holder))
    holder[key], holder[other] = holder[other], holder[key]


def _nest(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    """Put a value, or a copy of the whole, deep inside others."""
    value = source.choice([holder[key], dict(holder)])
    for _ in range(source.choice(_LEVELS)):
        value = source.choice([[value], {key: value}, {"text_config": value}])
    holder[source.choice([key, "text_config", "decoder", "rope_parameters"])] = value


def _lengthen(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    value = holder[key]
    times = source.choice([0, 2, 3, 1000, 200_000])
    holder[key] = (value if isinstance(value, list) else [value])[: source.choice([None, None, -1])] * times


def _choose_code(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    holder[source.choice(KEYS)] = source.choice([*NAMES, *CLASSES, {"AutoModelForCausalLM": NAMES[1]}])


def _be_odd(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    holder[key] = source.choice(ODD)


def _borrow(source: random.Random, holder: Config, key: str, configs: Mapping[str, Config]) -> None:
    """Take a setting of another type, or all of them but the name, or the name alone."""
    other = configs[source.choice(TYPES)]
    taken = source.choice([*sorted(other), "model_type", "architectures"])
    holder |= other | {"model_type": holder.get("model_type")} if source.random() < 0.2 else {taken: other[taken]}


_MUTATIONS = (
    *(_delete, _delete, _retype, _retype, _scale, _scale, _scale, _swap, _nest, _lengthen),
    *(_choose_code, _be_odd, _be_odd, _borrow),
)
