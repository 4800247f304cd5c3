"""TransformerLens's patching functions, on our models.

The arguments, the order of the axes and the meaning are those of ``transformer_lens.patching`` 2.16.1. What differs:

- the metric is given the logits of the last position only, ``(batch, 1, vocabulary)``: ``logits[:, -1]`` reads them.
  It is given torch tensors, and the result is one, if the tokens are a torch tensor; else numpy arrays. In the place of
  a function, ``(a, b)`` is the difference of the logits of two answers, which is faster;
- ``clean_cache`` is that of a run of our model: its tokens are run again, its activations are not read.

``HookedTransformer`` is our :class:`~gpt2_patching.Model` with TransformerLens's defaults.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._model import ActivationCache, Model
from ._prompts import Answers
from ._studies import ids_of, metric_of, selection
from ._tokens import as_ids

#: A function of the logits (batch, 1, vocabulary), or two answers whose logits are compared.
PatchingMetric = Union[Callable[[Any], Any], tuple[Answers, Answers]]

#: The most bytes of logits that are held at once.
_MOST_BYTES = 1 << 29


class HookedTransformer(Model):
    """A model with TransformerLens's defaults: weights are processed, texts begin with the token that opens a text,
    and one text is a batch of one."""

    @classmethod
    def from_pretrained(cls, model: Any = "tiny", **flags: Any) -> "HookedTransformer":
        """As in TransformerLens: ``fold_ln``, ``center_writing_weights`` and ``center_unembed`` are true."""
        defaults = {"fold_ln": True, "center_writing_weights": True, "center_unembed": True}
        return cls(Model.from_pretrained(model, **{**defaults, **flags})._native)

    @classmethod
    def from_pretrained_no_processing(cls, model: Any = "tiny", **flags: Any) -> "HookedTransformer":
        """The weights as they are."""
        return cls(Model.from_pretrained(model, **flags)._native)

    def bos(self, prepend_bos: Optional[bool] = None) -> Optional[int]:
        """The token in front of a text, unless ``prepend_bos`` is false."""
        return super().bos(True if prepend_bos is None else prepend_bos)

    def to_tokens(self, text: Union[str, Sequence[str]], prepend_bos: Optional[bool] = None) -> npt.NDArray[np.int64]:
        """The token ids, ``(batch, tokens)``."""
        return np.atleast_2d(super().to_tokens(text, prepend_bos))

    def prompt(self, prompt: Any, prepend_bos: Optional[bool] = None) -> tuple[str, list[int]]:
        """One prompt as its text and its ids."""
        if isinstance(prompt, str):
            return prompt, self.to_tokens(prompt, prepend_bos)[0].tolist()
        return super().prompt(prompt, prepend_bos)

    def prompts(self, prompt: Any, prepend_bos: Optional[bool] = None) -> tuple[list[list[int]], bool]:
        """The ids of prompts: always a batch."""
        return super().prompts(prompt, prepend_bos)[0], True


def _is_torch(tokens: Any) -> bool:
    return type(tokens).__module__.split(".")[0] == "torch"


def _act_patch(
    site: str,
    by: tuple[str, ...],
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    return_index_df: bool,
) -> Any:
    corrupted = np.atleast_2d(as_ids(corrupted_tokens)).tolist()
    clean = np.atleast_2d(clean_cache.tokens).tolist()
    if len(clean) != len(corrupted):
        raise ValueError(f"the cache is of {len(clean)} prompts, and there are {len(corrupted)} corrupted ones")
    answers = patching_metric if isinstance(patching_metric, tuple) else None
    ids = [[], []] if answers is None else [ids_of(model, answer) for answer in answers]
    pairs = [
        _native.Pairs.one(model._native, (model._native.decode(a), a), (model._native.decode(b), b), ids, "denoising")
        for a, b in zip(clean, corrupted)
    ]
    wrap, unwrap = (_torch_tensor, _torch_tensor) if _is_torch(corrupted_tokens) else (_array, _array)
    n_tokens = len(clean[0])
    if len(pairs) == 1:
        if answers is not None:
            metric = metric_of(model, "logit_diff", None, (None, None), None, None)
        else:
            function = patching_metric

            def of_last(logits: Any) -> float:
                return float(function(wrap(logits[None, None])))  # type: ignore[operator]

            metric = metric_of(model, of_last, None, (None, None), None, None)
        cells = selection(model, n_tokens, site, by)
        study = _native.sweep(model._native, pairs[0], metric, cells, None)
        values = study.values(study.main)
    else:
        values = _of_batch(site, by, model, pairs, ids, patching_metric, wrap)
    result = unwrap(values)
    return (result, _index_df(values.shape, by)) if return_index_df else result


def _of_batch(
    site: str,
    by: tuple[str, ...],
    model: Model,
    pairs: list[_native.Pairs],
    ids: list[list[int]],
    patching_metric: PatchingMetric,
    wrap: Callable[[Any], Any],
) -> npt.NDArray[np.float32]:
    """The metric of a whole batch for every cell. The logits of some layers, or of some heads, are held at a time."""
    config, n_tokens = model.config, pairs[0].n_tokens
    along = {"layer": config["n_layer"], "pos": n_tokens, "head": config["n_head"], "dest": n_tokens, "src": n_tokens}
    shape = tuple(along[axis] for axis in by)
    bytes_of_layer = int(np.prod(shape[1:])) * len(pairs) * config["vocab_size"] * 4
    by_head = "head" in by and bytes_of_layer > _MOST_BYTES
    parts: list[tuple[int, Optional[int]]] = [
        (layer, head) for layer in range(shape[0]) for head in (range(along["head"]) if by_head else [None])
    ]
    values = np.empty(shape, dtype=np.float32)
    for layer, head in parts:
        heads = None if head is None else [(layer, head)]
        cells = selection(model, n_tokens, site, by, layers=[layer], heads=heads)
        ends = [_native.sweep_ends(model._native, pair, cells, None) for pair in pairs]
        logits = np.concatenate(ends, axis=-2)
        place = tuple(
            slice(None) if axis not in ("layer", "head") or (axis == "head" and head is None) else
            slice(layer, layer + 1) if axis == "layer" else slice(head, head + 1)  # type: ignore[operator]
            for axis in by
        )
        part = values[place]
        for cell in np.ndindex(part.shape):
            if callable(patching_metric):
                part[cell] = float(patching_metric(wrap(logits[cell][:, None])))
            else:
                a, b = (logits[cell][:, answer].mean(axis=-1) for answer in ids)
                part[cell] = float((a - b).mean())
    return values


def _array(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return values


def _torch_tensor(values: npt.NDArray[np.float32]) -> Any:
    return sys.modules["torch"].from_numpy(values)


def _index_df(shape: tuple[int, ...], by: tuple[str, ...]) -> Any:
    import pandas

    index = np.indices(shape).reshape(len(shape), -1)
    return pandas.DataFrame(dict(zip(by, index)))


def get_act_patch_resid_pre(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """The residual stream before each block, layer × position."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("resid_pre", ("layer", "pos"), *args)


def get_act_patch_resid_mid(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """The residual stream between attention and MLP, layer × position."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("resid_mid", ("layer", "pos"), *args)


def get_act_patch_attn_out(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """What attention writes, layer × position."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("attn_out", ("layer", "pos"), *args)


def get_act_patch_mlp_out(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """What the MLP writes, layer × position."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("mlp_out", ("layer", "pos"), *args)


def get_act_patch_attn_head_out_by_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """What each head has gathered, layer × position × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("z", ("layer", "pos", "head"), *args)


def get_act_patch_attn_head_q_by_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Queries, layer × position × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("q", ("layer", "pos", "head"), *args)


def get_act_patch_attn_head_k_by_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Keys, layer × position × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("k", ("layer", "pos", "head"), *args)


def get_act_patch_attn_head_v_by_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Values, layer × position × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("v", ("layer", "pos", "head"), *args)


def get_act_patch_attn_head_pattern_by_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """A row of a head's pattern, layer × head × destination."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("pattern", ("layer", "head", "dest"), *args)


def get_act_patch_attn_head_pattern_dest_src_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """One number of a head's pattern, layer × head × destination × source."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("pattern", ("layer", "head", "dest", "src"), *args)


def get_act_patch_attn_head_out_all_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """What each head has gathered, layer × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("z", ("layer", "head"), *args)


def get_act_patch_attn_head_q_all_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Queries, layer × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("q", ("layer", "head"), *args)


def get_act_patch_attn_head_k_all_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Keys, layer × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("k", ("layer", "head"), *args)


def get_act_patch_attn_head_v_all_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Values, layer × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("v", ("layer", "head"), *args)


def get_act_patch_attn_head_pattern_all_pos(
    model: Model,
    corrupted_tokens: Any,
    clean_cache: ActivationCache,
    patching_metric: PatchingMetric,
    *,
    return_index_df: bool = False,
) -> Any:
    """Patterns, layer × head."""
    args = (model, corrupted_tokens, clean_cache, patching_metric, return_index_df)
    return _act_patch("pattern", ("layer", "head"), *args)


def _stack(results: list[Any]) -> Any:
    if _is_torch(results[0]):
        return sys.modules["torch"].stack(results, dim=0)
    return np.stack(results)


def get_act_patch_attn_head_all_pos_every(
    model: Model, corrupted_tokens: Any, clean_cache: ActivationCache, metric: PatchingMetric
) -> Any:
    """Outputs, queries, keys, values and patterns of heads at all positions, kind × layer × head."""
    args = (model, corrupted_tokens, clean_cache, metric)
    return _stack(
        [
            get_act_patch_attn_head_out_all_pos(*args),
            get_act_patch_attn_head_q_all_pos(*args),
            get_act_patch_attn_head_k_all_pos(*args),
            get_act_patch_attn_head_v_all_pos(*args),
            get_act_patch_attn_head_pattern_all_pos(*args),
        ]
    )


def get_act_patch_attn_head_by_pos_every(
    model: Model, corrupted_tokens: Any, clean_cache: ActivationCache, metric: PatchingMetric
) -> Any:
    """The same by position, kind × layer × position × head."""
    args = (model, corrupted_tokens, clean_cache, metric)
    return _stack(
        [
            get_act_patch_attn_head_out_by_pos(*args),
            get_act_patch_attn_head_q_by_pos(*args),
            get_act_patch_attn_head_k_by_pos(*args),
            get_act_patch_attn_head_v_by_pos(*args),
            get_act_patch_attn_head_pattern_by_pos(*args).swapaxes(1, 2),
        ]
    )


def get_act_patch_block_every(
    model: Model, corrupted_tokens: Any, clean_cache: ActivationCache, metric: PatchingMetric
) -> Any:
    """The residual stream, attention and MLPs, kind × layer × position."""
    args = (model, corrupted_tokens, clean_cache, metric)
    return _stack([get_act_patch_resid_pre(*args), get_act_patch_attn_out(*args), get_act_patch_mlp_out(*args)])
