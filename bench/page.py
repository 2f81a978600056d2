"""Tables as Markdown, on the terminal and in a page that a command rewrites in part."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: int = 2) -> str:
    """A Markdown table with padded columns; the first columns are text, the others numbers."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        padded = [cell.ljust(width) if n < text_columns else cell.rjust(width) for n, (cell, width) in pairs]
        return f"| {' | '.join(padded)} |"

    dashes = ["-" * (width - 1) for width in widths]
    rule = [f":{each}" if n < text_columns else f"{each}:" for n, each in enumerate(dashes)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


MISSING = "–"
"""Cell of a table for what was not run."""


def summary(values: Sequence[float], form: str) -> str:
    """Return the mean, and the deviation and the number where there are several values."""
    several = f" ± {format(stdev(values), form)} ({len(values)})" if len(values) > 1 else ""
    return f"{format(fmean(values), form)}{several}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of the values lies below; NaN where there is none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def milliseconds(seconds: Sequence[float], shares: Sequence[float] = (0.5, 0.99, 1)) -> list[str]:
    """Return cells of a table: percentiles of seconds, in milliseconds; 1 is the most."""
    return [f"{1000 * percentile(seconds, share):.1f}" for share in shares]


def show(text: str, section: str, page: Path | None) -> None:
    """Print a text, and put it in the place of a page's section, where there is a page."""
    print(f"\n{text}", flush=True)
    if page:
        write_section(page, section, text)


def write_section(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`; raises ValueError where the page lacks them."""
    content = page.read_text()
    before, opening, rest = content.partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not opening or not closing:
        raise ValueError(f"{page} has no section {name}")
    page.write_text(f"{before}{opening}{text.strip()}\n{closing}{after}")
