"""`secateur methods`: the catalogue of methods and their parameters."""

from typing import Annotated

import typer

from secateur.cli.output import JsonOption, connect, print_json, print_pairs, print_table, say
from secateur_wire.base import JsonObject
from secateur_wire.methods import Method, Needs


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Show one method with its parameters.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the pruning methods, or show one with its parameters."""
    with connect() as client:
        known = client.methods()
    if name is None:
        _print_methods(known, as_json)
        return
    method = next((method for method in known if method.id == name), None)
    if method is None:
        raise typer.BadParameter(f"there is no method {name!r}: use one of {', '.join(method.id for method in known)}")
    _print_method(method, as_json)


def _print_methods(known: list[Method], as_json: bool) -> None:
    if as_json:
        print_json(known)
        return
    print_table(
        ("method", "patterns", "needs", "paper"),
        [(method.id, ", ".join(method.patterns), _needs(method.needs), _paper(method)) for method in known],
    )


def _print_method(method: Method, as_json: bool) -> None:
    if as_json:
        print_json(method)
        return
    print_pairs(
        [
            ("method", f"{method.id} ({method.title})"),
            ("what it does", method.description or method.summary or None),
            ("hardware gains", method.gains or None),
            ("patterns", ", ".join(method.patterns)),
            ("needs", _needs(method.needs)),
            ("paper", f"{_paper(method)}, {method.paper.url}" if method.paper else None),
        ]
    )
    _print_parameters(method.parameters)
    for pattern, variant in method.variants.items():
        say(f"\nWith --pattern {pattern} it is another:\n")
        print_pairs(
            [
                ("what it does", variant.description),
                ("hardware gains", variant.gains),
                ("needs", _needs(variant.needs)),
            ]
        )
        _print_parameters(variant.parameters)


def _print_parameters(parameters: JsonObject) -> None:
    properties = parameters.get("properties")
    if isinstance(properties, dict):
        say("\nParameters, given as --parameter NAME=VALUE:")
        rows = []
        for name, schema in properties.items():
            if isinstance(schema, dict):
                rows.append((name, _default(schema.get("default")), str(schema.get("description", ""))))
        print_table(("name", "default", "meaning"), rows)


def _default(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _needs(needs: Needs) -> str:
    words = [
        word
        for word, needed in (
            ("calibration text", needs.calibration),
            ("gradients", needs.gradients),
            ("training", needs.training),
        )
        if needed
    ]
    return ", ".join(words) or "weights only"


def _paper(method: Method) -> str:
    return f"{method.paper.authors} {method.paper.year}" if method.paper else ""
