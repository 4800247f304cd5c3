"""The lock, stopping, progress, and exceptions."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import gpt2_patching as gp
from conftest import ANSWERS, CLEAN, CORRUPTED

LONG = " ".join(["Michelle Jones was a top-notch student."] * 12)[:480]


def test_a_metric_may_be_a_function_of_the_last_logits(model: gp.Model, job: gp.Result) -> None:
    smith, jones = (model.to_single_token(answer) for answer in ANSWERS)
    shapes = set()

    def difference(logits: Any) -> float:
        shapes.add((logits.shape, logits.dtype))
        return float(logits[smith] - logits[jones])

    result = gp.sweep(model, CLEAN, CORRUPTED, metric=difference)
    assert (result.values == job.values).all()
    assert shapes == {((50257,), np.dtype("float32"))}
    assert result.facts["metric"]["name"] == "difference"
    heads = gp.path_patch(model, CLEAN, CORRUPTED, metric=difference)
    assert (heads.values == gp.path_patch(model, CLEAN, CORRUPTED, ANSWERS).values).all()


def test_an_exception_of_a_metric_is_raised(model: gp.Model) -> None:
    calls = []

    def fails(logits: Any) -> float:
        calls.append(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        gp.sweep(model, CLEAN, CORRUPTED, metric=fails)
    assert len(calls) < 100, "the sweep ended early"
    with pytest.raises(TypeError):
        gp.sweep(model, CLEAN, CORRUPTED, metric=lambda logits: "no number")


def test_progress_goes_to_a_function(model: gp.Model) -> None:
    shares: list[float] = []
    gp.sweep(model, CLEAN, CORRUPTED, ANSWERS, site="z", by=["layer", "pos", "head"], progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1.0 and min(shares) > 0

    def fails(share: float) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        gp.sweep(model, CLEAN, CORRUPTED, ANSWERS, progress=fails)


def test_progress_goes_to_tqdm(model: gp.Model, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    gp.sweep(model, CLEAN, CORRUPTED, ANSWERS, progress=True)
    assert "100%" in capsys.readouterr().err


def test_other_threads_run_while_it_computes(model: gp.Model) -> None:
    ended = threading.Event()
    beats: list[float] = []

    def beat() -> None:
        while not ended.is_set():
            beats.append(time.perf_counter())
            time.sleep(0.002)

    thread = threading.Thread(target=beat)
    thread.start()
    start = time.perf_counter()
    gp.sweep(model, LONG, LONG.replace("Jones", "Smith", 1), ANSWERS, site="pattern", by=["layer", "head", "dest"])
    end = time.perf_counter()
    ended.set()
    thread.join()
    within = [beat for beat in beats if start < beat < end]
    assert len(within) > 5, f"{len(within)} beats in {end - start:.2f} s"


STOPPED = """
import os, signal, sys, threading, time
import gpt2_patching as gp

model = gp.Model.from_pretrained("tiny")
clean = " ".join(["Michelle Jones was a top-notch student."] * 9)
corrupted = clean.replace("Jones", "Smith", 1)
sent = []

def interrupt():
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)

threading.Timer(0.7, interrupt).start()
try:
    while True:
        gp.sweep(model, clean, corrupted, (" Smith", " Jones"), site="attn_scores", by=["layer", "head", "dest", "src"])
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
    assert gp.sweep(model, "a b c", "a d c", (" b", " d")).values.shape[0] == 12, "it goes on"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
def test_ctrl_c_stops_a_sweep_within_half_a_second() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.strip().splitlines()[-1]) < 0.5


ERRORS: list[tuple[Any, type[Exception], str]] = [
    (lambda m: gp.sweep(m, CLEAN, CLEAN, ANSWERS), ValueError, "the same 11 tokens"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED + " x", ANSWERS), ValueError, "has 11 tokens and the corrupted one 12"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED), ValueError, "on both sides"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, (" Smith", " Smith")), ValueError, '" Smith" with itself'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, (" Smithereens", " Jones")), ValueError, "Smithereens"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, site="resid"), ValueError, 'no site "resid"'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, site="ln1_scale"), ValueError, "cannot be patched"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, by=["layer", "head"]), ValueError, "cannot run along head"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, by=["layer", "x"]), ValueError, 'no axis "x"'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, metric="x"), ValueError, 'no metric "x"; give one of logit_diff'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, direction="x"), ValueError, 'no direction "x"'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, scale="x"), ValueError, 'no scale "x"'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, layers=12), ValueError, "from 0 to 11"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, positions=[11]), ValueError, "from 0 to 10"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, heads=["1.1"]), ValueError, "has no head"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, ANSWERS, engine="x"), ValueError, 'no engine "x"'),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, metric="loss", loss_at=(3, 11)), ValueError, "have a next token at 0..10"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, metric="rank", token=[" a", " b"]), ValueError, "a rank is of one token"),
    (lambda m: gp.sweep(m, CLEAN, None, ANSWERS), TypeError, "give two prompts"),
    (lambda m: gp.sweep(m, CLEAN, CORRUPTED, metric=cast(Any, 3)), TypeError, "metric=3"),
    (lambda m: gp.sweep(m, [], [], ANSWERS), ValueError, "is empty"),
    (lambda m: gp.sweep(m, [1.5], [2.5], ANSWERS), TypeError, "whole numbers"),
    (lambda m: gp.sweep(m, [-1], [2], ANSWERS), ValueError, "no token -1"),
    (lambda m: m.run([50257]), ValueError, "no token 50257"),
    (lambda m: m.run([1] * 129), ValueError, "129 tokens"),
    (lambda m: m.run(np.zeros((1, 1, 1), dtype=int)), ValueError, "give one prompt"),
    (lambda m: m.run_with_cache(CLEAN, names_filter="x3"), ValueError, 'no site "x3"'),
    (lambda m: m.to_tokens(["a", "a b"]), ValueError, "1, 2 tokens"),
    (lambda m: gp.Model.from_pretrained("no-such-model"), FileNotFoundError, "no-such-model"),
    (lambda m: gp.Model.from_pretrained("/dev/null"), OSError, "not a regular file"),
    (lambda m: gp.ablate(m, CLEAN, ANSWERS, replacement="x"), ValueError, 'unknown ablation "x"'),
    (lambda m: gp.ablate(m, CLEAN, ANSWERS, replacement="mean", site="pattern"), ValueError, "the rows of a pattern"),
    (lambda m: gp.ablate(m, CLEAN, ANSWERS, replacement="resample"), ValueError, "others="),
    (lambda m: gp.path_patch(m, CLEAN, CORRUPTED, ANSWERS, to="q"), ValueError, "name the receivers"),
    (lambda m: gp.path_patch(m, CLEAN, CORRUPTED, ANSWERS, to="q", receivers=["5"]), ValueError, 'invalid head "5"'),
    (lambda m: gp.path_patch(m, CLEAN, CORRUPTED, ANSWERS, receivers=["5.1"]), ValueError, "leave one of the two"),
    (lambda m: gp.path_patch(m, CLEAN, CORRUPTED, ANSWERS, pos=-12), ValueError, "no position -12"),
    (lambda m: gp.attribute(m, CLEAN, CORRUPTED, ANSWERS, method="x"), ValueError, 'no method "x"'),
    (lambda m: gp.attribute(m, CLEAN, CORRUPTED, ANSWERS, steps=3), ValueError, 'for method="ig"'),
    (lambda m: gp.attribute(m, CLEAN, CORRUPTED, metric="rank", token=" a"), ValueError, "has no gradient"),
    (lambda m: gp.circuit(m, CLEAN, CORRUPTED, ANSWERS, method="acdc"), ValueError, "needs threshold="),
    (lambda m: gp.circuit(m, CLEAN, CORRUPTED, ANSWERS, ablation="x"), ValueError, 'no ablation "x"'),
    (lambda m: gp.circuit(m, CLEAN, CORRUPTED, ANSWERS, metric="normalized"), ValueError, "are changes of the metric"),
    (lambda m: gp.logit_lens(m, ""), ValueError, "empty"),
    (lambda m: gp.logit_lens(m, CLEAN, (" a", " a")), ValueError, "with itself"),
    (lambda m: gp.detect_heads(m, CLEAN, "x"), ValueError, 'no head kind "x"'),
    (lambda m: gp.head_scores(m, seq_len=1000), ValueError, "1000"),
    (lambda m: gp.composition_scores(m, ["x"]), ValueError, 'no composition "x"'),
    (lambda m: gp.score_text(m, ""), ValueError, "empty"),
    (lambda m: gp.PromptSet.from_file("/nonexistent.csv"), ValueError, "nonexistent"),
    (lambda m: gp.PromptSet.ioi(m, 0), ValueError, "0 pairs"),
    (lambda m: gp.PromptSet.ioi(m, corruption="x"), ValueError, 'no corruption "x"'),
    (lambda m: gp.read_circuit(m, "/nonexistent.json"), FileNotFoundError, "nonexistent"),
]


@pytest.mark.parametrize(("call", "kind", "words"), ERRORS, ids=[words for _, _, words in ERRORS])
def test_mistakes_are_exceptions_with_words(model: gp.Model, call: Any, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as raised:
        call(model)
    assert words in str(raised.value)
    assert "panicked" not in str(raised.value) and "a bug in" not in str(raised.value)


def test_the_import_is_quick_and_pulls_nothing_in() -> None:
    code = (
        "import sys, time, numpy; before = set(sys.modules); start = time.process_time();"
        "import gpt2_patching; took = time.process_time() - start;"
        "print(took, [name for name in ('pandas', 'torch', 'tqdm', 'tempfile') if name in set(sys.modules) - before])"
    )
    took, pulled_in = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split(" ", 1)
    assert float(took) < 0.05 and pulled_in.strip() == "[]"


def test_the_package_needs_numpy_alone() -> None:
    from importlib.metadata import PackageNotFoundError, requires

    try:
        needed = requires("gpt2-patching") or []
    except PackageNotFoundError:
        pytest.skip("the package is not installed, only found")
    assert [line for line in needed if "extra ==" not in line] == ["numpy>=1.23"]
    folder = Path(gp.__file__).parent
    assert (folder / "py.typed").exists() and (folder / "_native.pyi").exists()
