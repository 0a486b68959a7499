"""How Sphinx builds the site: `make site`."""

import inspect
import json
import re
import shutil
from base64 import b64decode
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
# What docstrings have in single backticks is code, and a link where there is such a name.
default_role = "py:obj"
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
toc_object_entries_show_parents = "hide"
# A default such as () is no reference.
autodoc_typehints = "none"

# What `sklearn_probmix` itself shows, in the order in which a reader looks for it.
GROUPS = {
    "Estimators": "ProbMixupRegressor ProbMixupClassifier Kind DistributionStackingRegressor "
    "DistributionStackingClassifier fit_together",
    "Predictions": "PredictiveDistribution cross_val_predict_proba",
    "Pictures": "PredictiveIntervalDisplay PredictiveDensityDisplay ReliabilityDisplay PITDisplay "
    "MarginalDisplay TrainingHistoryDisplay MixingGraphDisplay",
    "Model files": "save_model load_model export_onnx",
    "Families": "get_family Family Histogram Lattice",
    "Training inside a skorch net": "ProbMixup NegativeLogLikelihood TensorLoader NeighborLoader",
}
MODULES = {
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
INTRODUCTION = """\
API reference
=============

First what ``from sklearn_probmix import ...`` gives, then modules, whose names are imported from
there. Most users need :class:`~sklearn_probmix.ProbMixupRegressor` or
:class:`~sklearn_probmix.ProbMixupClassifier`, and the
:class:`~sklearn_probmix.PredictiveDistribution` that the regressor predicts.
"""
TEXTS = {
    "Predictions": "For ``scoring=`` of scikit-learn's searches there are {scorers}: "
    "minus a score of sklearn_probmix.metrics.",
    "Pictures": "The notebooks show :doc:`intervals and densities </notebooks/01_quickstart>`, "
    ":doc:`reliability and PIT </notebooks/04_trust>` and :doc:`histories of training "
    "</notebooks/03_tuning>`.",
}


def public_names(module):
    """Yield the classes and functions of a module that a page of their own describes.

    A function without an example is a helper of other modules.
    """
    for name, made in sorted(vars(module).items()):
        is_own = getattr(made, "__module__", "") == module.__name__
        is_described = inspect.isclass(made) or (
            inspect.isfunction(made) and ">>>" in (made.__doc__ or "")
        )
        is_shown = is_own and is_described and not name.startswith("_")
        if is_shown and name not in sklearn_probmix.__all__:
            yield name


def section(title, text, module, names):
    """Return lines of a heading, a text and a table of names, which the sidebar shows too."""
    table = [".. autosummary::", "   :toctree:", f"   :caption: {title}", ""]
    heading = [title, "-" * len(title), "", text, "", f".. currentmodule:: {module}", ""]
    return [*heading, *table, *(f"   {name}" for name in names), ""]


def write_api(app, config):
    """Write the page of all public names, from which autosummary makes one for each."""
    scorers = {name for name in sklearn_probmix.__all__ if name.endswith("_scorer")}
    grouped = " ".join(GROUPS.values()).split()
    if {*grouped, *scorers} != {*sklearn_probmix.__all__}:
        raise ValueError(f"GROUPS: {sorted({*grouped, *scorers} ^ {*sklearn_probmix.__all__})}")
    listed = ", ".join(f"``{name}``" for name in sorted(scorers))
    lines = [INTRODUCTION]
    for title, names in GROUPS.items():
        text = TEXTS.get(title, "").format(scorers=listed)
        lines += section(title, text, "sklearn_probmix", names.split())
    for name, needs in MODULES.items():
        if needs is None or find_spec(needs):
            module = import_module(name)
            text = inspect.getdoc(module).partition("\n\n")[0]
            lines += section(name, text, name, public_names(module))
    folder = HERE / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "index.rst").write_text("\n".join(lines), encoding="utf-8")


def copy_pages(app, config):
    """Copy notebooks and reports of benchmarks: Sphinx reads what is below its folder only."""
    for pattern in ("notebooks/*.ipynb", "benchmarks/*/*.md"):
        shutil.rmtree(HERE / pattern.partition("/")[0], ignore_errors=True)
        for page in HERE.parent.glob(pattern):
            copy = HERE / page.relative_to(HERE.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(page, copy)


def write_pictures(app, config):
    """Write the pictures of each notebook beside its copy, numbered: the gallery shows some."""
    for notebook in HERE.glob("notebooks/*.ipynb"):
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        shown = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        pictures = [data["image/png"] for data in shown if "image/png" in data]
        for k, picture in enumerate(pictures, start=1):
            notebook.with_name(f"{notebook.stem}_{k}.png").write_bytes(b64decode(picture))


def adapt(app, docname, source):
    """Have links lead to the copies, and examples end without the empty line of a doctest."""
    linked = re.sub(r"\]\((?:\.\./)+(?:docs/)?", "](/", source[0])
    source[0] = linked.replace("\n\n```\n", "\n```\n")


def is_left_out(app, what, name, made, skip, options):
    """Say whether a member is left out: what scikit-learn, torch and skpro put there is theirs."""
    function = made.fget if isinstance(made, property) else made
    module = getattr(function, "__module__", None) or ""
    is_others = callable(function) and not module.startswith("sklearn_probmix")
    # What `fit` sets stands under Attributes.
    return skip or is_others or (name.endswith("_") and not isinstance(made, property))


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
    for prepare in (write_api, copy_pages, write_pictures):
        app.connect("config-inited", prepare)
    app.connect("source-read", adapt)
    app.connect("autodoc-skip-member", is_left_out)
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
