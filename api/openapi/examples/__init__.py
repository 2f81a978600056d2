"""Examples of the OpenAPI document, a file for each group of nouns.

`EXAMPLES` are by the name of a schema, or of a call (`get_report`) where its answer has no schema of its own;
`PARAMETERS` are by name, or by call and name.
"""

from typing import Any, Final

from api.openapi.examples import discoveries, jobs, keeping, plans, samples, sweeps, triggers, webhooks

_FILES: Final = (discoveries, jobs, keeping, plans, samples, sweeps, triggers, webhooks)

EXAMPLES: Final[dict[str, Any]] = {name: example for file in _FILES for name, example in file.EXAMPLES.items()}
PARAMETERS: Final[dict[str, Any]] = {name: example for file in _FILES for name, example in file.PARAMETERS.items()}
