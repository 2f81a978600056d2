"""Tables as Markdown, on the terminal and in a page that a command rewrites in part."""

from collections.abc import Sequence
from pathlib import Path


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded columns; the first two columns are text, the others numbers."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if n < 2 else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [":" + "-" * (width - 1) if n < 2 else "-" * (width - 1) + ":" for n, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`; raises ValueError where the page lacks them."""
    content = page.read_text()
    before, opening, rest = content.partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not opening or not closing:
        raise ValueError(f"{page} has no section {name}")
    page.write_text(f"{before}{opening}{text.strip()}\n{closing}{after}")
