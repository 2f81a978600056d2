"""All checks of `secateur doctor`, in the order in which a person would go through them.

Those by the settings come first in this file: home, database, broker, store, port. Then come those of the machine:
disk, memory, cores, GPUs, the kernel's filter of sockets. `packages.py` has those of what pip installed.
"""

import os
import pwd
import runpy
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from core.database import has_schema
from core.device_kinds import CPU, CUDA, device_kind
from core.service.jobs.broker import broker_answers, celery_app
from core.settings import Settings
from core.storage import open_store
from secateur_wire.sizes import size
from worker.devices import Device, DeviceReader, ask
from worker.doctor.finding import Finding, missing, ok, warning
from worker.doctor.packages import (
    check_gguf_extra,
    check_openvino_extra,
    check_server_packages,
    check_versions,
    check_worker_extra,
)
from worker.embedded.postgres import PACKAGE, SYSTEM_USER, PostgresFailed, binary
from worker.embedded.serve import ServeFailed, check_port, is_serving
from worker.machine import (
    cores,
    disk_room_bytes,
    memory_bytes,
    nearest_existing,
    seclusion_refusal,
    usable_memory_bytes,
)
from worker.processes import run

_ELSEWHERE: Final = "set SECATEUR_HOME to a folder that you may write to"
_TRIAL: Final = f"import torch; torch.zeros(1, device={CUDA.name!r})"
_CUDA_BUILD: Final = "install a build of torch for CUDA: https://pytorch.org/get-started/locally"
_DRIVER: Final = "install or update the NVIDIA driver, and see that `nvidia-smi` lists the GPU"


def check_home(settings: Settings) -> Finding:
    """Return whether the folder of everything embedded is there, or can be made."""
    what, home = "home", settings.home.resolve()
    lowest = nearest_existing(home)
    if not lowest.is_dir():
        return missing(what, f"{lowest} is no folder", _ELSEWHERE)
    if not os.access(lowest, os.W_OK | os.X_OK):
        return missing(what, f"{lowest} cannot be written to", _ELSEWHERE)
    return ok(what, f"{home}{'' if home.exists() else ', made by the first command that needs it'} (SECATEUR_HOME)")


def check_database(settings: Settings) -> Finding:
    """Return whether the configured database has the schema of this version, or PostgreSQL can be started here."""
    what = "database"
    if settings.database_url is None:
        try:
            started = run([binary("postgres"), "--version"], name="postgres")
        except PostgresFailed as error:
            return missing(what, str(error), f"pip install {PACKAGE}, or set SECATEUR_DATABASE_URL")
        said = started.stdout.strip()
        if started.returncode != 0:
            return missing(what, f"PostgreSQL does not start: {said}", "set SECATEUR_DATABASE_URL")
        return ok(what, f"{said}, from the package {PACKAGE}")
    try:
        is_migrated = has_schema(settings)
    except (SQLAlchemyError, ValueError) as error:
        return missing(what, str(error).partition("\n")[0], "start PostgreSQL, or correct SECATEUR_DATABASE_URL")
    if not is_migrated:
        return warning(what, "has no schema of this version yet", "run python -m worker.prepare, or secateur serve")
    return ok(what, "answers, and has the schema")


def check_user(settings: Settings) -> Finding:
    """Return whether there is a user that the embedded PostgreSQL can run as."""
    what = "user of PostgreSQL"
    if settings.database_url is not None:
        return ok(what, "not needed: SECATEUR_DATABASE_URL names a database")
    if os.geteuid() != 0:
        return ok(what, "the one that runs all else")
    if any(user.pw_name == SYSTEM_USER for user in pwd.getpwall()):
        return ok(what, f"{SYSTEM_USER}: PostgreSQL refuses to run as root")
    if shutil.which("useradd") is not None:
        return ok(what, f"{SYSTEM_USER}, made at the first start: PostgreSQL refuses to run as root")
    return missing(
        what,
        f"PostgreSQL refuses to run as root, there is no user {SYSTEM_USER}, and no useradd to make it",
        f"make the user {SYSTEM_USER}, or use another user than root",
    )


def check_broker(settings: Settings) -> Finding:
    """Return whether the broker of hints answers."""
    what = "broker"
    if settings.broker_url is None:
        return ok(what, "folders in home")
    where = urlsplit(settings.broker_url).netloc.rpartition("@")[2]
    if broker_answers(celery_app(settings)):
        return ok(what, f"{where} answers")
    return missing(
        what,
        f"{where} does not answer: jobs start seconds late, and API keys are limited by each process for itself",
        "start Redis, or correct SECATEUR_BROKER_URL and SECATEUR_BROKER_PASSWORD",
    )


def check_store(settings: Settings) -> Finding:
    """Return whether artifacts can be stored."""
    what = "store"
    where = settings.store_url or str(settings.store_root.resolve())
    if settings.store_url is None and not settings.home.exists():
        return ok(what, f"{where}, made with home")
    try:
        is_usable = open_store(settings).is_usable()
    except ValueError as error:
        return missing(what, str(error), "correct SECATEUR_STORE_URL")
    if is_usable:
        return ok(what, where)
    if settings.store_url is None:
        return missing(what, f"{where} cannot be written to", "make it a folder that you may write to")
    return missing(
        what,
        f"{where} does not answer, or refuses the key",
        "correct SECATEUR_STORE_URL, SECATEUR_STORE_ENDPOINT and the key; python -m worker.prepare makes the bucket",
    )


def check_serve_port(settings: Settings) -> Finding:
    """Return whether `secateur serve` can listen on its port."""
    what = "port"
    if is_serving(settings.home.resolve()):
        return ok(what, "this home is being served")
    try:
        check_port(settings.host, settings.port)
    except ServeFailed as error:
        return warning(what, str(error), "secateur serve --port NUMBER, or set SECATEUR_PORT")
    return ok(what, f"{settings.port} on {settings.host} is free")


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
    """Return whether the kernel keeps runners from the network, and who reads uploads from everything else."""
    what = "seclusion"
    if (refusal := seclusion_refusal()) is not None:
        return warning(
            what,
            f"runners are not kept from the network, nor children that read uploads from other processes: {refusal}",
            "allow seccomp filters, or keep this machine from the network and take models and texts from nobody else",
        )
    return ok(what, "the kernel keeps runners from the network, and children that read uploads from everything else")


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


_OF_PACKAGES: Final = (
    check_server_packages,
    check_worker_extra,
    check_gguf_extra,
    check_openvino_extra,
    check_versions,
)
_BY_SETTINGS: Final = (
    *(check_home, check_database, check_user, check_broker, check_store, check_serve_port),
    *(check_disk, check_memory, check_threads, check_devices, check_seclusion),
)


def examine() -> Iterator[Finding]:
    """Yield a finding for each thing that an installation needs, as soon as it is known."""
    for check_packages in _OF_PACKAGES:
        yield check_packages()
    try:
        settings = Settings()
    except ValidationError as error:
        for each in error.errors():
            name = f"SECATEUR_{'_'.join(map(str, each['loc'])).upper()}" if each["loc"] else "settings"
            yield missing(name, each["msg"], "correct or unset this variable; checks that go by settings wait for it")
        return
    for check in _BY_SETTINGS:
        yield check(settings)
