"""Who may import what: flat, one concept per file, imports only downwards."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import sklearn_probmix

PACKAGE = Path(sklearn_probmix.__file__).parent
FILES = sorted(path.stem for path in PACKAGE.glob("*.py"))
# Big or optional: whoever does not use them must not wait for them, nor need them.
ONLY_INSIDE_FUNCTIONS = {"matplotlib", "pynndescent", "skops"}
# Files that are for those who have a library, and are imported inside of functions.
NEEDS = {"skpro_distribution": "skpro", "skpro_regressor": "skpro"}

# The one way up: a family in a file of its own has its name once that file was loaded.
LOADED_BY_NAME = {"families": {"sklearn_probmix.kinds"}}


class Rule(NamedTuple):
    """Modules of the package directly below, and packages from outside."""

    below: set
    outside: set


RULES = {
    # What is predicted, which both wings know.
    "components": Rule(set(), {"numpy", "scipy"}),
    "scipy_components": Rule({"components"}, {"numpy", "scipy", "scoringrules"}),
    "lattice": Rule({"components"}, {"numpy"}),
    "histogram_components": Rule({"components"}, {"numpy"}),
    "calibration": Rule(set(), {"numpy", "scipy", "sklearn"}),
    "warn": Rule(set(), set()),
    # The left wing trains.
    "devices": Rule(set(), {"torch"}),
    "pooling": Rule(set(), {"torch"}),
    "families": Rule({"pooling", "scipy_components", "calibration"}, {"torch"}),
    "histograms": Rule({"families", "histogram_components", "lattice"}, {"numpy", "torch"}),
    "response": Rule({"families"}, {"torch"}),
    "counts": Rule({"families"}, {"numpy", "torch"}),
    "compound": Rule({"families", "components"}, {"numpy", "torch"}),
    "transformed": Rule({"families", "components"}, {"numpy", "scipy", "torch"}),
    "mixing": Rule({"families", "devices"}, {"numpy", "torch"}),
    "criterion": Rule({"mixing"}, {"torch"}),
    "table": Rule(set(), {"numpy", "skorch", "torch"}),
    "loaders": Rule({"table", "devices"}, {"numpy", "pynndescent", "sklearn", "skorch", "torch"}),
    "modules": Rule({"families"}, {"numpy", "torch"}),
    "kernel": Rule({"modules"}, {"numpy", "torch"}),
    "processes": Rule(set(), {"numpy", "torch"}),
    "ensemble": Rule({"pooling", "processes"}, {"torch"}),
    "callbacks": Rule({"criterion", "ensemble", "loaders"}, {"numpy", "skorch", "torch", "tqdm"}),
    "kinds": Rule(
        {"modules", "compound", "counts", "histograms", "transformed", "options", "warn"},
        {"numpy", "sklearn"},
    ),
    "nets": Rule(
        {"criterion", "ensemble", "kernel", "kinds", "table"},
        {"numpy", "sklearn", "skorch", "torch"},
    ),
    "training": Rule({"callbacks", "nets", "settings"}, {"numpy", "skorch", "torch"}),
    # The right wing judges.
    "floats": Rule(set(), {"numpy"}),
    "quantiles": Rule({"components"}, {"numpy", "scipy"}),
    "crps": Rule({"components", "quantiles"}, {"numpy", "scipy"}),
    "rectified": Rule({"components", "crps"}, {"numpy"}),
    "piecewise": Rule({"components"}, {"numpy"}),
    "outlines": Rule(set(), {"numpy"}),
    "skpro_distribution": Rule(set(), {"numpy", "pandas", "skpro"}),
    "exports": Rule({"components", "skpro_distribution"}, {"numpy", "scipy", "torch"}),
    "distributions": Rule(
        {"scipy_components", "exports", "floats", "quantiles", "crps", "outlines"},
        {"numpy", "scipy"},
    ),
    "forecasts": Rule({"distributions", "piecewise"}, {"numpy", "sklearn"}),
    "metrics": Rule({"distributions"}, {"numpy", "scipy", "scoringrules", "sklearn"}),
    "survival": Rule({"metrics", "floats"}, {"numpy"}),
    "scorers": Rule({"forecasts", "metrics"}, {"numpy", "sklearn"}),
    "plotting": Rule(set(), {"matplotlib", "numpy", "sklearn"}),
    "displays": Rule({"metrics", "plotting"}, {"numpy", "scipy", "sklearn"}),
    "training_displays": Rule({"metrics", "plotting"}, {"matplotlib", "numpy", "sklearn"}),
    "datasets": Rule(set(), {"numpy", "sklearn"}),
    # They meet.
    "settings": Rule({"floats"}, {"sklearn", "threadpoolctl", "torch"}),
    "columns": Rule({"csv_table", "warn"}, {"narwhals", "numpy"}),
    "scaling": Rule({"columns"}, {"numpy", "sklearn", "torch"}),
    "traits": Rule(set(), {"numpy"}),
    "encoding": Rule({"columns", "scaling"}, {"narwhals", "numpy", "scipy", "sklearn", "torch"}),
    "contract": Rule({"encoding"}, {"sklearn"}),
    "options": Rule(set(), {"sklearn"}),
    "codec": Rule({"kinds", "distributions", "columns"}, {"numpy", "torch"}),
    "files": Rule(set(), set()),
    "checkpoint": Rule({"codec", "files"}, {"numpy", "safetensors", "torch"}),
    "dividing": Rule({"kinds", "table"}, {"numpy", "sklearn"}),
    "workers": Rule({"settings"}, {"joblib", "torch"}),
    "progress": Rule(set(), {"numpy", "tqdm"}),
    "race": Rule(
        {"training", "calibration", "checkpoint", "workers", "progress"}, {"numpy", "skorch"}
    ),
    "weighing": Rule(
        {"nets", "response", "calibration", "encoding", "scaling", "settings"},
        {"numpy", "sklearn", "skorch", "torch"},
    ),
    "base": Rule(
        {
            *("race", "weighing", "devices", "dividing"),
            *("contract", "options", "settings", "traits"),
        },
        {"numpy", "sklearn", "skorch", "torch"},
    ),
    "regressor": Rule(
        {"base", "metrics", "compound", "rectified", "warn"},
        {"numpy", "scipy", "sklearn", "skorch", "torch"},
    ),
    "classifier": Rule({"base"}, {"numpy", "sklearn", "skorch", "torch"}),
    "stacking": Rule({"regressor", "classifier", "forecasts"}, {"numpy", "sklearn"}),
    "skpro_regressor": Rule({"regressor"}, {"sklearn", "skpro"}),
    "together": Rule({"base"}, {"numpy", "sklearn"}),
    "onnx_export": Rule({"nets", "scaling", "settings"}, {"numpy", "sklearn", "torch"}),
    "pipelines": Rule({"codec"}, {"numpy", "skops", "sklearn"}),
    "version_1": Rule({"codec"}, {"numpy", "torch"}),
    "persistence": Rule(
        {"version_1", "files", "pipelines", "response", "regressor", "classifier"},
        {"numpy", "safetensors", "sklearn", "skorch", "torch"},
    ),
    "csv_table": Rule(set(), set()),
    "showcase": Rule(
        {"regressor", "classifier", "displays", "forecasts", "settings"},
        {"matplotlib", "numpy", "sklearn"},
    ),
    "demo": Rule({"csv_table", "showcase"}, {"numpy", "sklearn"}),
    "names": Rule(
        {
            *("callbacks", "classifier", "criterion", "displays", "distributions", "families"),
            *("histograms", "kinds", "loaders", "onnx_export", "persistence", "regressor"),
            *("scorers", "stacking", "together", "training_displays"),
        },
        set(),
    ),
}


class Import(NamedTuple):
    name: str
    at_top: bool
    line: int


def all_below(module):
    direct = RULES[module].below
    return direct.union(*(all_below(name) for name in direct))


def parsed(module):
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def names_of(node):
    """Return absolute dotted names; of the package's own modules, the module itself."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    source = node.module or ""
    if node.level:
        source = ".".join(filter(None, ["sklearn_probmix", source]))
    if source == "sklearn_probmix":
        return [f"{source}.{alias.name}" for alias in node.names]
    return [source]


def imports_of(module):
    found = []

    def visit(node, at_top):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.extend(Import(name, at_top, node.lineno) for name in names_of(node))
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_top and not inside)

    visit(parsed(module), at_top=True)
    return found


def split_imports(module):
    """Return the package's own modules and the packages from outside that a module imports."""
    own, outside = set(), set()
    for name in (found.name for found in imports_of(module)):
        top, _, rest = name.partition(".")
        if top == "sklearn_probmix":
            own.add(rest.partition(".")[0] or "__init__")
        elif top not in sys.stdlib_module_names:
            outside.add(top)
    return own, outside


def test_the_package_is_flat_and_every_file_has_its_place():
    folders = [path.name for path in PACKAGE.iterdir() if path.is_dir()]
    assert set(folders) <= {"__pycache__"}
    assert set(FILES) - {"__init__"} <= set(RULES), "give a new file its row in RULES"


@pytest.mark.parametrize("module", [name for name in FILES if name in RULES])
def test_modules_import_only_what_lies_below(module):
    own, outside = split_imports(module)
    assert own <= all_below(module), f"{module} may import {sorted(all_below(module))}"
    assert outside <= RULES[module].outside, f"{module} may use {sorted(RULES[module].outside)}"
    stale = (RULES[module].below - own) | (RULES[module].outside - outside)
    assert not stale, f"{module} does not use {sorted(stale)}"
    at_top = {found.name for found in imports_of(module) if found.at_top}
    assert not {name.partition(".")[0] for name in at_top} & ONLY_INSIDE_FUNCTIONS
    assert not {name.removeprefix("sklearn_probmix.") for name in at_top} & set(NEEDS)


def loaded_by_name(module):
    calls = [node for node in ast.walk(parsed(module)) if isinstance(node, ast.Call)]
    return {
        ast.literal_eval(call.args[0])
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] in {"import_module", "__import__"}
    }


def test_no_module_gets_around_the_rules_by_a_name():
    found = {name: loaded_by_name(name) for name in FILES if name != "__init__"}
    assert {name: modules for name, modules in found.items() if modules} == LOADED_BY_NAME


def test_distributions_do_without_torch():
    # Only who asks for torch's distributions has to have it.
    assert "torch" not in {found.name for found in imports_of("exports") if found.at_top}


def test_the_wings_meet_in_the_estimators_only():
    left = {"families", "histograms", "pooling", "loaders", "modules", "kernel", "callbacks"}
    right = {
        "floats",
        "quantiles",
        "crps",
        "piecewise",
        "outlines",
        "distributions",
        "forecasts",
        "metrics",
        "survival",
        "scorers",
        "plotting",
        "displays",
        "training_displays",
    }
    for wing, other in [(left, right), (right, left)]:
        for module in wing:
            assert not all_below(module) & other
    known_to_both = {
        *("components", "scipy_components", "lattice", "histogram_components", "calibration")
    }
    assert not any("torch" in RULES[module].outside for module in right | known_to_both)
    # scikit-learn's neighbours are found in the left wing; scores are the right wing's.
    assert not any("scoringrules" in RULES[module].outside for module in left)


def test_names_holds_the_public_names_and_nothing_else():
    docstring, *body = parsed("names").body
    assert isinstance(docstring, ast.Expr)
    *imports, assigned = body
    imported = []
    for node in imports:
        assert isinstance(node, ast.ImportFrom), f"line {node.lineno}: only imports, and __all__"
        imported += [alias.name for alias in node.names]
        source = node.module.removeprefix("sklearn_probmix.")
        assert source in RULES, f"line {node.lineno}: import from the defining module"
    assert assigned.targets[0].id == "__all__"
    assert sorted(ast.literal_eval(assigned.value)) == sorted(imported)


def fresh(code):
    """Return what an interpreter of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_version_is_read_without_an_import():
    assigned = [node for node in parsed("__init__").body if isinstance(node, ast.Assign)]
    assert [node.targets[0].id for node in assigned] == ["__version__"]
    assert ast.literal_eval(assigned[0].value) == sklearn_probmix.__version__


def test_the_demo_waits_for_nothing_before_it_has_read_its_arguments():
    loaded = fresh("import sys, sklearn_probmix.demo; print(*sys.modules)")
    assert "sklearn_probmix.csv_table" in loaded
    assert not {"numpy", "scipy", "sklearn", "torch", "narwhals"} & set(loaded)


def test_star_gives_the_public_names_and_loads_nothing_optional():
    names = "from sklearn_probmix import *; print(*[n for n in dir() if n[:2] != '__'])"
    found = fresh(f"{names}; import sys; print('loaded:', *sys.modules)")
    place = found.index("loaded:")
    assert sorted(found[:place]) == sorted(sklearn_probmix.__all__)
    assert "sklearn_probmix.names" in found[place:]
    assert not (ONLY_INSIDE_FUNCTIONS | set(NEEDS.values())) & set(found[place:])


def test_modules_are_attributes_of_the_package():
    code = "import sys, sklearn_probmix as s; print(s.floats.__name__, 'torch' in sys.modules)"
    assert fresh(code) == ["sklearn_probmix.floats", "False"]


def test_families_have_names_whatever_was_loaded_first():
    code = "from sklearn_probmix.families import get_family; print(get_family('poisson'))"
    assert fresh(code) == ["Poisson(mean=None)"]


def test_dir_and_unknown_names():
    assert {*sklearn_probmix.__all__, "__version__"} <= set(dir(sklearn_probmix))
    with pytest.raises(AttributeError, match="'sklearn_probmix' has no attribute 'ProbMixRegr"):
        sklearn_probmix.ProbMixRegressor  # noqa: B018  # the look-up raises
    assert fresh(
        "import sys, sklearn_probmix as s; print(hasattr(s, '__wrapped__'), 'torch' in sys.modules)"
    ) == ["False", "False"]


def test_all_names_what_is_there():
    assert len(set(sklearn_probmix.__all__)) == len(sklearn_probmix.__all__)
    for name in sklearn_probmix.__all__:
        assert not name.startswith("_")
        assert hasattr(sklearn_probmix, name)


def test_fits_and_files_do_without_the_compiler_of_torch(tmp_path):
    loaded = fresh(f"""
import sys
import numpy as np
from sklearn_probmix import ProbMixupClassifier, ProbMixupRegressor, load_model, save_model

X = np.random.default_rng(0).normal(size=(30, 2))
for make, y in [(ProbMixupRegressor, X[:, 0]), (ProbMixupClassifier, X[:, 0] > 0)]:
    save_model(make(max_epochs=1).fit(X, y), "{tmp_path}/model")
    load_model("{tmp_path}/model").predict_proba(X)
print(*sys.modules)
""")
    assert "torch.optim.adamw" in loaded
    assert not {"torch._dynamo", "sympy"} & set(loaded)
