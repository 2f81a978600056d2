"""Examples of the OpenAPI document, a file for each group of nouns.

`EXAMPLES` has them by the name of a schema, or of a call (`get_report`) whose answer has no schema of its own.
`PARAMETERS` has them by name, or by call and name.
"""

from typing import Any, Final

from api.openapi.examples import automation, jobs, keeping, planning

_FILES: Final = (automation, jobs, keeping, planning)

EXAMPLES: Final[dict[str, Any]] = {name: example for file in _FILES for name, example in file.EXAMPLES.items()}
PARAMETERS: Final[dict[str, Any]] = {name: example for file in _FILES for name, example in file.PARAMETERS.items()}
