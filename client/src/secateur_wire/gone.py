"""Names that have left the product, and what to use in place of each."""

from collections.abc import Mapping
from typing import Final

METHODS: Final[Mapping[str, str]] = {
    "alps": "'frontier' comes nearer to the dense model's outputs, and 'admm' solves the same problem"
}
"""Pruning methods by their ids."""

_TAG: Final = "mark such artifacts by their jobs' metadata, and keep them by 'keep_tagged'"
_TAYLOR: Final = "leave it out: 'filter-taylor' ranks by the Taylor criterion, and 'filter-l1' by norms or by chance"
FIELDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("keep_last", "keep_best"), _TAG),
    **dict.fromkeys(("ranking", "compare"), _TAYLOR),
}
"""Fields of requests by their names."""

VALUES: Final[Mapping[tuple[str, str], str]] = {
    ("ridge", "auto"): "leave it out, which is 0.01 where weights become zero, and 0.1 where parts of a model go",
    ("conjugate_gradient", "auto"): "leave it out, which is 0, or give a number of steps, such as 10",
}
"""Values of fields, by the name of the field and the value."""

OF_THE_SDK: Final[Mapping[str, str]] = {
    "AsyncClient": "use `Client`, in an event loop by `asyncio.to_thread(client.wait, job_id)`",
    "download_archive": "use `download`, or curl with the address /v1/jobs/ID/artifacts.tar",
}
"""Classes and methods of the Python client."""
