"""The recipe of docs/service.md, run for real; and our estimators in other processes."""

import os
import re
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from sklearn_probmix import ProbMixupRegressor, load_model, save_model

N_CLIENTS = 16
N_REQUESTS = 15
LEVELS = [0.05, 0.5, 0.95]
RECIPE = Path(__file__).parents[1] / "docs" / "service.md"


def trained(random_state):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4))
    est = ProbMixupRegressor(n_members=3, max_epochs=5, random_state=random_state)
    return est.fit(X, X[:, 0] + 0.1 * rng.normal(size=80))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Write two models, and return their files."""
    paths = [tmp_path_factory.mktemp("models") / f"{seed}.safetensors" for seed in (0, 1)]
    for seed, path in enumerate(paths):
        save_model(trained(seed), path)
    return paths


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    """Run the recipe, and return its address and the file that is served."""
    tmp_path = tmp_path_factory.mktemp("service")
    (code,) = re.findall(r"```python\n(.*?)```", RECIPE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "service.py").write_text(code, encoding="utf-8")
    served = tmp_path / "model.safetensors"
    served.write_bytes(models[0].read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    path = os.pathsep.join(filter(None, sys.path))
    with (
        open(tmp_path / "log", "w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "service:app", "--host", "127.0.0.1", "--port", port],
            cwd=tmp_path,
            env=os.environ | {"MODEL": str(served), "PYTHONPATH": path},
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            wait_for(process, int(port), tmp_path / "log")
            yield f"http://127.0.0.1:{port}", served
        finally:
            process.kill()


@pytest.fixture
def service(server, models):
    """Serve the first model."""
    address, served = server
    served.write_bytes(models[0].read_bytes())
    with client(address) as session:
        session.post("/reload").raise_for_status()
    return address, served


def wait_for(process, port, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError(f"the service did not start:\n{log.read_text()}")


def client(address):
    return httpx.Client(base_url=address, timeout=30, trust_env=False)


def answers_of_a_client(address, seed):
    """Send tables of 1 to 40 rows, one after another."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(rng.integers(1, 41), 4)) for _ in range(N_REQUESTS)]
    with client(address) as session:
        replies = [session.post("/quantiles", json={"rows": X.tolist()}) for X in tables]
    return [(X, reply.raise_for_status().json()) for X, reply in zip(tables, replies, strict=True)]


def is_answer(est, X, found):
    expected = est.predict_proba(X).ppf(LEVELS).T
    return found == {"levels": LEVELS, "rows": expected.tolist()}


def test_every_answer_of_16_clients_is_the_serial_one(service, models):
    address, _ = service
    est = load_model(models[0])
    with ThreadPoolExecutor(N_CLIENTS) as pool:
        clients = pool.map(lambda seed: answers_of_a_client(address, seed), range(N_CLIENTS))
        answers = [answer for each in clients for answer in each]
    assert len(answers) == N_CLIENTS * N_REQUESTS
    assert all(is_answer(est, *answer) for answer in answers)


def test_a_model_is_replaced_while_it_serves(service, models):
    address, served = service
    old, new = map(load_model, models)
    with ThreadPoolExecutor(N_CLIENTS) as pool, client(address) as session:
        clients = [pool.submit(answers_of_a_client, address, seed) for seed in range(4)]
        save_model(new, served)
        session.post("/reload").raise_for_status()
        answers = [answer for each in clients for answer in each.result()]
        later = answers_of_a_client(address, 9)
    assert all(is_answer(old, *answer) or is_answer(new, *answer) for answer in answers)
    assert all(is_answer(new, *answer) for answer in later)


@pytest.mark.parametrize(
    "rows",
    [[], [[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0, None]], [[1.0, 2.0, 3.0, "x"]], [[0.0] * 4] * 1001, 1],
    ids=["empty", "too narrow", "hole", "text", "too long", "no table"],
)
def test_bad_requests_are_refused(service, rows):
    with client(service[0]) as session:
        assert session.post("/quantiles", json={"rows": rows}).status_code == 422
        content = b'{"rows": [[1, 2, 3, Infinity]]}'
        assert session.post("/quantiles", content=content).status_code == 422
        good = session.post("/quantiles", json={"rows": [[0.0] * 4]})
    assert good.status_code == 200


SEARCH = """
import sys
import numpy as np
import torch
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV
from sklearn_probmix import ProbMixupRegressor, neg_nll_scorer

torch.set_num_threads(2)
rng = np.random.default_rng(0)
X = rng.normal(size=(120, 4))
y = X[:, 0] + 0.1 * rng.normal(size=120)
small = {"hidden_layer_sizes": (64, 32), "n_members": 2, "max_epochs": 3, "random_state": 0}


def fit(method):
    return ProbMixupRegressor(method=method, **small).fit(X, y).predict(X)


def search(n_jobs):
    grid = {"method": ["erm", "m-probmix"]}
    found = GridSearchCV(
        ProbMixupRegressor(**small), grid, scoring=neg_nll_scorer, cv=2, n_jobs=n_jobs
    ).fit(X, y)
    return found.cv_results_["mean_test_score"], found.predict(X)


def same(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), (one, other)


# A large product, so that torch has started its threads.
torch.ones(500, 500) @ torch.ones(500, 500)
"""
BODIES = {
    "loky": """
serial = search(1)
with parallel_config("loky"):
    same(search(2), serial)
""",
    "threading": """
serial = search(1)
with parallel_config("threading"):
    same(search(2), serial)
""",
    "spawn": """
import multiprocessing
if __name__ == "__main__":
    methods = ["erm", "m-probmix"]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        same(pool.map(fit, methods), map(fit, methods))
""",
    "forkserver": """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        same(pool.map(fit, ["probmix"]), [fit("probmix")])
""",
    "fork, with one thread in the child": """
import multiprocessing
if __name__ == "__main__":
    serial = fit("probmix")
    fork = multiprocessing.get_context("fork")
    with fork.Pool(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        same(pool.map(fit, ["probmix"]), [serial])
""",
}


@pytest.mark.parametrize("how", BODIES)
def test_other_processes_give_the_serial_result(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SEARCH + BODIES[how], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        env={name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
        | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
