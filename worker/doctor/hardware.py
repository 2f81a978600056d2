"""Checks of the machine: disk, memory, cores, the kernel's filter of sockets, GPUs and their driver."""

import os
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from core.device_kinds import CPU, CUDA, device_kind
from core.settings import Settings
from secateur.formatting import size
from worker.devices import Device, DeviceReader, ask
from worker.doctor.finding import Finding, missing, ok, warning
from worker.machine import cores, disk_room_bytes, memory_bytes, seclusion_refusal, usable_memory_bytes
from worker.processes import run

_TRIAL: Final = f"import torch; torch.zeros(1, device={CUDA.name!r})"
_CUDA_BUILD: Final = "install a build of torch for CUDA: https://pytorch.org/get-started/locally"
_DRIVER: Final = "install or update the NVIDIA driver, and see that `nvidia-smi` lists the GPU"


def check_disk(settings: Settings) -> Finding:
    """Return whether the disk of the work folder has more room than the watermark below which no job is claimed."""
    what, folder = "disk", settings.work_root.resolve()
    room, least = disk_room_bytes(settings), settings.disk_watermark_bytes
    if room < least:
        return missing(
            what,
            f"{size(room)} free for {folder}, less than {size(least)}: no job is run",
            "free some space, set SECATEUR_HOME to a folder on another disk, or lower SECATEUR_DISK_WATERMARK_BYTES",
        )
    return ok(what, f"{size(room)} free for {folder}")


def check_memory(settings: Settings) -> Finding:
    """Return whether a worker has the memory that its settings let it use."""
    what, there = "memory", memory_bytes()
    usable = min(usable_memory_bytes(settings), there) // (1 if settings.worker_memory_bytes else _workers(settings))
    if (settings.worker_memory_bytes or 0) > there:
        return warning(
            what,
            f"SECATEUR_WORKER_MEMORY_BYTES says {size(settings.worker_memory_bytes or 0)}, and there are {size(there)}",
            "unset or lower it: a job that does not fit is ended by the kernel",
        )
    if usable < CPU.process_bytes:
        return missing(
            what,
            f"{size(usable)} for a worker, less than the {size(CPU.process_bytes)} that PyTorch takes alone",
            "use a machine, or a limit of the container, with more memory",
        )
    if usable < CPU.process_bytes + settings.activation_budget_bytes:
        return warning(
            what,
            f"{size(usable)} for a worker, which may hold {size(settings.activation_budget_bytes)} of activations",
            f"set SECATEUR_ACTIVATION_BUDGET_BYTES to {(usable - CPU.process_bytes) // 2}: the rest is written to disk",
        )
    return ok(what, f"{size(usable)} for a worker")


def check_threads(settings: Settings) -> Finding:
    """Return whether runners use no more threads than there are cores."""
    what, there = "threads", cores()
    environment = os.environ.get("OMP_NUM_THREADS", "")
    threads = settings.threads or (int(environment) if environment.isdigit() else len(os.sched_getaffinity(0)))
    workers = 1 if settings.threads is None and not environment else _workers(settings)
    if threads * workers > there:
        detail = f"{threads * workers} for {there} cores: they wait for one another"
        return warning(what, detail, f"set SECATEUR_THREADS={max(1, there // workers)}")
    return ok(what, f"{threads * workers} for {there} cores")


def check_seclusion(settings: Settings) -> Finding:
    """Return whether the kernel keeps runners from the network."""
    what = "runners without network"
    if (refusal := seclusion_refusal()) is not None:
        return warning(
            what, f"not kept from it: {refusal}", "allow seccomp filters, or keep this machine from the network"
        )
    return ok(what, "the kernel keeps them from it")


def check_devices(settings: Settings) -> Finding:
    """Return whether the GPUs that are there, or that the settings name, can be used by the installed torch."""
    what = "GPU"
    if find_spec("torch") is None or find_spec("pynvml") is None:
        return warning(what, "not looked for, as packages of a worker are missing", "install them first")
    devices = _devices(settings)
    if not devices and settings.device is not None and device_kind(settings.device).has_own_memory:
        return missing(what, f"SECATEUR_DEVICE is {settings.device}, and there is no NVIDIA driver", _DRIVER)
    if not devices:
        return ok(what, "none is used: jobs run on the CPU")
    if failures := [each.failure or each.absent for each in devices if each.failure or each.absent]:
        return missing(what, "; ".join(map(str, failures)), _DRIVER)
    names = ", ".join(f"{each.name} of {size(each.memory_bytes or 0)}" for each in devices)
    built_for = _cuda_of_torch()
    if built_for is None:
        return missing(what, f"{names}, and the installed torch is a build for CPUs", _CUDA_BUILD)
    tried = run([sys.executable, "-P", "-c", _TRIAL], name="torch")
    if tried.returncode != 0:
        said = tried.stdout.strip().rpartition("\n")[2]
        detail = f"{names}, and torch for CUDA {built_for} cannot use it: {said}"
        return missing(what, detail, f"{_DRIVER}; or {_CUDA_BUILD}")
    return ok(what, f"{names}; torch for CUDA {built_for} uses it")


def _devices(settings: Settings) -> list[Device]:
    """Return the GPUs that workers would use, as the driver describes them."""
    if settings.devices:
        return [
            ask(each) or Device(failure=f"the driver gives no answer about GPU {each}") for each in settings.devices
        ]
    first = DeviceReader(settings).read()
    return [] if first is None else [first]


def _cuda_of_torch() -> str | None:
    """Return the version of CUDA that torch was built for, without loading torch; None for a build for CPUs."""
    package = find_spec("torch")
    assert package is not None and package.origin is not None
    cuda: str | None = runpy.run_path(str(Path(package.origin).with_name("version.py")))[CUDA.name]
    return cuda


def _workers(settings: Settings) -> int:
    return max(1, len(settings.devices))
