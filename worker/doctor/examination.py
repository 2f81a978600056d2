"""All checks, in the order in which a person would go through them."""

from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from core.settings import Settings
from worker.doctor.finding import Finding, missing
from worker.doctor.hardware import check_devices, check_disk, check_memory, check_seclusion, check_threads
from worker.doctor.packages import check_gguf_extra, check_server_packages, check_versions, check_worker_extra
from worker.doctor.service import (
    check_broker,
    check_database,
    check_home,
    check_serve_port,
    check_store,
    check_user,
)

_OF_PACKAGES: Final = (check_server_packages, check_worker_extra, check_gguf_extra, check_versions)
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
