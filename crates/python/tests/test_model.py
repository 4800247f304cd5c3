"""Tokens, runs, caches, hooks and generated texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpt2_patching as gp
from conftest import CLEAN, CORRUPTED, ROOT, golden


def test_tokens_are_those_of_a_text_without_one_in_front(model: gp.Model) -> None:
    ids = model.to_tokens(CLEAN)
    assert ids.shape == (11,) and ids.dtype == np.int64
    assert model.to_string(ids) == CLEAN
    assert model.to_str_tokens(CLEAN)[:2] == ["Michelle", " Jones"]
    assert model.to_tokens(CLEAN, prepend_bos=True).tolist() == [50256, *ids]
    assert model.to_tokens([CLEAN, CORRUPTED]).shape == (2, 11)
    assert model.to_string(model.to_tokens([CLEAN, CORRUPTED])) == [CLEAN, CORRUPTED]
    assert model.to_single_token(" Jones") == ids[1]
    assert model.to_single_str_token(int(ids[1])) == " Jones"
    assert model.get_token_position("Michelle", CLEAN) == 0
    assert model.get_token_position(" Michelle", CLEAN, mode="last") == 10


def test_prompts_are_taken_in_every_form(model: gp.Model) -> None:
    ids = model.to_tokens(CLEAN)
    expected = model.run(CLEAN)
    forms: list[Any] = [ids, ids.tolist(), ids.astype(np.int32), tuple(ids.tolist())]
    for form in forms:
        assert (model.run(form) == expected).all()
    assert model.run(ids[None]).shape == (1, 11, 50257)
    assert (model.run([CLEAN, CORRUPTED])[0] == expected).all()


def test_tensors_are_taken_through_their_buffer(model: gp.Model) -> None:
    torch = pytest.importorskip("torch")
    ids = torch.tensor(model.to_tokens(CLEAN))
    assert (model.run(ids) == model.run(CLEAN)).all()


def test_logits_are_those_of_transformers(model: gp.Model) -> None:
    for case in golden("logits"):
        ids = model.to_tokens(case["prompt"], prepend_bos=case["bos"])
        assert ids.tolist() == case["ids"]
        last = model.run(ids)[-1]
        assert np.abs(last[case["top20_ids"]] - case["top20_logits"]).max() < 1e-4
        assert np.abs(last[:64] - case["last_logits_first_64"]).max() < 1e-4
        written = model.generate(ids, len(case["greedy_8"]) - len(ids)).ids
        assert [*ids, *written] == case["greedy_8"]


def test_activations_are_those_of_transformer_lens(model: gp.Model) -> None:
    case = golden("activations")
    _, cache = model.run_with_cache(model.to_tokens(case["prompt"], prepend_bos=case["bos"]))
    assert set(cache) == set(case["hooks"])
    for name, expected in case["hooks"].items():
        values = cache[name].ravel().astype(np.float64)
        assert list(cache[name].shape) == expected["shape"]
        total = values[np.isfinite(values)].sum()
        assert abs(total - expected["sum"]) < 1e-5 * expected["abs_sum"] + 1e-4, name
        first = np.array([-np.inf if x is None else x for x in expected["first"]])
        assert np.allclose(values[: len(first)], first, atol=1e-4), name


def test_a_cache_is_found_by_every_spelling(model: gp.Model) -> None:
    logits, cache = model.run_with_cache(CLEAN)
    assert (logits == model.run(CLEAN)).all()
    z = cache["blocks.3.attn.hook_z"]
    assert z.shape == (11, 4, 16)
    for key in ("blocks.3.hook_z", "z3", ("z", 3)):
        assert cache[key] is z
    assert cache["pattern", 0].shape == (4, 11, 11)
    strange: Any = ("z", 99)
    assert "z3" in cache and "z99" not in cache and strange not in cache
    assert len(cache) == 2 + 12 * 18 + 2 == len(list(cache))
    assert cache.tokens.tolist() == model.to_tokens(CLEAN).tolist()
    with pytest.raises(KeyError):
        cache["z", 12]
    assert z.flags.writeable


def test_only_what_is_wanted_is_kept(model: gp.Model) -> None:
    _, cache = model.run_with_cache(CLEAN, names_filter=lambda name: name.endswith("hook_z"))
    assert len(cache) == 12
    _, cache = model.run_with_cache([CLEAN, CORRUPTED], names_filter=["z3", "resid_post11"])
    assert list(cache) == ["blocks.3.attn.hook_z", "blocks.11.hook_resid_post"]
    assert cache["z", 3].shape == (2, 11, 4, 16)


def test_hooks_see_and_change_activations(model: gp.Model) -> None:
    seen: list[tuple[str, int, tuple[int, ...]]] = []

    def look(value: Any, hook: gp.HookPoint) -> None:
        seen.append((hook.name, hook.layer(), value.shape))

    assert (model.run_with_hooks(CLEAN, [("z3", look)]) == model.run(CLEAN)).all()
    assert seen == [("blocks.3.attn.hook_z", 3, (11, 4, 16))]

    _, clean = model.run_with_cache(CLEAN)

    def returned(value: Any, hook: gp.HookPoint) -> Any:
        patched = value.copy()
        patched[1] = clean[hook.name][1]
        return patched

    def in_place(value: Any, hook: gp.HookPoint) -> None:
        value[1] = clean[hook.name][1]

    hooked = model.run_with_hooks(CORRUPTED, [("resid_post2", returned)])
    assert (hooked == model.run_with_hooks(CORRUPTED, [("resid_post2", in_place)])).all()
    sweep = gp.sweep(model, CLEAN, CORRUPTED, (" Smith", " Jones"), layers=2, positions=1, engine="plain")
    smith, jones = model.to_single_token(" Smith"), model.to_single_token(" Jones")
    assert hooked[-1, smith] - hooked[-1, jones] == pytest.approx(sweep.values[0, 0], abs=1e-5)


def test_hooks_of_a_batch_of_one_see_an_axis_more(model: gp.Model) -> None:
    shapes: list[tuple[int, ...]] = []

    def zero(value: Any, hook: gp.HookPoint) -> Any:
        shapes.append(value.shape)
        return value * 0

    logits = model.run_with_hooks(model.to_tokens([CLEAN]), [(lambda name: name.endswith("mlp_out"), zero)])
    assert logits.shape == (1, 11, 50257) and shapes == [(1, 11, 64)] * 12


def test_what_a_hook_does_wrong_is_its_own_exception(model: gp.Model) -> None:
    def fails(value: Any, hook: gp.HookPoint) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        model.run_with_hooks(CLEAN, [("z3", fails)])
    with pytest.raises(ValueError, match=r"returned an array of shape \[2\] for one of shape \[11, 4, 16\]"):
        model.run_with_hooks(CLEAN, [("z3", lambda value, hook: np.zeros(2))])
    with pytest.raises(ValueError, match="there is no site"):
        model.run_with_hooks(CLEAN, [("nothing", fails)])


def test_texts_are_written_on(model: gp.Model) -> None:
    written = model.generate("Famous computer scientist Alan", 4)
    assert str(written).startswith(" Turing") and len(written.ids) == 4
    assert written == model.generate("Famous computer scientist Alan", 4)
    assert model.generate("Her name was", 20, stop=".").finish_reason in ("stop", "end_of_text", "length")
    with pytest.raises(ValueError, match="temperature"):
        model.generate("Her name was", temperature=-1.0)


def test_a_model_of_a_folder_and_processed_weights(model: gp.Model) -> None:
    folder = gp.Model.from_pretrained(ROOT / "weights" / "tiny")
    assert (folder.run(CLEAN) == model.run(CLEAN)).all()
    processed = gp.Model.from_pretrained("tiny", fold_ln=True, center_writing_weights=True)
    assert "fold_ln" in repr(processed)
    before, after = model.run(CLEAN)[-1], processed.run(CLEAN)[-1]
    assert np.abs((before - before.mean()) - (after - after.mean())).max() < 1e-3
    assert model.config["n_layer"] == 12 and model.config["head_size"] == 16


def test_sets_of_pairs(model: gp.Model, tmp_path: Path) -> None:
    made = gp.PromptSet.from_pairs([(CLEAN, CORRUPTED, " Smith", [" Jones", " Brown"])])
    assert made.pairs == [(CLEAN, CORRUPTED, [" Smith"], [" Jones", " Brown"])] and len(made) == 1
    (tmp_path / "pairs.csv").write_text(f"clean,corrupted,a,b\n{CLEAN},{CORRUPTED}, Smith, Jones\n", "utf-8")
    read = gp.PromptSet.from_file(tmp_path / "pairs.csv")
    result = gp.sweep(model, read)
    assert (result["resid_post, pair 2"].values == gp.sweep(model, CLEAN, CORRUPTED, (" Smith", " Jones")).values).all()
    for name in ("ioi-tutorial", "gender", "capitals"):
        assert len(gp.PromptSet.built_in(model, name, 3)) >= 3
