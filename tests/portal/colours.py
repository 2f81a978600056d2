"""Contrast as axe-core sees it, looked at once for each combination of colours: they repeat from page to page, and are
most of what axe-core takes its time for.
"""

from typing import Final, Literal

from axe_playwright_python.base import AxeResults
from playwright.sync_api import Page

Scheme = Literal["light", "dark"]
RULES: Final = ("color-contrast", "link-in-text-block")
_LOOK = """
([seen, rules]) => {
    const known = new Set(seen), chosen = new Map(), below = new Map();
    const grounds = element => {
        if (!element) return "";
        if (!below.has(element)) {
            const style = getComputedStyle(element);
            const own = [style.backgroundColor, style.backgroundImage, style.opacity].join();
            const plain = own === "rgba(0, 0, 0, 0),none,1";
            below.set(element, grounds(element.parentElement) + (plain ? "" : "/" + own));
        }
        return below.get(element);
    };
    const hasText = element => element.matches("input, select, textarea")
        || [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    for (const element of document.body.querySelectorAll("*")) {
        if (!hasText(element) || !element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})) continue;
        const style = getComputedStyle(element), around = getComputedStyle(element.parentElement);
        const key = [
            grounds(element), style.color, style.fontSize, style.fontWeight, style.textShadow,
            element.tagName, element.matches(":disabled"), style.textDecorationLine, around.color,
        ].join(";");
        if (!known.has(key) && !chosen.has(key)) chosen.set(key, element);
    }
    if (!chosen.size) return {looked: [], violations: []};
    const options = {resultTypes: ["violations", "incomplete"], runOnly: rules, elementRef: true};
    return axe.run({include: [...chosen.values()]}, options).then(({violations, incomplete}) => {
        const undecided = new Set(incomplete.flatMap(({nodes}) => nodes.map(node => node.element)));
        for (const {nodes} of violations) for (const node of nodes) delete node.element;
        return {looked: [...chosen.keys()].filter(key => !undecided.has(chosen.get(key))), violations};
    });
}
"""
"""What text has for colour and size, what lies below it, and of a link the colour around it: all that the rules look
at. What axe-core cannot decide is looked at again where it comes next."""

_looked: dict[Scheme, set[str]] = {"light": set(), "dark": set()}


def faulty_colours(page: Page, scheme: Scheme) -> AxeResults:
    """Return axe-core's results for what no page of this process had before, in the scheme that the page is in."""
    found = page.evaluate(_LOOK, [sorted(_looked[scheme]), RULES])
    if not found["violations"]:
        _looked[scheme].update(found["looked"])
    return AxeResults(found)
