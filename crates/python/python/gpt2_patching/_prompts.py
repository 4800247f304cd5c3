"""Sets of pairs of prompts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Union

from . import _native
from ._model import Model

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
    def from_pairs(cls, pairs: Iterable[tuple[str, str, Answers, Answers]]) -> "PromptSet":
        """Pairs of texts: each is (clean, corrupted, a, b), where a and b are answers or lists of answers."""

        import json
        import tempfile

        def row(pair: tuple[Any, ...]) -> dict[str, Any]:
            clean, corrupted, a, b = pair
            return {"clean": clean, "corrupted": corrupted, "a": a, "b": b}

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "pairs.json")
            with open(path, "w", encoding="utf-8") as file:
                json.dump([row(pair) for pair in pairs], file)
            return cls(_native.PromptSet.open(path, False))

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
