"""Every study gives the command line's numbers, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2_patching as gp
from conftest import ANSWERS, CLEAN, CORRUPTED, JOHN, MARY, same_bits

Cli = Callable[..., dict[str, Any]]
PAIR = ("--clean", MARY, "--corrupted", JOHN, "--logit-diff", " Mary", " John")
MARY_JOHN = (" Mary", " John")


def test_the_main_job(model: gp.Model, job: gp.Result, cli: Cli) -> None:
    printed = cli()
    assert same_bits(job, printed) == 132
    assert job.facts["clean_metric"] == printed["clean_metric"]
    assert job.facts["corrupted_metric"] == printed["corrupted_metric"]
    assert job.facts["pairs"] == printed["pairs"]
    assert job.title == printed["title"]
    ours, theirs = job.to_dict()["grids"][0], printed["grids"][0]
    assert ours == theirs, "with all words"


SWEEPS: list[tuple[list[str], dict[str, Any]]] = [
    (["--site", "z"], {"site": "z"}),
    (["--site", "z", "--by-pos"], {"site": "z", "by": ["layer", "pos", "head"]}),
    (["--site", "pattern", "--by-dest"], {"site": "pattern", "by": ["layer", "head", "dest"]}),
    (["--site", "mlp_post", "--by-neuron", "--layers", "3"], {"site": "mlp_post", "by": ["layer", "neuron"], "layers": 3}),
    (["--site", "blocks"], {"site": "blocks"}),
    (["--site", "heads"], {"site": "heads"}),
    (["--direction", "noising", "--site", "mlp_out"], {"direction": "noising", "site": "mlp_out"}),
    (["--metric", "kl"], {"metric": "kl"}),
    (["--metric", "prob_diff"], {"metric": "prob_diff"}),
    (["--metric", "normalized"], {"metric": "normalized"}),
    (["--metric", "rank", "--token", " Mary"], {"metric": "rank", "token": " Mary"}),
    (["--metric", "loss", "--loss-at", "3..9"], {"metric": "loss", "loss_at": (3, 9)}),
    (["--as", "change"], {"scale": "change"}),
    (["--engine", "plain", "--layers", "2..4", "--positions", "4"], {"engine": "plain", "layers": range(2, 4), "positions": 4}),
    (["--site", "z", "--heads", "5.1,7.2"], {"site": "z", "heads": ["5.1", (7, 2)]}),
    (["--bos"], {"prepend_bos": True}),
]


@pytest.mark.parametrize(("arguments", "options"), SWEEPS, ids=[" ".join(it[0]) for it in SWEEPS])
def test_sweeps(model: gp.Model, cli: Cli, arguments: list[str], options: dict[str, Any]) -> None:
    about_two = options.get("metric") not in ("kl", "loss", "rank")
    pair = PAIR if about_two else PAIR[:4]
    printed = cli("sweep", *pair, *arguments)
    result = gp.sweep(model, MARY, JOHN, MARY_JOHN if about_two else None, **options)
    same_bits(result, printed)
    assert result.facts["metric"] == printed["metric"]


def test_a_sweep_over_a_set(model: gp.Model, cli: Cli) -> None:
    printed = cli("sweep", "--prompt-set", "ioi", "--count", "5", "--seed", "3", "--site", "z")
    result = gp.sweep(model, gp.PromptSet.ioi(model, 5, seed=3), site="z", seed=3)
    same_bits(result, printed)
    printed = cli("sweep", "--prompt-set", "ioi", "--count", "5", "--site", "z", "--metric", "normalized")
    same_bits(gp.sweep(model, gp.PromptSet.ioi(model, 5), site="z", metric="normalized"), printed)


@pytest.mark.parametrize("how", ["zero", "mean", "other-position"])
def test_ablations(model: gp.Model, cli: Cli, how: str) -> None:
    place = ["2"] if how == "other-position" else []
    printed = cli("ablate", CLEAN, "--with", how, *place, "--logit-diff", *ANSWERS)
    position = 2 if place else None
    same_bits(gp.ablate(model, CLEAN, ANSWERS, replacement=how, position=position), printed)


def test_a_resampled_ablation(model: gp.Model, cli: Cli, tmp_path: Path) -> None:
    others = [CORRUPTED, "Michelle Brown was a top-notch student. Michelle"]
    (tmp_path / "others.txt").write_text("\n".join(others) + "\n", "utf-8")
    file = str(tmp_path / "others.txt")
    printed = cli("ablate", CLEAN, "--with", "resample", "--others", file, "--logit-diff", *ANSWERS)
    same_bits(gp.ablate(model, CLEAN, ANSWERS, replacement="resample", others=others), printed)
    printed = cli("ablate", CLEAN, "--with", "mean", "--others", file, "--logit-diff", *ANSWERS)
    same_bits(gp.ablate(model, CLEAN, ANSWERS, replacement="mean", others=others), printed)


PATHS: list[tuple[list[str], dict[str, Any]]] = [
    (["--to", "logits"], {}),
    (["--to", "q", "--receivers", "11.0"], {"to": "q", "receivers": ["11.0"]}),
    (["--to", "v", "--receivers", "8.1,9.1", "--pos", "end"], {"to": "v", "receivers": [(8, 1), (9, 1)], "pos": -1}),
    (["--to", "mlp", "--receivers", "8,9", "--freeze-mlps"], {"to": "mlp", "receivers": [8, 9], "freeze_mlps": True}),
    (["--from", "embed", "--to", "logits"], {"sender": "embed"}),
    (["--from", "mlp_out", "--direction", "noising"], {"sender": "mlp_out", "direction": "noising"}),
]


@pytest.mark.parametrize(("arguments", "options"), PATHS, ids=[" ".join(it[0]) for it in PATHS])
def test_paths(model: gp.Model, cli: Cli, arguments: list[str], options: dict[str, Any]) -> None:
    same_bits(gp.path_patch(model, MARY, JOHN, MARY_JOHN, **options), cli("path", *PAIR, *arguments))


def test_a_path_over_a_set(model: gp.Model, cli: Cli) -> None:
    printed = cli("path", "--prompt-set", "ioi", "--count", "4")
    same_bits(gp.path_patch(model, gp.PromptSet.ioi(model, 4)), printed)


@pytest.mark.parametrize("method", ["atp", "relp", "atp-star", "ig"])
def test_attributions(model: gp.Model, cli: Cli, method: str) -> None:
    printed = cli("attribute", *PAIR, "--method", method, "--site", "z", "--exact")
    result = gp.attribute(model, MARY, JOHN, MARY_JOHN, method=method, site="z", exact=True)
    same_bits(result, printed)
    agreement = result.facts["agreement"]["z"]
    assert 0.5 < agreement["pearson"] <= 1


def test_attribution_of_several_sites(model: gp.Model, cli: Cli) -> None:
    printed = cli("attribute", *PAIR, "--site", "blocks")
    same_bits(gp.attribute(model, MARY, JOHN, MARY_JOHN, site="blocks"), printed)


CIRCUITS: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--method", "eap", "--edges", "100", "--absolute"], {"method": "eap", "edges": 100, "absolute": True}),
    (["--method", "eap-ig-activations", "--steps", "2"], {"method": "eap-ig-activations", "steps": 2}),
    (["--method", "clean-corrupted", "--threshold", "0.5"], {"method": "clean-corrupted", "threshold": 0.5}),
    (["--method", "acdc", "--threshold", "0.5", "--direction", "noising"], {"method": "acdc", "threshold": 0.5, "direction": "noising"}),
    (["--method", "exact", "--edges", "60", "--greedy"], {"method": "exact", "edges": 60, "greedy": True}),
    (["--method", "eap", "--ablation", "zero"], {"method": "eap", "ablation": "zero"}),
]


@pytest.mark.parametrize(("arguments", "options"), CIRCUITS, ids=[" ".join(it[0]) for it in CIRCUITS])
def test_circuits(model: gp.Model, cli: Cli, arguments: list[str], options: dict[str, Any]) -> None:
    printed = cli("circuit", *PAIR, *arguments)
    result = gp.circuit(model, MARY, JOHN, MARY_JOHN, **options)
    same_bits(result, printed)
    assert [edge for edge, _ in result.edges] == [it["edge"] for it in printed["circuit"]]
    assert result.faithfulness == printed["verdict"]["faithfulness"]
    for key in ("whole", "empty", "circuit", "complement"):
        assert result.facts["verdict"][key] == printed["verdict"][key]


def test_a_circuit_of_a_set_and_its_verdict(model: gp.Model, cli: Cli) -> None:
    printed = cli("circuit", "--prompt-set", "ioi", "--count", "3", "--method", "eap", "--judge")
    result = gp.circuit(model, gp.PromptSet.ioi(model, 3), method="eap")
    same_bits(result, printed)
    verdict, theirs = result.judge(), printed["verdict"]
    assert verdict["cpr"] == theirs["cpr"] and verdict["cmd"] == theirs["cmd"]
    assert verdict["curve"] == theirs["curve"]
    assert verdict["completeness"] == theirs["completeness"]
    assert verdict["minimality"] == theirs["minimality"]


def test_the_logit_lens(model: gp.Model, cli: Cli) -> None:
    same_bits(gp.logit_lens(model, CLEAN, ANSWERS), cli("lens", CLEAN, "--answers", *ANSWERS))
    same_bits(gp.logit_lens(model, CLEAN), cli("lens", CLEAN))


def test_heads(model: gp.Model, cli: Cli) -> None:
    printed = cli("repeat", "--seq-len", "20", "--batch", "2", "--seed", "5")
    result = gp.head_scores(model, seq_len=20, batch=2, seed=5)
    same_bits(result, printed)
    assert result.facts["accuracy"] == printed["accuracy"]
    text = "Michelle Jones and Tom Hart. Michelle Jones and Tom Hart."
    same_bits(gp.detect_heads(model, text), cli("detect", text))
    same_bits(gp.composition_scores(model), cli("compose"))


def test_predictions_and_generated_text(model: gp.Model, cli: Cli) -> None:
    printed = cli("generate", CLEAN, "--max-new-tokens", "8", "--seed", "4", "--temperature", "0.9")
    written = model.generate(CLEAN, 8, seed=4, temperature=0.9)
    assert written.ids == printed["ids"] and written.text == printed["text"]
    assert written.log_probs == printed["log_probs"] and written.finish_reason == printed["finish_reason"]
    assert written.tokens == printed["tokens"]


def test_activations(model: gp.Model, cli: Cli, tmp_path: Path) -> None:
    saved = tmp_path / "activations.safetensors"
    cli("activations", CLEAN, "--save", str(saved))
    header = int.from_bytes(saved.read_bytes()[:8], "little")
    data = saved.read_bytes()
    import json

    tensors = json.loads(data[8 : 8 + header])
    _, cache = model.run_with_cache(CLEAN)
    compared = 0
    for name, tensor in tensors.items():
        if name == "__metadata__" or name not in cache:
            continue
        start, end = (8 + header + offset for offset in tensor["data_offsets"])
        assert data[start:end] == cache[name].tobytes(), name
        compared += 1
    assert compared == len(cache)
