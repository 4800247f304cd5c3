"""Studies that look at a model without changing a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional, Union

from . import _native
from ._model import Model
from ._results import Result
from ._studies import _places
from ._tokens import Prompt


def logit_lens(
    model: Model,
    prompt: Prompt,
    answers: Optional[tuple[Union[str, int], Union[str, int]]] = None,
    *,
    pos: int = -1,
    prepend_bos: Optional[bool] = None,
) -> Result:
    """What every point of the residual stream says comes next.

    With two answers also the difference of their logits, and which component and which head wrote how much of it after
    the position ``pos``: the grids ``logit_diff``, ``prob_a``, ``prob_b``, ``accumulated``, ``components``, ``heads``.
    """
    given = model.prompt(prompt, prepend_bos)
    if not given[1]:
        raise ValueError("the prompt is empty")
    at = _places(pos, len(given[1]), "position") or [0]
    ids = None if answers is None else [model.answer(answer) for answer in answers]
    if ids is not None and ids[0] == ids[1]:
        raise ValueError(f"answers compares {answers[0]!r} with itself: give two tokens")  # type: ignore[index]
    return Result(_native.logit_lens(model._native, given, ids, at[0]))


def head_scores(
    model: Model,
    *,
    seq_len: int = 50,
    batch: int = 1,
    seed: int = 0,
    prepend_bos: bool = True,
) -> Result:
    """What each head attends to in random tokens that are repeated once: induction, duplicate, previous, current and
    first, a grid each, and the log probability of each token."""
    draw = {"seq_len": seq_len, "batch": batch, "seed": seed, "bos": model.bos(prepend_bos)}
    return Result(_native.head_scores(model._native, draw))


def detect_heads(
    model: Model,
    prompt: Prompt,
    kinds: Union[str, Iterable[str]] = (),
    *,
    error_measure: str = "mul",
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    prepend_bos: Optional[bool] = None,
) -> Result:
    """How much each head is of some kinds: previous_token_head, duplicate_token_head, induction_head."""
    how = {
        "kinds": [kinds] if isinstance(kinds, str) else list(kinds),
        "error_measure": error_measure,
        "exclude_bos": exclude_bos,
        "exclude_current_token": exclude_current_token,
    }
    return Result(_native.detect_heads(model._native, model.prompt(prompt, prepend_bos), how))


def composition_scores(model: Model, kinds: Iterable[str] = ("q", "k", "v")) -> Result:
    """Which head reads what which other head wrote, by their weights alone: a grid for each of q, k and v."""
    return Result(_native.composition(model._native, list(kinds)))


def score_text(model: Model, prompt: Prompt, *, prepend_bos: Optional[bool] = None) -> Result:
    """The log probability and the rank of each token of a text; ``result.facts["loss"]`` is the mean loss."""
    return Result(_native.score_text(model._native, model.prompt(prompt, prepend_bos)))
