"""Opens small models whose configs have mistakes in them as jobs do: described, discovered, built and run.

`python -m tests.fuzz.architecture_opener FIRST LAST PROCESSES PLACE` prints one JSON object a case: its number, what
was done to the config, how it ended, and the seconds that the description took, and all. Each is opened by a process of
its own, which has little memory and may reach no network, start no process and unpickle nothing.

How it ends: `right`, where the model streamed block by block gives the logits of the whole; `refused`, with the stage
and the code; or what must not be: `wrong …`, `hang`, `crash`, `forbidden …`.
"""

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from bench.architectures.tiny_configs import tiny_model
from core.engine.architectures.describe import describe_discovered, describe_source
from core.engine.architectures.description import UndiscoveredModel, architectures
from core.engine.discovery.__main__ import answer
from core.engine.discovery.discover import discover
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from core.engine.models.streamed import StreamedModel, call_block
from secateur_wire.errors import SecateurError, UnsupportedArchitecture
from tests.fuzz.cases import dumps, mutated
from tests.fuzz.config_cases import CLASSES, KEYS, NAMES
from tests.fuzz.config_opener import FORBIDDEN
from tests.fuzz.reader import how_refused, limit_memory

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


_CPU = torch.device("cpu")
ROOM_BYTES = 2 * 2**30
"""Address space above what the process holds when it begins."""
SECONDS = 120
_LENGTH = 8


def make_bases(place: Path) -> dict[str, dict[str, Any]]:
    """Save a small model of each type, and return its config.json."""
    configs = {}
    for model_type in TYPES:
        folder = place / model_type
        tiny_model(model_type, 0).save_pretrained(folder)
        configs[model_type] = json.loads((folder / "config.json").read_text())
    return configs


def open_folder(folder: Path, tell: Callable[[str], None]) -> str:
    """Open a model as a job does, telling of the stages begun; return `right`, or how its logits are wrong."""
    tell("describe")
    source = describe_source(folder)
    architecture = None
    if isinstance(source, UndiscoveredModel):
        tell("discover")
        answered = answer(json.dumps({"config": source.config, "tensors": source.tensors}), discover)
        if isinstance(error := answered.get("error"), dict):
            raise UnsupportedArchitecture(f"{error['code']}: {error['message']}", param="model")
        architecture = architectures.validate_python(answered["architecture"])
        if "experts" in architecture.refused:
            raise UnsupportedArchitecture(architecture.refused["experts"], param="model")
        describe_discovered(source, architecture)
    tell("open")
    opened = open_model(folder, discovered=architecture)
    tokens = torch.randint(
        4, opened.description.vocabulary_size, (1, _LENGTH), generator=torch.Generator().manual_seed(0)
    )
    streamed = StreamedModel(opened, dtype=torch.float32, device=_CPU)
    hidden, arguments = streamed.embed(tokens), streamed.block_arguments(tokens)
    with torch.inference_mode():
        for index in range(len(streamed)):
            block = streamed.fill_block(index, streamed.read_block(index), torch.float32)
            hidden = call_block(block, hidden, arguments[index])
        logits = streamed.logits(tokens, hidden, torch.arange(_LENGTH))
        whole = load_model(opened, _CPU, dtype=torch.float32)(input_ids=tokens, use_cache=False).logits
    if torch.allclose(logits, whole, rtol=1e-4, atol=1e-4, equal_nan=True):
        return "right"
    return f"wrong logits: they differ by {float((logits - whole).abs().max()):g}"


def outcome(folder: Path) -> dict[str, Any]:
    """Return how a folder was opened, and the seconds of its description and of all."""
    began = time.monotonic()
    reached: dict[str, float] = {}
    done: list[str] = []

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            done.append(f"{event} {str(arguments[1:3])[:200]}")
            raise RuntimeError(f"{event} is not allowed here")  # no OSError: those are tried again

    sys.addaudithook(hear)

    def reach(stage: str) -> None:
        reached[stage] = time.monotonic()

    try:
        how = open_folder(folder, reach)
    except SecateurError as error:
        how = how_refused(error)
        how = f"refused {list(reached)[-1]} {error.code}: {error.message[:300]}" if how == "refused" else how
    except BaseException as error:
        how = f"wrong {list(reached)[-1]} {type(error).__name__}: {str(error)[:300]!r}"
    now = time.monotonic()
    described = [reached[stage] for stage in ("discover", "open") if stage in reached]
    return {
        "how": f"forbidden {done}" if done else how,
        "described": round(min([*described, now]) - began, 3),
        "seconds": round(now - began, 3),
    }


class Opening:
    """A case being opened by a process of its own."""

    def __init__(self, number: int, place: Path, configs: dict[str, dict[str, Any]]) -> None:
        model_type, text, self.done = case(number, configs)
        self.number = number
        self.folder = place / f"case-{number}"
        self.folder.mkdir()
        (self.folder / "config.json").write_text(text)
        (self.folder / "model.safetensors").hardlink_to(place / "bases" / model_type / "model.safetensors")
        self.began = time.monotonic()
        self.answer, sender = os.pipe()
        self.process = os.fork()
        if not self.process:
            try:
                limit_memory(ROOM_BYTES)
                os.write(sender, json.dumps(outcome(self.folder)).encode())
            finally:
                os._exit(0)
        os.close(sender)

    def end(self) -> dict[str, Any]:
        """Return what became of the case; ends its process where it takes too long."""
        is_late = not select.select([self.answer], [], [], max(0.0, self.began + SECONDS - time.monotonic()))[0]
        if is_late:
            os.kill(self.process, signal.SIGKILL)
        text = b"".join(iter(lambda: os.read(self.answer, 2**16), b""))
        os.close(self.answer)
        os.waitpid(self.process, 0)
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()
        told = json.loads(text) if text else {"how": "hang" if is_late else "crash"}
        return {"case": self.number, "done": self.done, **told}


def main(numbers: range, processes: int, place: Path, tell: Callable[[dict[str, Any]], None]) -> None:
    """Open the cases of these numbers, so many at a time."""
    torch.set_num_threads(1)
    configs = make_bases(place / "bases")
    running: list[Opening] = []
    for number in numbers:
        if len(running) == processes:
            tell(running.pop(0).end())
        running.append(Opening(number, place, configs))
    for each in running:
        tell(each.end())


if __name__ == "__main__":
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries print at times
        arguments = sys.argv[1:]
        numbers, processes = range(int(arguments[0]), int(arguments[1])), int(arguments[2])
        main(numbers, processes, Path(arguments[3]), lambda told: print(json.dumps(told), file=answers, flush=True))
