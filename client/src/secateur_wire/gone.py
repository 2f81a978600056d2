"""Names that have left the product, and what to use in place of each."""

from collections.abc import Mapping
from typing import Final

METHODS: Final[Mapping[str, str]] = {
    "alps": "'frontier' comes nearer to the dense model's outputs, and 'admm' solves the same problem"
}
"""Pruning methods by their ids."""

_TAG: Final = "mark such artifacts by their jobs' metadata, and keep them by 'keep_tagged'"
FIELDS: Final[Mapping[str, str]] = dict.fromkeys(("keep_last", "keep_best"), _TAG)
"""Fields of requests by their names."""

COMMANDS: Final[Mapping[str, str]] = {
    "part-costs": "a job with `target.engine` measures them itself, and its report shows what it reached",
    "triggers versions": "`secateur audit --action trigger.update` says who changed which fields; keep earlier "
    "definitions as files, by `secateur triggers show NAME --json`",
}
"""Commands of the command line, by their words."""

OF_THE_SDK: Final[Mapping[str, str]] = {
    "AsyncClient": "use `Client`, in an event loop by `asyncio.to_thread(client.wait, job_id)`"
}
"""Names of the Python client's module."""
