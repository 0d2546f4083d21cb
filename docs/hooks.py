"""What MkDocs puts on the site besides the pages of this folder."""

import pathlib

from mkdocs.structure import files as structure

_ROOT = pathlib.Path(__file__).resolve().parents[1]
# Pages at the top of the repository, and where they are on the site.
_PAGES = {
    "REPRODUCTION.md": "reproduction.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# The site has its own home page, so links to the README lead there.
_LINKS = {**_PAGES, "README.md": "index.md"}


def on_files(files, config):
    """Adds those pages and their pictures."""

    def add(uri, content, inclusion=structure.InclusionLevel.UNDEFINED):
        files.append(
            structure.File.generated(
                config, src_uri=uri, content=content, inclusion=inclusion
            )
        )

    for name, uri in _PAGES.items():
        text = (_ROOT / name).read_text(encoding="utf-8")
        # From the top of the repository to the top of the site.
        text = text.replace("](docs/", "](")
        for other, page in _LINKS.items():
            text = text.replace(f"]({other}", f"]({page}")
        add(uri, text)
    for path in sorted((_ROOT / "reproduction").glob("*.png")):
        add(f"reproduction/{path.name}", path.read_bytes())
    for path in sorted((_ROOT / "reproduction").glob("*.md")):
        # REPRODUCTION.md links to them.
        add(
            f"reproduction/{path.name}",
            path.read_text(encoding="utf-8"),
            structure.InclusionLevel.NOT_IN_NAV,
        )
    return files


def on_page_markdown(markdown, page, config, files):
    """Links from this folder to those pages and pictures."""
    for up in ("", "../"):
        markdown = markdown.replace(
            f"]({up}../reproduction/", f"]({up}reproduction/"
        )
    for name, uri in _LINKS.items():
        for up in ("", "../"):
            markdown = markdown.replace(f"]({up}../{name}", f"]({up}{uri}")
    return markdown
