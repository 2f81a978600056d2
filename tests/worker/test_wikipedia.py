"""Markup to prose."""

import bz2

from worker.samples.wikipedia import SHORTEST_ARTICLE, articles, prose

MARKUP = """
{{Infobox thing|name=Pear}}
The '''pear''' is a [[fruit|sweet fruit]].<ref>A book, p. 7</ref> [[File:Pear.jpg|thumb|A pear]]

== Growing ==
Pears grow on [[tree]]s.
{| class="wikitable"
| variety || taste
|}

== References ==
{{reflist}}
* A source
"""


def test_prose_keeps_sentences_and_headings_and_drops_the_apparatus() -> None:
    assert prose(MARKUP) == "The pear is a sweet fruit.\n\nGrowing\nPears grow on trees."


def page(title: str, namespace: int, text: str, redirect: str = "") -> str:
    return f"<page><title>{title}</title><ns>{namespace}</ns>{redirect}<revision><text>{text}</text></revision></page>"


def test_only_articles_of_the_main_namespace_are_taken_in_order() -> None:
    long = "A sentence that says little. " * (SHORTEST_ARTICLE // 20)
    pages = [
        page("One", 0, "One. " + long),
        page("Moved", 0, "#REDIRECT [[One]]", '<redirect title="One" />'),
        page("Moved too", 0, "#redirect [[One]]" + long),
        page("Help:Me", 12, long),
        page("Stub", 0, "Short."),
        page("Two", 0, "Two. " + long),
    ]
    export = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{"".join(pages)}</mediawiki>'
    assert [text[:4] for text in articles(bz2.compress(export.encode()))] == ["One.", "Two."]
