"""Circuits: the edges that carry an answer."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, Optional, Union

from . import _native
from ._model import Model
from ._progress import Progress, reporter
from ._prompts import Answers, PromptSet
from ._results import Result
from ._studies import Asked, Metric
from ._tokens import Prompt


_Context = tuple[_native.Model, _native.Pairs, _native.Metric, dict[str, Any]]


class CircuitResult(Result):
    """A circuit with the scores of all edges: ``values`` is the matrix of writers × readers."""

    def __init__(self, native: _native.Study, found: _native.Circuit, context: _Context) -> None:
        super().__init__(native)
        self._circuit = found
        self._context = context

    @property
    def edges(self) -> list[tuple[str, float]]:
        """The edges of the circuit with their scores, such as ``("a5.h5->a8.h6<v>", 0.25)``."""
        return self._circuit.edges

    @property
    def scores(self) -> dict[str, float]:
        """The score of every edge of the model."""
        return dict(self._circuit.scores)

    @property
    def faithfulness(self) -> float:
        """How much of the answer the circuit gives alone: 1 for all of it."""
        found = self.facts["verdict"]["faithfulness"]
        return float("nan") if found is None else float(found)

    def judge(
        self, edges: Optional[Iterable[str]] = None, *, seed: int = 0, progress: Progress = None
    ) -> dict[str, Any]:
        """Faithfulness over the number of edges (curve, cpr, cmd), completeness and minimality.

        With ``edges``, of the circuit of these edges instead.
        """
        import json

        found = self._circuit if edges is None else self._circuit.of(list(edges))
        with reporter(progress, "judge") as report:
            verdict: dict[str, Any] = json.loads(_native.judge(*self._context, found, seed, report))
        return verdict

    def save_graph(self, path: Union[str, "os.PathLike[str]"]) -> None:
        """Writes scores and circuit in the file form of EAP-IG and MIB."""
        with open(path, "w", encoding="utf-8") as file:
            file.write(self._circuit.json())

    def to_dot(self) -> str:
        """The circuit for Graphviz."""
        return self._circuit.dot()


def read_circuit(model: Model, path: Union[str, "os.PathLike[str]"]) -> tuple[list[tuple[str, float]], dict[str, float]]:
    """The edges of the circuit and the scores of all edges, from a file in the form of EAP-IG and MIB."""
    found = _native.read_circuit(model._native, os.fspath(path))
    return found.edges, dict(found.scores)


def circuit(
    model: Model,
    clean: Union[Prompt, PromptSet],
    corrupted: Optional[Prompt] = None,
    answers: Optional[tuple[Answers, Answers]] = None,
    *,
    method: str = "eap-ig",
    steps: Optional[int] = None,
    edges: Optional[int] = None,
    threshold: Optional[float] = None,
    absolute: bool = False,
    greedy: bool = False,
    order: str = "late-first",
    ablation: str = "source",
    exact: bool = False,
    metric: Metric = "logit_diff",
    direction: str = "denoising",
    token: Optional[Answers] = None,
    loss_at: Optional[tuple[int, int]] = None,
    prepend_bos: Optional[bool] = None,
    engine: str = "incremental",
    progress: Progress = None,
) -> CircuitResult:
    """Scores every edge of the model, and chooses a circuit of those that carry the answer.

    ``method`` is eap, eap-ig, eap-ig-activations, clean-corrupted, exact or acdc. ``edges`` are kept (50), or those of
    at least ``threshold``; with ``absolute`` by magnitude, with ``greedy`` from the logits on. Cut edges carry what
    ``ablation`` says: source, zero or mean.
    """
    options = {**locals(), "scale": None, "resamples": 1000, "seed": 0, "align": None}
    asked = Asked(model, clean, corrupted, answers, options)
    search = {
        "method": method,
        "steps": steps,
        "ablation": ablation,
        "edges": edges,
        "threshold": threshold,
        "absolute": absolute,
        "greedy": greedy,
        "order": order,
        "exact": exact,
        "plain": engine == "plain",
    }
    pairs, measured = asked.pairs(), asked.metric()
    with reporter(progress, "circuit") as report:
        native, found = _native.circuit(model._native, pairs, measured, search, report)
    return CircuitResult(native, found, (model._native, pairs, measured, search))
