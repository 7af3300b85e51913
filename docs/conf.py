"""Settings of the documentation site: ``make docs`` builds it into site/ from this folder and the docstrings."""

from __future__ import annotations

import builtins
import re
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from posixpath import normpath, relpath
from typing import Any

from docutils import nodes
from docutils.utils import get_source_line
from sphinx.addnodes import desc_signature, pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyClasslike, PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import torchreptile

project, author, copyright = "torchreptile", "the torchreptile authors", "the torchreptile authors"
version = release = torchreptile.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
highlight_language = "text"
default_role = "code"
suppress_warnings = ["myst.header"]  # README's headings continue under the site's own

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

autoclass_content = "both"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"torchreptile {version}"
html_copy_source = html_show_sphinx = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

DOCS = Path(__file__).parent
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)")
WHOLE_LINK = re.compile(r"(?<!!)\[([^]]*)\]\(([^)\s#:]+)\)")
BARE_LINK = re.compile(r"\[[\w./-]+(?:\.md|/)\](?=\([^)]+\.md[)#])")
ANCHOR = re.compile(r'^<a id="([^"]+)"></a>\s*$', re.MULTILINE)
MODULES = re.compile(r"^<!-- modules of (\S+) -->$", re.MULTILINE)
SECTION = "## {1}\n\n```{{eval-rst}}\n.. automodule:: {0}\n   :show-inheritance:\n```"
RE_EXPORT = re.compile(r"^from \S+ import (\w+) as \1$", re.MULTILINE)
# Packages whose public names are those they re-export.
PACKAGES = ("torchreptile.core.config", "torchreptile.experiments.reproduce")
# Pages of the site that are files of the repository's root.
FROM_ROOT = {"../README.md": "index.md", "../CONTRIBUTING.md": "contributing.md", "../CHANGELOG.md": "changelog.md"}

DOCSTRING_OF = re.compile(r"docstring of (\S+)$")
LINKED = ("class", "exception", "function")
# An indented block that stands by itself, such as an equation: the paragraph's last line before it, and its first line.
INDENTED = re.compile(r"^(\S.*[^\s:]|\S+ .*[^\s:]:)\n\n(    )(?=\S)", re.MULTILINE)
# An entry of an Attributes section that describes several names, with the lines that continue it.
SEVERAL_NAMES = re.compile(r"^    (\w+(?:, \w+)+): (.*\n?(?:     .*\n?)*)", re.MULTILINE)
FIELDS = ("attribute", "data")

field_texts: dict[str, list[str]] = {}
logger = logging.getLogger(__name__)


def for_site(text: str, folder: str, page_folder: str) -> str:
    """Return a page's Markdown with the links that GitHub follows turned into links that the site follows.

    Args:
        text: the page.
        folder: where its file is, relative to docs/; links in it are relative to there.
        page_folder: where the page is in the site, relative to docs/.
    """

    def link(found: re.Match[str]) -> str:
        target = normpath(f"{folder}/{found[1]}")
        return relpath(FROM_ROOT.get(target, target), page_folder)

    def folder_name(found: re.Match[str]) -> str:
        return found[1] if (DOCS / folder / found[2]).is_dir() else found[0]

    text = WHOLE_LINK.sub(folder_name, text)  # a folder has no page
    text = BARE_LINK.sub("[]", LINK.sub(link, text))  # a link that shows a file's name shows the page's title instead
    return ANCHOR.sub(r"(\1)=", text)


def other_modules(page: str) -> str:
    """Replace the comment "modules of PACKAGE" by a section for each of its modules that the page does not name."""

    def sections(found: re.Match[str]) -> str:
        modules = [f"{found[1]}.{it.name}" for it in iter_modules(import_module(found[1]).__path__) if not it.ispkg]
        return "\n\n".join(
            SECTION.format(name, name.partition(".")[2]) for name in modules if f":: {name}\n" not in page
        )

    return MODULES.sub(sections, page)


def rewrite_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Rewrite a page of docs/."""
    folder = str(Path(page).parent)
    source[0] = other_modules(for_site(source[0], folder, folder))


def rewrite_root_page(app: Sphinx, path: Path, page: str, source: list[str]) -> None:
    """Rewrite a file of the repository's root that a page of docs/ includes."""
    source[0] = for_site(source[0], "..", str(Path(page).parent))


def skip(app: Sphinx, what: str, name: str, value: Any, skipped: bool, options: Any) -> bool | None:
    """Leave the package's own names out of the modules that define them: they have a page of their own."""
    return True if any(value is getattr(torchreptile, public) for public in torchreptile.__all__) else None


def list_re_exports() -> None:
    """Give each of ``PACKAGES`` an ``__all__``, without which autodoc takes re-exported names for imported ones."""
    for package in map(import_module, PACKAGES):
        re_exported = RE_EXPORT.findall(Path(str(package.__file__)).read_text(encoding="utf-8"))
        own = [name for name, value in vars(package).items() if getattr(value, "__module__", "") == package.__name__]
        vars(package)["__all__"] = [*re_exported, *(name for name in own if not name.startswith("_"))]


def before_napoleon(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Prepare for napoleon, which takes a field's text before a colon for its type, and one name per attribute."""
    if what in FIELDS:
        field_texts[name] = lines[:]
        return
    lines[:] = INDENTED.sub(r"\1\n\n::\n\n\2", "\n".join(lines)).split("\n")
    if what == "class" and "Attributes:" in lines:
        start = lines.index("Attributes:") + 1
        lines[start:] = SEVERAL_NAMES.sub(one_each, "\n".join(lines[start:])).split("\n")


def one_each(found: re.Match[str]) -> str:
    """Repeat the text of an entry "a, b: text" for each name."""
    return "".join(f"    {name}: {found[2]}" for name in found[1].split(", "))


def after_napoleon(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    """Give a field its text back after napoleon."""
    if what in FIELDS:
        lines[:] = field_texts.pop(name)


@cache
def find(name: str) -> Any:
    """Return the object of that dotted name, or None."""
    first, *rest = name.split(".")
    found = sys.modules.get(first) or getattr(builtins, first, None)
    for number, part in enumerate(rest, 2):
        if not hasattr(found, part) and hasattr(found, "__path__"):
            with suppress(ImportError):
                import_module(".".join(name.split(".")[:number]))
        found = getattr(found, part, None)
    return found


@cache
def documented(domain: PythonDomain) -> dict[int, str]:
    """Return the name under which each class and function is documented, by identity."""
    return {id(find(name)): name for name, it in domain.objects.items() if it.objtype in LINKED}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element) -> nodes.Element | None:
    """Link a name to where its object is documented, whichever of its names is used.

    A name in a docstring that belongs to nothing is a warning; names of type annotations are left as they are.
    """
    if node.get("refdomain") != "py":
        return None
    domain, target = env.domains.python_domain, node["reftarget"]
    place = DOCSTRING_OF.search(get_source_line(node)[0] or "")
    parts = place[1].split(".") if place else []
    scopes = [".".join(parts[:cut]) + "." for cut in range(len(parts), 0, -1)]
    found = next((it for scope in [*scopes, ""] if (it := find(scope + target)) is not None), None)
    if found is not None:
        name = documented(domain).get(
            id(found), f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
        )
        if entry := domain.objects.get(name):
            return domain.resolve_xref(env, node["refdoc"], app.builder, entry.objtype, name, node, content)
    elif "refwarn" in node:
        logger.warning("nothing has the name %r", target, location=node, type="ref")
    return None


def shorten_defaults(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """Write a default that a factory makes as "...", which can be parsed."""
    return signature and signature.replace("<factory>", "..."), returned


def source_module(app: Sphinx, module: str, name: str) -> str:
    """Return the module in whose source an object is shown: its own, or the documented one for other people's types."""
    own = str(getattr(find(f"{module}.{name}"), "__module__", ""))
    return own if own.startswith("torchreptile") else module


def tidy(app: Sphinx, doctree: nodes.document) -> None:
    """Leave out base classes that say nothing, and link an attribute to its own class alone, never to a namesake."""
    for paragraph in [*doctree.findall(nodes.paragraph)]:
        if paragraph.astext() in ("Bases: object", "Bases: ABC"):
            paragraph.parent.remove(paragraph)
    for node in doctree.findall(pending_xref):
        if node.get("reftype") == "obj" and "refwarn" not in node:
            node["refspecific"] = False
    for signature in doctree.findall(desc_signature):  # the package's own names are also found by their modules'
        if signature.get("module") == "torchreptile":
            name = signature["fullname"]
            home = source_module(app, "torchreptile", name.partition(".")[0])
            signature["ids"] += [f"{home}.{name}"] if home != "torchreptile" else []


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    list_re_exports()
    for field in PyClasslike.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.connect("source-read", rewrite_page)
    app.connect("include-read", rewrite_root_page)
    app.connect("autodoc-process-signature", shorten_defaults)
    app.connect("viewcode-follow-imported", source_module)
    app.connect("doctree-read", tidy)
    app.connect("missing-reference", resolve)
