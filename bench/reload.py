"""Memory of the reload check, of a model that is opened whole and with its blocks' matrices on the disk.

`python -m bench.reload FOLDER…` prunes each model by magnitude, then has the runner check what was saved, in a process
of its own each time. `--architecture` is a file with what was discovered of the models, where that is needed.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.page import show, table
from core.device_kinds import device_kind
from core.engine.architectures.architecture import Architecture
from core.engine.architectures.discovered import architectures
from core.engine.evaluation.reload_memory import full_needs, offloaded_needs
from core.engine.exporters.huggingface import write_checkpoint
from core.engine.models.accelerator import default_device
from core.engine.models.folder import open_model
from core.pipeline.messages import ModelPlace
from core.pipeline.passes import walk_for
from core.pipeline.recipes.request import UnresolvedRequest
from core.pipeline.recipes.validation import resolve_request
from core.pipeline.stages.verify.spec import VerificationOutput, VerifySpec
from worker.runner.client import run_task

SECTION = "bench-reload"
_MIB = 2**20
_HEADER = (
    "model", "opened", "its files, MiB", "peak resident, MiB", "estimate, MiB", "on the device, MiB", "seconds",
    "largest difference",
)  # fmt: skip


def rows_of(model: Path, discovered: Architecture | None) -> Iterator[list[str]]:
    """Yield the row of each way to open what is left of a model."""
    device = default_device()
    kind = device_kind(device.type)
    with TemporaryDirectory(dir=model.parent, prefix="reload-") as name:
        work, artifact = Path(name), Path(name) / "artifact"
        folder = open_model(model, discovered=discovered)
        request = resolve_request(folder.description, UnresolvedRequest("magnitude", "unstructured", 0.5))
        walk = walk_for(folder, request, device=device, calibration=None, evaluations={}, work=work)
        result = walk.run()
        write_checkpoint(result.files, result.unchanged, model, artifact, config=result.config, discovered=discovered)
        for is_whole in (True, False):
            spec = VerifySpec(
                artifact=ModelPlace(path=artifact, own_artifact=True, discovered=discovered),
                expected=result.verification, modules=work / "modules", offload=work / "offload",
                memory_bytes=None if is_whole else 1, device=str(device), threads=1,
            )  # fmt: skip
            begun = time.perf_counter()
            answer = run_task(
                spec, log=work / "log", on_message=lambda message: None, on_wait=lambda: None, grace_seconds=5
            )
            seconds = time.perf_counter() - begun
            output = VerificationOutput.model_validate(answer)
            assert output.peak_memory is not None and output.verification.offloaded is not is_whole
            needs = (full_needs if is_whole else offloaded_needs)(folder.description, kind)
            on_device = output.peak_memory.device
            yield [
                model.name,
                "whole" if is_whole else "matrices on disk",
                f"{folder.description.bytes / _MIB:,.0f}",
                f"{output.peak_memory.resident / _MIB:,.0f}",
                f"{(kind.process_bytes + needs.memory) / _MIB:,.0f}",
                "" if on_device is None else f"{on_device / _MIB:,.0f}",
                f"{seconds:.1f}",
                f"{output.verification.model_dump()['maximum_difference']:.3g}",
            ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table, and write it into a page where one is named."""
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--architecture", type=Path, metavar="FILE", help="what was discovered of the models")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the page's section too")
    given = parser.parse_args(arguments)
    discovered = None
    if given.architecture is not None:
        discovered = architectures.validate_json(given.architecture.read_bytes())
    torch.set_num_threads(1)
    rows = [row for model in given.models for row in rows_of(model, discovered)]
    text = table(_HEADER, rows)
    show(text, SECTION, given.write)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
