"""Prompts as they may be given: texts, token ids, arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import numpy as np
import numpy.typing as npt

#: A text, or token ids: a list, a numpy array or a torch tensor.
Prompt = Union[str, Sequence[int], npt.NDArray[np.integer[Any]], Any]


def as_ids(tokens: Any) -> npt.NDArray[np.int64]:
    """Token ids as an array of one axis (one prompt) or two (several of equal length)."""
    try:
        ids = np.asarray(tokens)
    except ValueError as error:
        raise ValueError(f"token ids of prompts of different lengths: {error}") from None
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"token ids are whole numbers, and these are {ids.dtype}: give a text, or ids")
    if ids.ndim not in (1, 2):
        raise ValueError(f"token ids of shape {ids.shape}: give one prompt, (tokens,), or several, (prompts, tokens)")
    if ids.size and (ids.min() < 0 or ids.max() >= 2**32):
        raise ValueError(f"there is no token {int(ids.min() if ids.min() < 0 else ids.max())}")
    return ids.astype(np.int64)
