"""Recipes of docs/long_fits.md for several processes, run for real."""

import re
import runpy
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

RECIPES = Path(__file__).parents[1] / "docs" / "long_fits.md"


def recipe(word):
    blocks = re.findall(r"```python\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = [block for block in blocks if word in block]
    return code


@pytest.mark.slow
def test_a_search_on_dask_finds_what_joblib_finds(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "recipe.py").write_text(recipe("LocalCluster"), encoding="utf-8")
    ran = runpy.run_path(str(tmp_path / "recipe.py"), run_name="__main__")
    assert ran["cluster"].status.name == "closed"
    search = clone(ran["search"]).set_params(n_jobs=2).fit(ran["X"], ran["y"])
    assert ran["search"].best_params_ == search.best_params_
    for name in ("mean_test_score", "std_test_score"):
        assert_array_equal(ran["search"].cv_results_[name], search.cv_results_[name])
