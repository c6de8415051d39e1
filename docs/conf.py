"""How Sphinx builds the site: `python -m sphinx -W --keep-going -b html docs site`.

The pages are plain Markdown, for they are read on the code host too. What only the site needs is done here: the
navigation is made of the lists of links in index.md, and links to files that are no pages lead to the code host.
"""

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from sphinx.addnodes import desc_annotation
from sphinx.ext import napoleon

import dotmac_workflows

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

REPOSITORY = "https://github.com/dotmac/dotmac-workflows"

project = "dotmac-workflows"
copyright = "the dotmac-workflows authors"
version = release = dotmac_workflows.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]

# Pages

myst_heading_anchors = 3

# The reference of the public names, from their docstrings

default_role = "py:obj"
add_module_names = False
autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

GOOGLE_STYLE = napoleon.Config(napoleon_use_rtype=False)

# Every name in a docstring or a signature must lead somewhere, save parameters, and what is not ours: the build asks
# no other site, so that it works without a network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:obj", "[a-z_]+"),
    ("py:.*", r"(asyncio|builtins|collections|contextlib|datetime|decimal|enum|logging|os|types|typing|uuid)\..*"),
    ("py:class", r"(dotmac_workflows\.[\w.]+\.)?(T|W|Result)|datetime"),
]

# Looks

html_theme = "furo"
pygments_dark_style = "monokai"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "dotmac-workflows"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": f"{REPOSITORY}/",
    "source_branch": "main",
    "source_directory": "docs/",
}


def link_to_repository(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Let links that lead out of the docs lead to the code host, where those files are shown."""
    folder = PurePosixPath("docs") / PurePosixPath(docname).parent

    def replace(match: re.Match[str]) -> str:
        parts: list[str] = []
        for part in (folder / match[1]).parts:
            parts = parts[:-1] if part == ".." else [*parts, part]
        return match[0] if parts[0] == "docs" else f"]({REPOSITORY}/blob/main/{'/'.join(parts)}"

    source[0] = re.sub(r"\]\(((?:\.\./)+[^)#\s]+)", replace, source[0])


def navigation_of_index(app: "Sphinx", docname: str, source: list[str]) -> None:
    """Make the navigation of the index: each heading with its links to pages is a group of it."""
    if docname != "index":
        return
    for section in re.split(r"(?m)^## ", source[0])[1:]:
        heading, _, text = section.partition("\n")
        pages = re.findall(r"(?m)^- \[([^\]]+)\]\(([^)#:]+)\.(?:md|rst)\)", text)
        if pages:
            entries = "\n".join(f"{title} <{page}>" for title, page in pages)
            source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{entries}\n```\n"


def read_google_style(app: "Sphinx", what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Read the sections of a docstring. Not by the extension, which takes what is before a field's colon for a type."""
    kind = "method" if what in ("attribute", "data", "property") else what
    lines[:] = napoleon.GoogleDocstring(lines, GOOGLE_STYLE, app, kind, name, value, options).lines()


def find_public_name(
    app: "Sphinx", env: "BuildEnvironment", node: "pending_xref", text: "nodes.TextElement"
) -> "nodes.Element | None":
    """Find a name that a docstring of another module uses, where users find it."""
    if node["refdomain"] != "py":
        return None
    name = node["reftarget"].removeprefix("dotmac_workflows.").removeprefix("persistence.")
    for module in ("dotmac_workflows", "dotmac_workflows.persistence", "dotmac_workflows.testing"):
        found = env.domains.python_domain.resolve_xref(
            env, node["refdoc"], app.builder, "obj", f"{module}.{name}", node, text
        )
        if found is not None:
            return found
    return None


def leave_out_defaults(app: "Sphinx", domain: str, kind: str, content: "nodes.Element") -> None:
    """Show no value of an attribute that is None, or an object that has no short form."""
    if (domain, kind) == ("py", "attribute"):
        for value in list(content.parent.findall(desc_annotation)):
            if re.match(" = (None$|.*<)", value.astext(), re.DOTALL):
                value.parent.remove(value)


def setup(app: "Sphinx") -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_google_style)
    app.connect("missing-reference", find_public_name)
    app.connect("object-description-transform", leave_out_defaults)
    app.connect("source-read", link_to_repository)
    app.connect("source-read", navigation_of_index)
