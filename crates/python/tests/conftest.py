"""What the tests share: the tiny model, the main job's prompts, and the command line to compare with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2_patching as gp

ROOT = Path(__file__).resolve().parents[3]
CLEAN = "Michelle Jones was a top-notch student. Michelle"
CORRUPTED = "Michelle Smith was a top-notch student. Michelle"
ANSWERS = (" Smith", " Jones")
MARY = "When John and Mary went to the shops, John gave the bag to"
JOHN = "When John and Mary went to the shops, Mary gave the bag to"


@pytest.fixture(scope="session")
def model() -> gp.Model:
    """The model in the package."""
    return gp.Model.from_pretrained("tiny")


@pytest.fixture(scope="session")
def job(model: gp.Model) -> gp.Result:
    """The main job."""
    return gp.sweep(model, CLEAN, CORRUPTED, ANSWERS)


def golden(name: str) -> Any:
    """Reference values of the repository."""
    return json.loads((ROOT / "tests" / "golden" / f"{name}.json").read_text("utf-8"))


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch; where it is not installed, as much of it as the package uses."""
    try:
        import torch as real

        return real
    except ImportError:
        pass

    class Tensor:
        """An array that is not numpy's."""

        def __init__(self, data: Any) -> None:
            self.data = np.asarray(data)
            self.shape = self.data.shape

        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            return np.asarray(self.data, dtype=dtype)

        def __getitem__(self, index: Any) -> "Tensor":
            return Tensor(self.data[index])

        def __sub__(self, other: "Tensor") -> "Tensor":
            return Tensor(self.data - other.data)

        def __float__(self) -> float:
            return float(self.data)

    Tensor.__module__ = "torch"
    module: Any = types.ModuleType("torch")
    module.Tensor = module.tensor = module.from_numpy = Tensor
    module.stack = lambda tensors, dim: Tensor(np.stack([tensor.data for tensor in tensors], axis=dim))
    monkeypatch.setitem(sys.modules, "torch", module)
    return module


def _find_cli() -> str | None:
    named = os.environ.get("PATCH_CLI")
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [target / profile / "patch-cli" for profile in ("release", "debug")]
    found = [str(path) for path in built if path.exists()]
    return named or (found[0] if found else None)


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Runs the command line on the tiny model, and returns what it prints as JSON."""
    binary = _find_cli()
    if binary is None:
        pytest.skip("patch-cli is not built (cargo build -p patch-cli), so nothing is compared with it")
    folder = tmp_path_factory.mktemp("cli")

    def run(*arguments: str) -> dict[str, Any]:
        command = [binary, *arguments, "--model", "tiny", "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed: dict[str, Any] = json.loads(done.stdout)
        return printed

    return run


def same_bits(result: gp.Result, printed: dict[str, Any], names: dict[str, str] | None = None) -> int:
    """Holds every grid that the command line prints to that of a result; says how many numbers there were."""
    count = 0
    for grid in printed["grids"]:
        ours = result[(names or {}).get(grid["name"], grid["name"])]
        theirs = np.array([np.nan if x is None else x for x in grid["values"]], dtype=np.float32)
        assert ours.axes == tuple(axis["name"] for axis in grid["axes"])
        assert ours.labels == tuple(tuple(axis["labels"]) for axis in grid["axes"])
        values = ours.values.ravel()
        both_nan = np.isnan(values) & np.isnan(theirs)
        assert (values.view(np.uint32) == theirs.view(np.uint32))[~both_nan].all(), grid["name"]
        assert both_nan.sum() == np.isnan(theirs).sum() == np.isnan(values).sum()
        count += len(theirs)
    assert count > 0
    return count
