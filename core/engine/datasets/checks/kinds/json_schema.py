"""Answer that is JSON and valid by a JSON schema, the reference.

Patterns of a schema are run by an engine of linear time, so that no pattern can run for ever; look-around and
back-references, which it does not have, are refused. References to other documents are refused, never fetched.
"""

from typing import Any

import jsonschema_rs

from core.engine.datasets.checks.check import Check
from core.engine.datasets.checks.json_text import parse_answer

_LONGEST_REASON = 200


def _read(reference: Any) -> "jsonschema_rs.Validator":
    if not isinstance(reference, dict):
        raise ValueError("a JSON schema, which is an object, is needed")
    try:
        return jsonschema_rs.validator_for(
            reference, pattern_options=jsonschema_rs.RegexOptions(), retriever=_refuse_to_fetch
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise ValueError(f"it is no JSON schema that can be used here: {reason}") from error


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"{uri[:100]} is another document, and those are not fetched")


def _is_valid(answer: str, validator: "jsonschema_rs.Validator") -> bool:
    try:
        value = parse_answer(answer)
    except ValueError:
        return False
    return bool(validator.is_valid(value))


CHECK = Check("json_schema", 5, "JSON that the schema calls valid", _read, _is_valid)
