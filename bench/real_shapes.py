"""Models of real shapes with random weights through the service: `python -m bench.real_shapes 1B [--write PAGE]`.

From registration to download: seconds by stage, peak memory by process, bytes on the disk. Weights are random, so that
the figures say nothing about quality. Text and tokenizer are those of the samples.
"""

import argparse
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from bench.cells import CACHE, CellFailed, engine_program, own_release, run
from bench.contest import MIB
from bench.machine import describe_machine, threads_available
from bench.page import show, table
from bench.service import Service, sample_service
from core.database import transaction
from core.service.registry.schemas import ModelBody
from core.service.registry.service import find_row
from core.service.registry.tables import ModelRow
from core.service.retention.deletion import delete_registered
from core.service.sources.folders import content_hash
from worker.embedded.register import register_folder
from worker.samples.language import CALIBRATION, EVALUATION, MODEL

SECTION = "real-shapes"
SHAPES: Final[dict[str, dict[str, int]]] = {
    "tiny": {"width": 256, "layers": 4, "intermediate": 768, "key_value_heads": 2, "vocabulary": 49_152},
    "1B": {"width": 2048, "layers": 16, "intermediate": 8192, "key_value_heads": 8, "vocabulary": 128_256},
    "3B": {
        "width": 3072, "layers": 28, "intermediate": 8192, "key_value_heads": 8, "vocabulary": 128_256, "head_size": 128
    },
}  # fmt: skip
"""Sizes of Llama 3.2's models; `tiny` is there to try the bench."""
_POLL_SECONDS = 0.2
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.real_shapes", description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--method", default="wanda", help="method that prunes to 50 %% (default wanda)")
    parser.add_argument("--samples", type=int, default=8, help="calibration windows of 128 tokens (default 8)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    with sample_service() as service:
        text = measure(service, given.shape, given.method, given.samples)
    command = " ".join(sys.argv[1:] if arguments is None else arguments)
    show(f"{text}\n\nWritten by `python -m bench.real_shapes {command}`.", SECTION, given.write)
    return 0


def measure(service: Service, shape: str, method: str, samples: int) -> str:
    """Return the section: what each step of one job took; raises CellFailed where the job fails."""
    name, client = f"random-{shape.lower()}", service.client
    folder, download = service.settings.models_root / name, (CACHE / "downloads" / name).absolute()
    seconds: dict[str, float] = {}
    try:
        _write_model(folder, service.settings.models_root / MODEL, shape)
        with _timed(seconds, "hashing the files alone"):
            content_hash(folder)
        with _timed(seconds, "registration"):
            register_folder(service.home, ModelBody(name=name, path=str(folder)))
        with _peaks() as peaks:
            with _timed(seconds, "the job, from submit to its end"):
                job = client.wait(client.submit(**_body(name, method, samples)).id)
            if job.status != "succeeded":
                raise CellFailed(f"{job.status}: {job.error.message if job.error else ''}")
            (attempt,) = client.attempts(job.id)
            with _timed(seconds, "download"):
                client.download(job.id, download)
        sizes = {"dense model": _bytes(folder), "artifact": _bytes(download)}
        seconds |= {f"stage {stage}": each for stage, each in (attempt.stages or {}).items()}
    finally:
        for place in (folder, download):
            shutil.rmtree(place, ignore_errors=True)
        _forget(service, name)
    return "\n\n".join(
        [
            f"Llama {shape} in bfloat16 with random weights, `{method}` 50 %, {samples} × 128 calibration tokens, "
            f"{threads_available()} threads; {describe_machine()}; {own_release()}.",
            table(["step", "seconds"], [[step, f"{each:.1f}"] for step, each in seconds.items()], text_columns=1),
            table(
                ["process", "peak MiB"],
                [[process, f"{each / MIB:,.0f}"] for process, each in sorted(peaks.items())],
                text_columns=1,
            ),
            table(
                ["on the disk", "MB"], [[what, f"{each / 1e6:,.0f}"] for what, each in sizes.items()], text_columns=1
            ),
        ]
    )


def _write_model(folder: Path, tokenizer_of: Path, shape: str) -> None:
    spec = {**SHAPES[shape], "dtype": "bfloat16", "samples": 1, "length": 8, "threads": threads_available()}
    run(engine_program("bench.deep_model_cell:write_model"), spec | {"output": str(folder)}, f"real-shapes-{shape}")
    (folder / "tokens.safetensors").unlink()
    for name in _TOKENIZER:
        shutil.copy(tokenizer_of / name, folder)


def _body(model: str, method: str, samples: int) -> dict[str, Any]:
    return {
        "model": model,
        "method": method,
        "sparsity": 0.5,
        "calibration": {"dataset": CALIBRATION, "samples": samples, "sequence_length": 128, "seed": 0},
        "evaluation": {"datasets": [EVALUATION], "samples": 4, "sequence_length": 128},
    }


@contextmanager
def _timed(seconds: dict[str, float], step: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - begun
    print(f"{step}: {seconds[step]:.1f} s", flush=True)


@contextmanager
def _peaks() -> Iterator[dict[str, int]]:
    """Watch this process's children; yield the highest resident bytes of each module or program that they run."""
    peaks: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_POLL_SECONDS):
            for child in psutil.Process().children(recursive=True):
                try:
                    words, resident = child.cmdline(), child.memory_info().rss
                except psutil.Error:  # it ended meanwhile
                    continue
                peaks[program_of(words)] = max(peaks.get(program_of(words), 0), resident)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        ended.set()
        watcher.join()


def program_of(words: Sequence[str]) -> str:
    """Return the module or program of a command line; all processes of a database count as one kind."""
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1]
    return Path(words[0]).name.partition(":")[0] if words else "ending"


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _forget(service: Service, name: str) -> None:
    with transaction(service.home.sessions) as session:
        if find_row(session, ModelRow, service.home.team_id, name) is not None:
            delete_registered(session, service.home.team_id, ModelRow, name)


if __name__ == "__main__":
    sys.exit(main())
