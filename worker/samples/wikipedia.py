"""Wikipedia articles from a MediaWiki export: prose only, one string per article."""

import bz2
import contextlib
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import mwparserfromhell
from mwparserfromhell.nodes import Node
from mwparserfromhell.wikicode import Wikicode

NOT_PROSE_TAGS = {"ref", "table", "gallery", "math", "timeline", "score"}
NOT_PROSE_LINKS = re.compile(r"\s*(file|image|category)\s*:", re.IGNORECASE)
APPARATUS = re.compile(
    r"\s*(references|notes|footnotes|citations|sources|bibliography|further reading|see also|external links)\s*",
    re.IGNORECASE,
)
SHORTEST_ARTICLE = 1000
"""Smallest number of characters of prose; shorter articles are stubs, or lists whose tables held the content."""


def articles(export_bz2: bytes) -> list[str]:
    """Return the prose of every article in the main namespace, in the export's order.

    Redirects and very short articles are left out. Markup, tables, references, images and the closing sections
    (references, external links…) are dropped.
    """
    texts = (prose(markup) for markup in _markups(bz2.decompress(export_bz2)))
    return [text for text in texts if len(text) >= SHORTEST_ARTICLE]


def prose(markup: str) -> str:
    sections = mwparserfromhell.parse(markup).get_sections(levels=[2], include_lead=True)
    text = "\n\n".join(_section_prose(section) for section in sections if not _is_apparatus(section))
    lines = (line.strip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _is_apparatus(section: Wikicode) -> bool:
    heading = next(iter(section.filter_headings()), None)
    return heading is not None and heading.level == 2 and bool(APPARATUS.fullmatch(str(heading.title)))


def _section_prose(section: Wikicode) -> str:
    nodes: list[Node] = [
        *section.filter_tags(matches=lambda tag: str(tag.tag).strip().lower() in NOT_PROSE_TAGS),
        *section.filter_wikilinks(matches=lambda link: bool(NOT_PROSE_LINKS.match(str(link.title)))),
    ]
    for node in nodes:
        with contextlib.suppress(ValueError):  # it was removed with the node around it
            section.remove(node)
    return str(section.strip_code())


def _markups(export: bytes) -> Iterator[str]:
    for _, element in ElementTree.iterparse(io.BytesIO(export)):
        if _name(element) != "page":
            continue
        children = {_name(child): child for child in element}
        text = next((child.text for child in children["revision"] if _name(child) == "text"), None)
        is_redirect = "redirect" in children or (text or "").lstrip().lower().startswith("#redirect")
        if children["ns"].text == "0" and not is_redirect and text:
            yield text
        element.clear()


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
