"""Drawing of the packages and what imports what: `python -m tests.style.drawing` writes docs/architecture.svg.

Boxes and arrows come from the sources, the order of boxes from the import rules in pyproject.toml, lowest at the left.
"""

import tomllib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import grimp

ROOT = Path(__file__).parents[2]
DRAWING = ROOT / "docs" / "architecture.svg"
_RULES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
_WINGS = ("core.engine", "core.methods", "core.pipeline", "core.service")

_WIDTH, _MARGIN, _TITLE, _GAP = 1060, 20, 190, 46
_BOX, _LINE, _SPACE, _LEAST_HEIGHT = 128, 32, 8, 70
_BLUE, _RED, _INK, _PAPER = "#2f6f9f", "#b3261e", "#1d2733", "#ffffff"


@dataclass(frozen=True)
class Floor:
    """Packages drawn side by side, the one that holds them first: its box is of the modules that lie in no package."""

    title: str
    about: str
    packages: tuple[str, ...]


def floors(graph: grimp.ImportGraph) -> list[Floor]:
    """Return the floors of the house, highest first; every package of the product is on one."""
    ranks = _ranks()

    def within(container: str, *apart: str) -> tuple[str, ...]:
        packages = [name for name in graph.find_children(container) if graph.find_children(name)]
        packages.sort(key=lambda name: (ranks.get(name, len(ranks)), name))
        modules = [name for name in graph.find_children(container) if not graph.find_children(name)]
        return (*([container] if modules else []), *(name for name in packages if name not in apart))

    return [
        Floor("api", "REST and portal", within("api")),
        Floor("worker", "processes that claim, fetch, prune and end jobs", within("worker")),
        Floor("core.service", "who may ask, what waits, what is kept", within("core.service")),
        Floor("core.pipeline", "one job, from recipe to artifact", within("core.pipeline")),
        Floor("core.methods", "the published methods", within("core.methods")),
        Floor("core.engine", "tensors and files in, tensors and files out", within("core.engine")),
        Floor("core", "what all wings stand on", within("core", *_WINGS)),
        Floor("client", "types of requests and answers; the Python client", ("secateur_wire", "secateur")),
    ]


def draw(graph: grimp.ImportGraph) -> str:
    """Return the drawing as SVG."""
    house = floors(graph)
    places: dict[str, tuple[float, float]] = {}
    svg = Element("svg", xmlns="http://www.w3.org/2000/svg", role="img")
    SubElement(svg, "title").text = "Packages of Secateur and their imports"
    top = float(_MARGIN)
    spans = []
    for floor in house:
        columns = (_WIDTH - _TITLE - 2 * _MARGIN) // (_BOX + _SPACE)
        rows = -(-len(floor.packages) // columns)
        height = float(max(rows * (_LINE + _SPACE) + _SPACE, _LEAST_HEIGHT))
        _rectangle(svg, _MARGIN, top, _WIDTH - 2 * _MARGIN, height, fill="#eef3f7", stroke="#c6d3de")
        _text(svg, _MARGIN + 12, top + 26, floor.title, size=15, weight="bold")
        for number, line in enumerate(_wrapped(floor.about, 26)):
            _text(svg, _MARGIN + 12, top + 44 + 14 * number, line, size=11)
        for number, name in enumerate(floor.packages):
            left = _MARGIN + _TITLE + number % columns * (_BOX + _SPACE)
            places[name] = (left, top + _SPACE + number // columns * (_LINE + _SPACE))
        spans.append((top, top + height))
        top += height + _GAP
    _arrows(svg, graph, house, spans)
    for name, place in places.items():
        _box(svg, graph, name, _own_modules(graph, name, places), *place)
    svg.set("viewBox", f"0 0 {_WIDTH} {top - _GAP + _MARGIN:g}")
    indent(svg)
    text: str = tostring(svg, encoding="unicode")
    return f"{text}\n"


def _arrows(
    svg: Element, graph: grimp.ImportGraph, house: Sequence[Floor], spans: Sequence[tuple[float, float]]
) -> None:
    """Draw an arrow for each pair of floors of which one imports from the other, a red one where it runs up."""
    pairs: set[tuple[int, int]] = set()
    floor_of = {name: number for number, floor in enumerate(house) for name in floor.packages}
    for module in graph.modules:
        start = _owner(module, floor_of)
        for imported in graph.find_modules_directly_imported_by(module):
            end = _owner(imported, floor_of)
            if start is not None and end is not None and start != end:
                pairs.add((start, end))
    step = (_WIDTH - _TITLE - 2 * _MARGIN - 40) / max(len(pairs), 1)
    for number, (start, end) in enumerate(sorted(pairs)):
        runs_up = end < start
        x = _MARGIN + _TITLE + 20 + number * step
        y1, y2 = (spans[start][0], spans[end][1]) if runs_up else (spans[start][1], spans[end][0])
        colour = _RED if runs_up else _BLUE
        line = {"x1": f"{x:.0f}", "y1": f"{y1:g}", "x2": f"{x:.0f}", "y2": f"{y2:g}"}
        arrow = SubElement(svg, "line", line, stroke=colour, opacity="0.75")
        arrow.set("stroke-width", "1.5")
        tip = y2 - 7 if y2 > y1 else y2 + 7
        SubElement(svg, "polygon", points=f"{x - 4:.0f},{tip:g} {x + 4:.0f},{tip:g} {x:.0f},{y2:g}", fill=colour)
        if runs_up:
            arrow.set("class", "runs-up")


def _box(svg: Element, graph: grimp.ImportGraph, name: str, modules: Sequence[str], left: float, top: float) -> None:
    box = SubElement(svg, "g")
    used = sorted({_package(each) for module in modules for each in _imports(graph, module, name)})
    SubElement(box, "title").text = f"{name} imports {', '.join(used) or 'nothing of the product'}"
    _rectangle(box, left, top, _BOX, _LINE, fill=_PAPER, stroke=_BLUE)
    title = name.rpartition(".")[2]
    _text(box, left + 8, top + 20, title, size=12 if len(title) < 16 else 10, weight="bold")


def _imports(graph: grimp.ImportGraph, module: str, package: str) -> Iterable[str]:
    for imported in graph.find_modules_directly_imported_by(module):
        if imported.split(".")[0] in _RULES["root_packages"] and not f"{imported}.".startswith(f"{package}."):
            yield imported


def _package(module: str) -> str:
    return ".".join(module.split(".")[: 3 if module.startswith(_WINGS) else 2])


def _owner(module: str, floor_of: dict[str, int]) -> int | None:
    """Return the floor of a module: that of the longest package it lies in."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((floor_of[name] for name in names if name in floor_of), None)


def _own_modules(graph: grimp.ImportGraph, name: str, places: Collection[str]) -> list[str]:
    """Return the modules of a box: those of the package that have no nearer box of their own."""
    modules = [name, *graph.find_descendants(name)]
    apart = tuple(f"{other}." for other in places if other.startswith(f"{name}."))
    return [module for module in modules if not f"{module}.".startswith(apart)]


def _ranks() -> dict[str, int]:
    """Return the place of each package from the lowest up, as the import rules order them."""
    ranks: dict[str, int] = {}
    for contract in _RULES["contracts"]:
        for container in contract.get("containers", []):
            for rank, layer in enumerate(reversed(contract["layers"])):
                ranks |= {f"{container}.{name.strip()}": rank for name in layer.split("|")}
    return ranks


def _rectangle(parent: Element, x: float, y: float, width: float, height: float, *, fill: str, stroke: str) -> None:
    size = {"x": f"{x:g}", "y": f"{y:g}", "width": f"{width:g}", "height": f"{height:g}", "rx": "4"}
    SubElement(parent, "rect", size, fill=fill, stroke=stroke)


def _text(
    parent: Element, x: float, y: float, text: str, *, size: int, weight: str = "normal", fill: str = _INK
) -> None:
    place = {"x": f"{x:.0f}", "y": f"{y:.0f}", "font-size": str(size), "font-weight": weight}
    SubElement(parent, "text", place, fill=fill).text = text
    parent[-1].set("font-family", "system-ui, sans-serif")


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def drawn() -> str:
    """Return the drawing of the sources as they are."""
    return draw(grimp.build_graph(*_RULES["root_packages"], cache_dir=None))


if __name__ == "__main__":
    DRAWING.write_text(drawn(), encoding="utf-8")
