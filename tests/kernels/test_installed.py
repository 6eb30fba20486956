"""A wheel, installed elsewhere: the native libraries are in it, are found there and compute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import ownlm

pytestmark = [
    pytest.mark.clients,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        not (os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")),
        reason="no C++ compiler",
    ),
]
ROOT = Path(ownlm.__file__).parents[2]
BUILT_HERE = ("*.so", "*.pyd", "*.egg-info", "__pycache__")

CHECK = """
import json, sys
import ownlm
from ownlm.kernels import inference, library
model = ownlm.load(sys.argv[1])
print(json.dumps({
    "package": ownlm.__file__,
    "libraries": [str(library.built(name)) for name in ("_native", "_inference")],
    "loaded": inference.library() is not None,
    "backend": model.engine.backend.name,
    "text": model.generate("The river", seed=1, max_new_tokens=12),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the package was installed from a wheel, built from a copy without anything built."""
    pytest.importorskip("setuptools", minversion="77")
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns(*BUILT_HERE))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-index", "--quiet"]
    made = [*pip, "wheel", *options, "--no-build-isolation", "--wheel-dir", str(place), str(source)]
    subprocess.run(made, check=True, capture_output=True, text=True)
    [wheel] = place.glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", str(place / "site"), str(wheel)], check=True)
    return place / "site"


def test_an_installed_wheel_computes_with_its_own_libraries(
    installed: Path, run: Path, tmp_path: Path
) -> None:
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHECK, str(run)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json_of(done.stdout)
    for place in (found["package"], *found["libraries"]):
        assert Path(place).is_relative_to(installed), place
    assert (found["loaded"], found["backend"]) == (True, "native")
    assert found["text"] == ownlm.load(run).generate("The river", seed=1, max_new_tokens=12)


def json_of(text: str) -> dict[str, object]:
    import json

    return json.loads(text)
