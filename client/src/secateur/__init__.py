"""The Python SDK and command line of the Secateur pruning service.

`client.py` is what one calls; `types.py` what comes back and `errors.py` what goes wrong. `transport.py` speaks HTTP,
`events.py` and `downloads.py` carry on over connections that break, `configuration.py` finds the server, and `cli/` is
the command line. Nothing here imports the server.
"""

from secateur import errors
from secateur.client import Client
from secateur.types import (
    ArtifactFile,
    Dataset,
    Event,
    Inspection,
    Job,
    JobStatus,
    Method,
    Metrics,
    Model,
    Report,
)

__all__ = [
    "ArtifactFile",
    "Client",
    "Dataset",
    "Event",
    "Inspection",
    "Job",
    "JobStatus",
    "Method",
    "Metrics",
    "Model",
    "Report",
    "errors",
]
