"""The runner: the one process that opens models. A spec on stdin, JSON lines on stdout, diagnostics on stderr.

It has no credentials and reaches no network (`worker.runner.seclusion`); whatever a library prints goes to stderr, so
that stdout carries messages alone.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from importlib.metadata import version
from typing import Any, NoReturn

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import torch
import transformers

from core.engine.evaluation.continuations import compare_continuations
from core.engine.evaluation.latency import measure_latency
from core.engine.models.accelerator import backend_of, default_device
from core.engine.models.classifier import open_classifier
from core.engine.models.folder import ModelFolder, open_model
from core.errors import DiskFull, InternalError, OutOfMemory, SecateurError
from core.methods.registry import get_method
from core.pipeline.messages import (
    ClassifierSpec,
    ExportSpec,
    GenerateSpec,
    GenerateTextSpec,
    ImportGgufSpec,
    MeasureSpec,
    ModelPlace,
    NewNetworkSpec,
    PruneSpec,
    RecoverSpec,
    SearchSpec,
    SensitivitySpec,
    Spec,
    TasksSpec,
    VerifySpec,
    spec_adapter,
)
from core.pipeline.reports.report import PeakMemory
from core.pipeline.results import PruneOutput, RecoveryOutput
from core.pipeline.stages.artifact import export, verify
from core.pipeline.stages.models import generate_text, import_gguf, new_network
from core.progress import WorkStopped
from worker.processes import peak_resident_bytes
from worker.runner.message_writer import open_messages, send, signs_of_life
from worker.runner.messages import ErrorMessage, ResultMessage
from worker.runner.progress import MessageProgress, stop_once_saved
from worker.runner.seclusion import seclude

STOPPED = 75
"""Exit code of a runner that was asked to stop (SIGTERM) and has saved its newest block or step: to be started again
later."""

progress = MessageProgress()


def _opened(place: ModelPlace) -> ModelFolder:
    return open_model(place.path, own_artifact=place.own_artifact)


def _device(name: str | None) -> torch.device:
    return torch.device(name) if name else default_device()


def search(spec: SearchSpec) -> dict[str, Any]:
    """Search for a sparsity: time shapes against the dense model until one is just fast enough."""
    from worker.runner.search import search_target

    device = _device(spec.device)
    return search_target(spec, device=device, progress=progress) | {"peak_memory": _peak_memory(device).document()}


def prune(spec: PruneSpec) -> PruneOutput:
    """Open, prune, evaluate and write one job's checkpoint; SIGTERM ends it once the block it is in is saved."""
    from core.pipeline.stages.prune import prune_model  # the engine takes long to load, and verifying does without

    stop_once_saved()
    device = _device(spec.device)
    return prune_model(spec, device=device, progress=progress, peak_memory=lambda: _peak_memory(device))


def _peak_memory(device: torch.device) -> PeakMemory:
    """Return the peak resident bytes of this process, and of the device where there is one."""
    peak = PeakMemory(resident=peak_resident_bytes())
    if (on_device := backend_of(device).peak_bytes()) is not None:
        peak.device = on_device
    return peak


def recover(spec: RecoverSpec) -> RecoveryOutput:
    """Train a pruned model and measure it again; SIGTERM ends it once the step it is in is saved."""
    from core.pipeline.stages.recover import recover_artifact

    stop_once_saved()
    device = _device(spec.device)
    recovered = recover_artifact(spec, device=device, progress=progress)
    recovered.peak_memory = _peak_memory(device)
    return recovered


def sensitivity(spec: SensitivitySpec) -> PruneOutput:
    """Measure each layer alone; SIGTERM ends it once the layer it is at is saved."""
    from core.pipeline.stages.sensitivity import measure_sensitivity  # charts take long to load, and are for this alone

    stop_once_saved()
    device = _device(spec.device)
    return measure_sensitivity(spec, device=device, progress=progress, peak_memory=lambda: _peak_memory(device))


def classify(spec: ClassifierSpec) -> PruneOutput:
    """Prune an image classifier, or measure its sensitivity; SIGTERM ends it once its round or step is saved."""
    stop_once_saved()
    device = _device(spec.device)
    if get_method(spec.recipe.method).measures:  # the libraries of either are slow to load, and for it alone
        from core.pipeline.stages.classifier_sensitivity import measure_classifier as work
    else:
        from core.pipeline.stages.classifier import prune_classifier as work
    output = work(spec, device=device, progress=progress)
    peak = _peak_memory(device)
    output.metrics.peak_memory_bytes = peak.of_model
    output.report.peak_memory = peak
    return output


def measure(spec: MeasureSpec) -> dict[str, Any]:
    """Measure the latency of dense and pruned in turn."""
    device = _device(spec.device)
    if spec.image_shape is not None:
        from core.engine.evaluation.classifier_latency import measure_classifier_latency

        pair = (open_classifier(place.path) for place in (spec.dense, spec.pruned))
        measured = measure_classifier_latency(*pair, image_shape=spec.image_shape, device=device)
    else:
        assert spec.sequence_length is not None
        dense, pruned = _opened(spec.dense), _opened(spec.pruned)
        measured = measure_latency(dense, pruned, sequence_length=spec.sequence_length, device=device)
    return measured | {"peak_memory": _peak_memory(device).document()}


def generate(spec: GenerateSpec) -> dict[str, Any]:
    """Generate what models write after the same prompts."""
    device = _device(spec.device)
    written = compare_continuations(
        {name: _opened(place) for name, place in spec.models.items()},
        spec.prompts,
        tokens=spec.tokens,
        device=device,
        on_progress=progress.advance,
    )
    return written | {"peak_memory": _peak_memory(device).document()}


def answer_tasks(spec: TasksSpec) -> dict[str, Any]:
    """Measure the zero-shot accuracy of one model."""
    from core.engine.evaluation.zero_shot import measure_tasks  # slow to load, and for this alone

    device = _device(spec.device)
    measured = measure_tasks(
        _opened(spec.model),
        {each.name: each.path for each in spec.questions},
        limit=spec.limit,
        work=spec.work,
        device=device,
        on_progress=progress.advance,
    )
    return {"tasks": measured, "lm_eval": version("lm_eval"), "peak_memory": _peak_memory(device).document()}


def run(spec: Spec) -> dict[str, Any]:
    """Do what a spec asks."""
    match spec:
        case SearchSpec():
            return search(spec)
        case PruneSpec():
            return prune(spec).model_dump(exclude_unset=True)
        case SensitivitySpec():
            return sensitivity(spec).model_dump(exclude_unset=True)
        case RecoverSpec():
            return recover(spec).model_dump(exclude_unset=True)
        case ClassifierSpec():
            return classify(spec).model_dump(exclude_unset=True)
        case MeasureSpec():
            return measure(spec)
        case TasksSpec():
            return answer_tasks(spec)
        case VerifySpec():
            device = _device(spec.device)
            return verify(spec, device=device) | {"peak_memory": _peak_memory(device).document()}
        case ExportSpec():
            return export(spec)
        case GenerateTextSpec():
            return generate_text(spec, device=_device(spec.device), progress=progress)
        case GenerateSpec():
            return generate(spec)
        case NewNetworkSpec():
            return new_network(spec)
        case ImportGgufSpec():
            return import_gguf(spec)


def _classify(error: BaseException) -> SecateurError:
    """Return the error as one of the error tree."""
    if isinstance(error, SecateurError):
        return error
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return OutOfMemory(f"memory ran out: {str(error)[:300]}")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"no space left on the worker's disk: {error.filename or error.strerror}")
    return InternalError(f"{type(error).__name__}: {str(error)[:500]}")


def main() -> int:
    """Read a spec, run it, send its result or its error; the exit code is 0, 1 or STOPPED. SIGINT ends it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    open_messages()
    os.dup2(2, 1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        spec = spec_adapter.validate_json(sys.stdin.buffer.read())
        threads = getattr(spec, "threads", None)
        if threads is None and "OMP_NUM_THREADS" not in os.environ:
            threads = len(os.sched_getaffinity(0))
        if threads is not None:
            torch.set_num_threads(threads)
        with signs_of_life():
            result = run(spec)
    except WorkStopped:
        return STOPPED
    except Exception as error:
        with contextlib.suppress(OSError):  # the disk of the log may be full
            traceback.print_exc()
        known = _classify(error)
        send(ErrorMessage(**known.problem()))
        return 1
    send(ResultMessage(result=result))
    return 0


def finish() -> NoReturn:
    """Run the spec, and end this process at once.

    All is written by then, and threads that libraries left can hang the interpreter's own end. Nothing of a job is
    read before the process is off the network, where the system allows that.
    """
    if (refused := seclude()) is not None:
        print(f"This runner is not kept from the network: {refused}.", file=sys.stderr)
    try:
        ended = main()
    except SystemExit as stopped:
        ended = int(stopped.code or 0)
    sys.stderr.flush()
    os._exit(ended)


if __name__ == "__main__":
    finish()
