"""Command `secateur doctor`: what is missing on this machine, and what to do about each."""

import typer
from pydantic import JsonValue

from secateur.cli.output import JsonOption, print_json, print_table, say
from worker.cli.errors import FAILED


def doctor(as_json: JsonOption = False) -> None:
    """Say what is missing on this machine, and what to do about each. Ends with 1 if anything is.

    Warnings name what works, but with less than it could have. Nothing is started or changed.
    """
    from worker.doctor.examination import examine

    findings = list(examine())
    if as_json:
        documents: list[JsonValue] = [each.model_dump() for each in findings]
        print_json(documents)
    else:
        print_table(("what", "state", "detail"), [(each.what, each.state, each.detail) for each in findings])
        for each in findings:
            if each.to_do is not None:
                say(f"{each.what}, what to do: {each.to_do}")
    if any(each.state == "missing" for each in findings):
        raise typer.Exit(FAILED)
