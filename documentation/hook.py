"""MkDocs hook: adds the generated pages to the site, and the lists of methods and decisions to its navigation.

`make docs` builds the site. A generated page is a text of Markdown at a path of `docs/`, where no file lies.
"""

import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from core.methods.registry import METHODS
from documentation import choice, methods, notebooks, reference

ROOT: Final = Path(__file__).parents[1]
_CHANGELOG: Final = "changelog.md"
_CONTRIBUTING: Final = "contributing.md"
_RECORDS: Final = ("adr/", _CHANGELOG, "claims.md", "frontier-tried.md")
"""Pages that a search lists after others."""
_CHOICE: Final = "choose.md"


def generated() -> dict[str, str]:
    """Return the text of every generated page by its path in the site."""
    return {
        "methods/index.md": methods.index(),
        **{f"methods/{each.id}.md": methods.page(each) for each in METHODS.values()},
        "reference/command-line.md": reference.command_line(),
        "reference/api.md": reference.calls(),
        "reference/authorization.md": reference.authorization(),
        **{
            f"tutorials/{path.stem}.md": notebooks.page(path)
            for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
        },
        _CHANGELOG: (ROOT / "CHANGELOG.md").read_text("utf-8").replace("](docs/", "]("),
        _CONTRIBUTING: _outside((ROOT / "CONTRIBUTING.md").read_text("utf-8").replace("](docs/", "](")),
    }


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of a folder in the place of its name in the navigation."""
    folders: dict[str, list[Any]] = {
        "methods": [{name: [f"methods/{each.id}.md" for each in group]} for name, group in methods.groups().items()],
        "adr": [f"adr/{each.name}" for each in sorted((ROOT / "docs" / "adr").glob("*.md"))],
    }
    config.nav = _filled(config.nav, folders)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    files.append(File.generated(config, "assets/icon.svg", abs_src_path=str(ROOT / "api/portal/static/icon.svg")))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put the measured table in its place, rank records last in searches, and mend links to the changelog."""
    if page.file.src_uri.startswith(_RECORDS):
        page.meta["search"] = {"boost": 0.3}
    if page.file.src_uri == _CHOICE:
        markdown = markdown.replace("<!-- measured -->", choice.measured_table())
    return re.sub(r"\]\(\s*\.\./CHANGELOG\.md\)", f"]({_CHANGELOG})", markdown)


def _outside(text: str) -> str:
    """Return a text whose links to files that the site does not have are the names of these files."""
    return re.sub(r"\[[^\]]*\]\(((?:[A-Z_]+\.md|LICENSE))\)", r"`\1`", text)


def _filled(nav: Any, folders: dict[str, list[Any]]) -> Any:
    if isinstance(nav, dict):
        return {name: _filled(each, folders) for name, each in nav.items()}
    if isinstance(nav, list):
        filled = [_filled(each, folders) for each in nav]
        return [page for each in filled for page in (folders.get(each, [each]) if isinstance(each, str) else [each])]
    return nav
