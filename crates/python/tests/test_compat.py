"""TransformerLens's patching functions: its own numbers (tests/golden), its arguments and the order of its axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpt2_patching as gp
from conftest import ANSWERS, CLEAN, CORRUPTED, JOHN, MARY, golden
from gpt2_patching import compat

NAMES = (
    "resid_pre",
    "resid_mid",
    "attn_out",
    "mlp_out",
    "attn_head_out_by_pos",
    "attn_head_q_by_pos",
    "attn_head_k_by_pos",
    "attn_head_v_by_pos",
    "attn_head_pattern_by_pos",
    "attn_head_out_all_pos",
    "attn_head_q_all_pos",
    "attn_head_k_all_pos",
    "attn_head_v_all_pos",
    "attn_head_pattern_all_pos",
)


def function(name: str) -> Any:
    """One of the functions."""
    return getattr(compat, f"get_act_patch_{name}")


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_those_of_transformer_lens(model: gp.Model, name: str) -> None:
    for case in golden("sweeps"):
        source, base = case["clean"], case["corrupted"]
        if case["direction"] == "noising":
            source, base = base, source
        _, cache = model.run_with_cache(source)
        answers = (case["answer_b"], case["answer_a"])
        expected = case["sweeps"][name]
        ours = function(name)(model, model.to_tokens(base), cache, answers)
        assert list(ours.shape) == expected["shape"]
        difference = np.abs(ours.ravel() - np.array(expected["values"], dtype=np.float32)).max()
        assert difference < 1e-4


def test_a_pattern_is_patched_number_by_number(model: gp.Model) -> None:
    _, cache = model.run_with_cache(CLEAN)
    tokens = model.to_tokens(CORRUPTED)
    ours = compat.get_act_patch_attn_head_pattern_dest_src_pos(model, tokens, cache, ANSWERS)
    assert ours.shape == (12, 4, 11, 11)
    index = (5, 1, 10, 1)

    def patch(value: Any, hook: gp.HookPoint) -> None:
        value[index[1:]] = cache[hook.name][index[1:]]

    last = model.run_with_hooks(tokens, [("pattern5", patch)])[-1]
    a, b = (model.to_single_token(answer) for answer in ANSWERS)
    assert ours[index] == pytest.approx(last[a] - last[b], abs=1e-4)


def test_a_metric_is_given_the_last_logits_of_the_batch(model: gp.Model) -> None:
    clean, corrupted = model.to_tokens([CLEAN, CORRUPTED]), model.to_tokens([CORRUPTED, CLEAN])
    _, cache = model.run_with_cache(clean)
    a, b = (model.to_single_token(answer) for answer in ANSWERS)

    def metric(logits: Any) -> Any:
        assert logits.shape == (2, 1, 50257)
        last = logits[:, -1]
        return (last[0, a] - last[0, b]) - 2 * (last[1, a] - last[1, b])

    for name in ("resid_pre", "attn_head_out_all_pos"):
        ours = function(name)(model, corrupted, cache, metric)
        single = []
        for i in range(2):
            _, one = model.run_with_cache(clean[i])
            single.append(function(name)(model, corrupted[i], one, lambda logits: logits[0, -1, a] - logits[0, -1, b]))
        assert np.allclose(ours, single[0] - 2 * single[1], atol=1e-5)
        both = function(name)(model, corrupted, cache, ANSWERS)
        assert np.allclose(both, (single[0] + single[1]) / 2, atol=1e-5)


def test_batches_too_large_to_hold_are_cut(model: gp.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    _, cache = model.run_with_cache(model.to_tokens([MARY, MARY]))
    tokens = model.to_tokens([JOHN, JOHN])
    args = (model, tokens, cache, (" Mary", " John"))
    whole = compat.get_act_patch_attn_head_out_all_pos(*args)
    monkeypatch.setattr(compat, "_MOST_BYTES", 1)
    assert (compat.get_act_patch_attn_head_out_all_pos(*args) == whole).all()


def test_the_three_of_every_kind_are_stacked(model: gp.Model) -> None:
    _, cache = model.run_with_cache(CLEAN)
    args = (model, model.to_tokens(CORRUPTED), cache, ANSWERS)
    blocks = compat.get_act_patch_block_every(*args)
    assert blocks.shape == (3, 12, 11) and (blocks[1] == compat.get_act_patch_attn_out(*args)).all()
    heads = compat.get_act_patch_attn_head_all_pos_every(*args)
    assert heads.shape == (5, 12, 4) and (heads[4] == compat.get_act_patch_attn_head_pattern_all_pos(*args)).all()
    by_pos = compat.get_act_patch_attn_head_by_pos_every(*args)
    pattern = compat.get_act_patch_attn_head_pattern_by_pos(*args)
    assert by_pos.shape == (5, 12, 11, 4) and (by_pos[4] == pattern.swapaxes(1, 2)).all()


def test_the_table_of_indices(model: gp.Model) -> None:
    pytest.importorskip("pandas")
    _, cache = model.run_with_cache(CLEAN)
    args = (model, model.to_tokens(CORRUPTED), cache, ANSWERS)
    values, index = compat.get_act_patch_resid_pre(*args, return_index_df=True)
    assert list(index.columns) == ["layer", "pos"] and len(index) == values.size


def test_tensors_come_back_as_tensors(model: gp.Model, torch: Any) -> None:
    _, cache = model.run_with_cache(CLEAN)
    a, b = (model.to_single_token(answer) for answer in ANSWERS)

    def metric(logits: Any) -> Any:
        assert isinstance(logits, torch.Tensor)
        return logits[0, -1, a] - logits[0, -1, b]

    tokens = torch.tensor(model.to_tokens([CORRUPTED]))
    ours = compat.get_act_patch_resid_pre(model, tokens, cache, metric)
    assert isinstance(ours, torch.Tensor) and ours.shape == (12, 11)
    assert isinstance(compat.get_act_patch_block_every(model, tokens, cache, metric), torch.Tensor)


def test_a_model_with_transformer_lens_defaults() -> None:
    model = compat.HookedTransformer.from_pretrained("tiny")
    tokens = model.to_tokens(CLEAN)
    assert tokens.shape == (1, 12) and tokens[0, 0] == 50256
    logits, cache = model.run_with_cache(tokens)
    assert logits.shape == (1, 12, 50257) and cache["z", 0].shape == (1, 12, 4, 16)
    assert "center_unembed" in repr(model)
    assert abs(float(logits[0, -1].mean())) < 1e-3
    values = compat.get_act_patch_resid_pre(model, model.to_tokens(CORRUPTED), cache, ANSWERS)
    assert values.shape == (12, 12)


def test_a_cache_of_other_prompts_is_refused(model: gp.Model) -> None:
    _, cache = model.run_with_cache([CLEAN, CORRUPTED])
    with pytest.raises(ValueError, match="the cache is of 2 prompts, and there are 1 corrupted ones"):
        compat.get_act_patch_resid_pre(model, model.to_tokens(CORRUPTED), cache, ANSWERS)
