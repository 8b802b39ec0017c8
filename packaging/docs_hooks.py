"""What mkdocs does with pages beyond its own: texts that live elsewhere in the project become pages of the site.

README.md and ARCHITECTURE.md are pages as they are; ``<!-- README: title -->`` in a page stands for that section of
README.md, so that what tests run is what the site shows. Links to files of the project lead to copies in the site; one
to a file that is not there ends the build.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parent.parent
PAGES = {"index.md": "README.md", "architecture.md": "ARCHITECTURE.md", "changelog.md": "CHANGELOG.md"}
"""Pages that are files elsewhere."""
SOURCE = "source"
"""Where copies of other files are."""

_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_SECTION = re.compile(r"<!-- README: (.+?) -->")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def _home(uri: str) -> Path:
    """The directory, within the project, that the links of a page start at."""
    return Path() if uri in PAGES else Path("docs") / Path(uri).parent


def _text(uri: str) -> str:
    text = (PROJECT / PAGES.get(uri, f"docs/{uri}")).read_text(encoding="utf-8")
    return _SECTION.sub(lambda found: _section(found[1]), text)


def _section(title: str) -> str:
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    if found is None:
        raise PluginError(f"README.md has no section {title!r}")
    return found[1].strip()


def _target(uri: str, link: str) -> str:
    """Where a link of a page leads, from the top of the project."""
    parts: list[str] = []
    for part in (_home(uri) / link).parts:
        if part == ".." and parts:
            parts.pop()
        else:
            parts.append(part)
    path = "/".join(parts)
    if not (PROJECT / path).exists():
        raise PluginError(f"{PAGES.get(uri, f'docs/{uri}')} links to {link}, which is not there")
    return path


def _in_site(path: str) -> str:
    """Where a file or directory of the project is in the site."""
    for page, source in PAGES.items():
        if path == source:
            return page
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{SOURCE}/{path}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are files elsewhere, and copies of what pages link to."""
    for page in PAGES:
        files.append(File.generated(config, page, content=_text(page)))
    linked = {
        _target(file.src_uri, found[1])
        for file in files.documentation_pages()
        for prose in _FENCE.split(_text(file.src_uri))[::2]
        for found in _LINK.finditer(prose)
    }
    for path in sorted(linked):
        uri = _in_site(path)
        if uri.startswith(f"{SOURCE}/") and (PROJECT / path).is_file():
            # As text, so that browsers show it.
            files.append(File.generated(config, f"{uri}.txt", content=(PROJECT / path).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Sections of README.md, and links as the site has them."""
    uri = page.file.src_uri
    up = "../" * uri.count("/")
    text = _SECTION.sub(lambda found: _section(found[1]), markdown)

    def link(found: re.Match[str]) -> str:
        path = _target(uri, found[1])
        there = _in_site(path)
        if there.startswith(f"{SOURCE}/"):
            if (PROJECT / path).is_dir():
                raise PluginError(f"{uri} links to the directory {path}; link to a file in it")
            there += ".txt"
        return f"]({up}{there}{found[2] or ''})"

    pieces = _FENCE.split(text)
    pieces[::2] = [_LINK.sub(link, prose) for prose in pieces[::2]]
    return "".join(pieces)
