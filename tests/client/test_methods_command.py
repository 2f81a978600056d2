"""`secateur methods NAME` shows all that a method is."""

from typing import Any

from starlette.responses import JSONResponse

from tests.client.command_line import RunHere
from tests.client.script import Script


def test_a_method_that_is_another_thing_with_another_pattern_is_shown_as_both(
    scripted: RunHere, script: Script
) -> None:
    def said(parameter: str, *, calibration: bool) -> dict[str, Any]:
        return {
            "description": f"Does what {parameter} says.",
            "gains": "None.",
            "needs": {"calibration": calibration, "gradients": False, "training": False},
            "parameters": {"properties": {parameter: {"default": True, "description": "To do it."}}},
        }

    method = {"id": "two", "title": "Two", "paper": None, "task_families": [], "patterns": ["unstructured"]}
    method |= said("first", calibration=False) | {"variants": {"structured": said("last", calibration=True)}}
    script.answers["GET /v1/methods"] = JSONResponse({"data": [method], "has_more": False, "next_after": None})
    done = scripted("methods", "two")
    first, last = done.out.split("With --pattern structured")
    for part, parameter, needs in ((first, "first", "weights only"), (last, "last", "calibration text")):
        assert f"Does what {parameter} says." in part and needs in part
        assert f"{parameter}\t" in part.partition("--parameter NAME=VALUE")[2]
