"""Sets of pairs of prompts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Union

from . import _native
from ._model import Model
from ._tokens import Prompt, as_ids

Answers = Union[str, int, Sequence[Union[str, int]]]


class PromptSet:
    """Pairs of a clean and a corrupted prompt with their answers, over which studies take means."""

    def __init__(self, native: _native.PromptSet) -> None:
        self._native = native

    @classmethod
    def ioi(cls, model: Model, count: int = 20, *, seed: int = 0, corruption: str = "swap") -> "PromptSet":
        """Random prompts of the indirect-object task. ``corruption`` is ``"swap"`` or ``"abc"``."""
        return cls(_native.PromptSet.built_in(model._native, "ioi", count, seed, corruption))

    @classmethod
    def built_in(cls, model: Model, name: str, count: int = 20, *, seed: int = 0) -> "PromptSet":
        """A set by its name: ioi, ioi-tutorial, greater-than, gender, subject-verb or capitals."""
        return cls(_native.PromptSet.built_in(model._native, name, count, seed, "swap"))

    @classmethod
    def from_file(cls, path: Union[str, "os.PathLike[str]"], *, ids: bool = False) -> "PromptSet":
        """The pairs of a file: JSON, JSON lines, CSV or TSV with clean, corrupted, a and b, or those of other tools."""
        return cls(_native.PromptSet.open(os.fspath(path), ids))

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Prompt, Prompt, Answers, Answers]]) -> "PromptSet":
        """Pairs of prompts: each is (clean, corrupted, a, b), where a and b are answers or lists of answers."""

        def prompt(given: Prompt) -> Union[str, list[int]]:
            return given if isinstance(given, str) else as_ids(given).tolist()

        def answers(given: Answers) -> list[Union[str, int]]:
            return [given] if isinstance(given, (str, int)) else list(given)

        rows = [(prompt(clean), prompt(corrupted), answers(a), answers(b)) for clean, corrupted, a, b in pairs]
        return cls(_native.PromptSet.of_pairs(rows))

    @property
    def pairs(self) -> list[tuple[str, str, list[str], list[str]]]:
        """The clean prompt, the corrupted prompt, and the answers of each pair."""
        return self._native.pairs

    @property
    def notes(self) -> list[str]:
        """What a user should know of the file."""
        return self._native.notes

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"<PromptSet {self._native.name}: {len(self)} pairs>"
