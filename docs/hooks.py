"""What mkdocs adds to the pages of this folder: READMEs of the members, pages of results, and the API.

Links work on both sides. A page links to files of the repository, as its host shows them; on the site such a link leads
to the file's page if it has one, else to the repository.
"""

import json
import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
RESULTS = ROOT / "benchmarks" / "results"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
NAME = re.compile(r"(\w+) as \1")

EVAL = """# swd_eval

::: swd_eval.runs.evaluate.evaluate
::: swd_eval.geneval.run.score_samples
::: swd_eval.latency.measure
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere, under the names that the navigation has."""
    for path in ROOT.glob("*/*/README.md"):
        if (path.parent / "pyproject.toml").is_file():
            name = path.parent.name
            member = name if name.startswith("swd-") or name == "comfyui" else f"swd-{name}"
            files.append(_file(f"members/{member}.md", path, config))
            for picture in (*path.parent.glob("docs/*.png"), *path.parent.glob("*/*.png")):
                uri = f"members/{member}/{picture.relative_to(path.parent).as_posix()}"
                if files.get_file_from_path(uri) is None:
                    files.append(_file(uri, picture, config))
    for path in (*RESULTS.glob("*.md"), *RESULTS.glob("*.png"), *RESULTS.glob("gpu/*.md")):
        files.append(_file(f"results/{path.relative_to(RESULTS).as_posix()}", path, config))
    for stub in ROOT.glob("*/*/src/*/__init__.pyi"):
        name = stub.parent.name
        files.append(File.generated(config, f"api/{name}.md", content=_api(name, stub.read_text(encoding="utf-8"))))
    files.append(File.generated(config, "api/swd_eval.md", content=EVAL))
    files.append(File.generated(config, "notebook.md", content=_notebook(NOTEBOOK)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository lead to their pages, or to the repository."""
    source = page.file.abs_src_path
    if source is None:
        return markdown
    places = {
        os.path.realpath(file.abs_src_path): file.src_uri for file in files.documentation_pages() if file.abs_src_path
    }
    places |= {os.path.realpath(file.abs_src_path): file.src_uri for file in files.media_files() if file.abs_src_path}
    places[str(NOTEBOOK)] = "notebook.md"

    def moved(match: re.Match[str]) -> str:
        link, _, anchor = match[2].partition("#")
        if not link or ":" in link or link.startswith("/"):
            return match[0]
        target = Path(source).parent / link
        if not target.exists():
            return match[0]  # mkdocs says so
        real = target / "README.md" if (target / "README.md").is_file() else target
        uri = places.get(os.path.realpath(real))
        if uri is None:
            kind = "tree" if target.is_dir() else "blob"
            place = Path(os.path.realpath(target)).relative_to(ROOT).as_posix()
            return f"{match[1]}{config.extra['repository']}/{kind}/main/{place}{'#' * bool(anchor)}{anchor}{match[3]}"
        here = posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
        return f"{match[1]}{here}{'#' * bool(anchor)}{anchor}{match[3]}"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def _file(uri: str, path: Path, config: MkDocsConfig) -> File:
    return File.generated(config, uri, abs_src_path=str(path))


def _notebook(path: Path) -> str:
    """Return a notebook as a page: its text, its code, and what that printed and drew."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if text := "".join(output.get("text", [])).rpartition("\r")[2].strip():
                parts.append(f"```text\n{text}\n```")
            if picture := output.get("data", {}).get("image/png"):
                parts.append(f'<img alt="what the code draws" src="data:image/png;base64,{picture.strip()}">')
    return "\n\n".join(parts) + "\n"


def _api(name: str, stub: str) -> str:
    """Return a page of a package's public names, module by module, as its stub names them."""
    lines = [f"# {name}", "", f"What `import {name}` gives, by module.", ""]
    for module, names in re.findall(r"^from \.([\w.]+) import (\([^)]*\)|.*)$", stub, re.MULTILINE):
        lines += [f"## {module}", ""]
        lines += [f"::: {name}.{module}.{public}" for public in NAME.findall(names)]
        lines.append("")
    return "\n".join(lines)
