"""Arrays, tables, pictures and files of a result."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

import gpt2_patching as gp
from conftest import ANSWERS, CLEAN, CORRUPTED, _find_cli


def test_a_result_has_arrays_with_names(job: gp.Result) -> None:
    assert job.values.shape == (12, 11) and job.values.dtype == np.float32
    assert job.axes == ("layer", "pos")
    assert job.labels[0][:2] == ("0", "1") and job.labels[1][1] == " Smith"
    assert list(job) == ["resid_post"] and job["resid_post"] is job.grid
    assert job.grid.value_label == 'logit(" Smith") − logit(" Jones")'
    assert job.clean_metric < 0 < job.corrupted_metric
    assert np.asarray(job).shape == (12, 11)
    assert repr(job) == "<Result: Patching resid_post from the clean into the corrupted run (values); 12 layer × 11 pos>"
    with pytest.raises(KeyError, match="there is no grid 'x'; give one of resid_post"):
        job["x"]


def test_a_subset_says_its_places(model: gp.Model) -> None:
    part = gp.sweep(model, CLEAN, CORRUPTED, ANSWERS, layers=[3, -1], positions=[1])
    assert part.grid.places == ((3, 11), (1,))


def test_a_table_has_a_row_for_each_number(job: gp.Result) -> None:
    pytest.importorskip("pandas")
    frame = job.to_dataframe()
    assert list(frame.columns) == ["layer", "pos", "pos_label", "value"] and len(frame) == 132
    row = frame[(frame["layer"] == 7) & (frame["pos"] == 1)]
    assert row["pos_label"].item() == " Smith" and np.float32(row["value"].item()) == job.values[7, 1]


def test_a_notebook_shows_the_picture(job: gp.Result) -> None:
    png = job._repr_png_()
    assert png.startswith(b"\x89PNG") and len(png) > 20_000
    shown = job._repr_html_()
    assert shown.startswith('<img alt="Patching resid_post') and "data:image/png;base64," in shown


def test_every_form_of_file_is_read_by_the_command_line(job: gp.Result, tmp_path: Path) -> None:
    binary = _find_cli()
    for form in ("png", "svg", "json", "csv", "npy", "safetensors"):
        job.save(tmp_path / f"job.{form}")
        job.save(tmp_path / f"job.{form}")  # an earlier file is replaced
        if binary is None or form in ("png", "svg"):
            continue
        done = subprocess.run(
            [binary, "plot", f"job.{form}", "--out", f"{form}.png"], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (np.load(tmp_path / "job.npy") == job.values).all()
    assert json.loads((tmp_path / "job.json").read_text("utf-8")) == job.to_dict()
    assert (tmp_path / "job.svg").read_text("utf-8").startswith("<?xml")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "no temporary file is left"


def test_what_cannot_be_written_is_said(job: gp.Result, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.png, \.svg"):
        job.save(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        job.save(tmp_path / "nowhere" / "a.png")
    with pytest.raises(ValueError, match="no grid"):
        job.save(tmp_path / "a.npy", grid="x")


def test_a_circuit_has_edges_and_files(model: gp.Model, tmp_path: Path) -> None:
    found = gp.circuit(model, CLEAN, CORRUPTED, ANSWERS, method="eap", edges=20, direction="noising")
    assert found.values.shape == (61, 157) and len(found.scores) == 4555
    assert found._repr_png_().startswith(b"\x89PNG")
    assert "digraph" in found.to_dot()
    found.save_graph(tmp_path / "graph.json")
    edges, scores = gp.read_circuit(model, tmp_path / "graph.json")
    assert edges == found.edges and scores == found.scores
    one = found.judge([edges[0][0]])
    assert one["circuit"] == pytest.approx(one["empty"], abs=10)
    with pytest.raises(ValueError, match='no edge "x"'):
        found.judge(["x"])
