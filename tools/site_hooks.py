"""What the documentation site needs beyond mkdocs: notebooks as pages, and links to files outside ``docs/``."""

import json
import posixpath
import re
from pathlib import PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<!!)\[([^\]\n]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")
FENCED = re.compile(r"^(```.*?^```|~~~.*?^~~~)$", re.MULTILINE | re.DOTALL)


def notebook_as_markdown(text: str, name: str) -> str:
    """A notebook's cells, one after another, and a link to the file.

    Args:
        text: of the ``.ipynb``.
        name: of the file, which stands beside the page.
    """
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"]).strip()
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts.append(f"The page is a notebook: [{name}]({name}).")
    return "\n\n".join(parts) + "\n"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """In the navigation, a notebook stands for its page."""

    def renamed(entry: object) -> object:
        if isinstance(entry, list):
            return [renamed(each) for each in entry]
        if isinstance(entry, dict):
            return {title: renamed(value) for title, value in entry.items()}
        return entry.replace(".ipynb", ".md") if isinstance(entry, str) else entry

    config.nav = renamed(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            page = notebook_as_markdown(file.content_string, PurePosixPath(file.src_uri).name)
            files.append(File.generated(config, file.src_uri.replace(".ipynb", ".md"), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave ``docs/`` lead to the sources, or are text where nobody said where these are."""

    def rewritten(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target))
        if path.startswith("docs/"):
            return match[0]
        base = config.extra["source_url"]
        return f"[{text}]({base.rstrip('/')}/{path}{anchor})" if base else text

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith(("```", "~~~")) else LINK.sub(rewritten, part) for part in parts)
