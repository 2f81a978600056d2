"""Resources that triggers work with."""

from dataclasses import dataclass

from core.service.jobs.resolution.context import ServiceContext


@dataclass(frozen=True)
class TriggerContext(ServiceContext):
    """Resources of a process that fires triggers; `secret` is the server's."""

    secret: bytes
