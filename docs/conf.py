"""How Sphinx builds the site: `make site`."""

import inspect
import re
import shutil
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import sklearn_probmix

HERE = Path(__file__).parent

project = "sklearn-probmix"
author = copyright = "The sklearn-probmix developers"
version = release = sklearn_probmix.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
]
root_doc = "index"
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
html_theme = "pydata_sphinx_theme"
html_title = project
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {"show_prev_next": False, "header_links_before_dropdown": 5}
html_sidebars = {
    f"site/{page}": [] for page in ("changelog", "coming_from", "release_0_2", "theory")
}

# Notebooks are shown as they were run last; `make notebooks` runs them.
nb_execution_mode = "off"
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
numpydoc_show_class_members = False
# A default such as () is no reference.
autodoc_typehints = "none"

MODULES = {
    "sklearn_probmix": None,
    "sklearn_probmix.metrics": None,
    "sklearn_probmix.survival": None,
    "sklearn_probmix.forecasts": None,
    "sklearn_probmix.families": None,
    "sklearn_probmix.components": None,
    "sklearn_probmix.modules": None,
    "sklearn_probmix.datasets": None,
    "sklearn_probmix.skpro_regressor": "skpro",
    "sklearn_probmix.skpro_distribution": "skpro",
}


def public_names(module):
    """Yield names of the classes and functions that a page of their own describes."""
    exported = module.__all__ if module is sklearn_probmix else vars(module)
    for name in sorted(exported):
        made = getattr(module, name)
        is_own = module is sklearn_probmix or getattr(made, "__module__", "") == module.__name__
        is_described = inspect.isclass(made) or inspect.isfunction(made)
        if is_own and is_described and not name.startswith("_"):
            yield name


def write_api(app, config):
    """Write the page of all public names, from which autosummary makes one for each."""
    lines = ["API reference", "=============", ""]
    for name, needs in MODULES.items():
        if needs is None or find_spec(needs):
            module = import_module(name)
            lines += [name, "-" * len(name), "", inspect.getdoc(module).partition("\n\n")[0], ""]
            lines += [f".. currentmodule:: {name}", "", ".. autosummary::", "   :toctree:", ""]
            lines += [*(f"   {each}" for each in public_names(module)), ""]
    folder = HERE / "api"
    folder.mkdir(exist_ok=True)
    (folder / "index.rst").write_text("\n".join(lines), encoding="utf-8")


def copy_pages(app, config):
    """Copy notebooks and reports of benchmarks: Sphinx reads what is below its folder only."""
    for pattern in ("notebooks/*.ipynb", "benchmarks/*/*.md"):
        shutil.rmtree(HERE / pattern.partition("/")[0], ignore_errors=True)
        for page in HERE.parent.glob(pattern):
            copy = HERE / page.relative_to(HERE.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(page, copy)


def adapt(app, docname, source):
    """Have links lead to the copies, and examples end without the empty line of a doctest."""
    linked = re.sub(r"\]\((?:\.\./)+(?:docs/)?", "](/", source[0])
    source[0] = linked.replace("\n\n```\n", "\n```\n")


def is_left_out(app, what, name, made, skip, options):
    """Say whether a member is left out: what scikit-learn, torch and skpro put there is theirs."""
    function = made.fget if isinstance(made, property) else made
    module = getattr(function, "__module__", None) or ""
    return skip or (callable(function) and not module.startswith("sklearn_probmix"))


def write_formula(translator, node):
    """Write MathML, which browsers show by themselves: MathJax would come from elsewhere."""
    # No space would be set between a function's name and its argument.
    formula = re.sub(r"\\(log|sin|cos) (?=\w)", r"\\\1\\,", node.astext())
    is_block = isinstance(node, nodes.math_block)
    written = tex2mathml(formula, is_block)
    translator.body.append(f"<p>{written}</p>" if is_block else written)
    raise nodes.SkipNode


def setup(app):
    """Connect what happens before Sphinx looks for pages."""
    for prepare in (write_api, copy_pages):
        app.connect("config-inited", prepare)
    app.connect("autodoc-skip-member", is_left_out)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("source-read", adapt)
