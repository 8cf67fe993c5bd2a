"""What the site shows that stands elsewhere: the README, the lessons, KaTeX.

A hook of MkDocs (`make docs`). Pages link to files of the repository as they do on
GitHub; here such a link becomes the page that is made of the file, or the file's address
in the repository.
"""

import base64
import pathlib
import posixpath
import re
import sys

import nbformat
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

DOCS = pathlib.Path(__file__).parent
ROOT = DOCS.parent
PACKAGES = DOCS / "node_modules"
sys.path.insert(0, str(ROOT / "notebooks"))
from build import address

# Pages that are made of files outside `docs/`, by file.
PAGES = {
    "README.md": "index.md",
    "notebooks/README.md": "lessons/index.md",
    "notebooks/TEACHERS.md": "lessons/teachers.md",
} | {
    f"notebooks/{it.name}": f"lessons/{it.stem}.md"
    for it in (ROOT / "notebooks").glob("*.ipynb")
}
SOURCES = {page: source for source, page in PAGES.items()}
REPOSITORY = address()
_LINK = re.compile(r"(\]\(|<img src=\")(?!https?:|mailto:|#|data:)([^)\s\"#]+)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
# Badges are pictures from elsewhere, and the site is seen without a network too.
_BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?:[^)]*\)\]\(([^)]*)\)")


def on_config(config):
    """Takes from the site what the theme would fetch from elsewhere."""
    config.extra["polyfills"] = ["assets/npm/iframe-worker/shim/index.js"]
    return config


def on_files(files: Files, config) -> Files:
    """Adds what stands outside `docs/`."""
    made = {}
    for source, page in PAGES.items():
        text = (ROOT / source).read_text()
        made |= page_of(page, text) if source.endswith(".ipynb") else {page: text}
    for path, content in made.items():
        files.append(File.generated(config, path, content=content))
    for path in packages():
        there = f"assets/npm/{path.relative_to(PACKAGES)}"
        files.append(File.generated(config, there, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page, config, files) -> str:
    """Links as they are on GitHub, to where they lead on the site."""
    shown = page.file.src_uri
    stands = SOURCES.get(shown, f"docs/{shown}")
    text = _BADGE.sub(r"[\1](\2)", markdown)

    def lead(link: re.Match) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(stands), link[2]))
        there = address_of(path)
        if "://" not in there:
            there = posixpath.relpath(there, posixpath.dirname(shown) or ".")
        return link[1] + there

    parts = _FENCE.split(text)  # code[it](is) no link
    parts[::2] = [_LINK.sub(lead, part) for part in parts[::2]]
    return "".join(parts)


def address_of(path: str) -> str:
    """A file's place on the site, or where it is shown in the repository.

    Raises:
        PluginError: If there is no such file.
    """
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if not (ROOT / path).exists():
        raise PluginError(f"There is no {path}.")
    return f"{REPOSITORY}/blob/main/{path}"


def page_of(page: str, notebook: str) -> dict[str, str | bytes]:
    """A lesson as Markdown, and its pictures, by their place on the site."""
    made, parts = {}, []
    for number, cell in enumerate(nbformat.reads(notebook, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for place, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{page.removesuffix('.md')}-{number}-{place}.png"
                made[name] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above draws](../docs/{name})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return made | {page: "\n\n".join(parts)}


def packages() -> list[pathlib.Path]:
    """What pages take from npm: KaTeX, and a worker for pages that no server gives.

    Raises:
        PluginError: If they are not installed.
    """
    katex = PACKAGES / "katex/dist"
    fonts = sorted((katex / "fonts").glob("*.woff2"))
    found = [
        PACKAGES / "iframe-worker/shim/index.js",
        katex / "katex.min.css",
        katex / "katex.min.js",
        *fonts,
    ]
    if not fonts or not all(it.exists() for it in found):
        raise PluginError("KaTeX or iframe-worker is missing: npm ci --prefix docs")
    return found
