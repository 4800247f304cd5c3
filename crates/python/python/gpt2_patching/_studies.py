"""Studies that change runs: sweeps, ablations, paths, and attribution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._model import Model
from ._progress import Progress, reporter
from ._prompts import Answers, PromptSet
from ._results import Result
from ._tokens import Prompt

#: The name of a metric, or a function of the logits of the next token, an array (vocabulary,).
Metric = Union[str, Callable[[npt.NDArray[np.float32]], Any]]
#: A head: (5, 1) or "5.1".
Head = Union[str, tuple[int, int]]


def ids_of(model: Model, answers: Optional[Answers]) -> list[int]:
    """The ids of an answer, or of several, each once."""
    if answers is None:
        return []
    several = [answers] if isinstance(answers, (str, int, np.integer)) else answers
    return list(dict.fromkeys(model.answer(answer) for answer in several))


def head_of(head: Head) -> tuple[int, int]:
    """A head's layer and its number."""
    if isinstance(head, str):
        parts = head.lower().lstrip("la").replace(".h", ".").replace("h", ".").split(".")
        if len(parts) != 2 or not all(part.isdecimal() for part in parts):
            raise ValueError(f'invalid head "{head}": expected LAYER.HEAD, such as 5.1 for head 1 of layer 5')
        return int(parts[0]), int(parts[1])
    layer, number = head
    return int(layer), int(number)


def _places(places: Union[None, int, Iterable[int]], length: int, what: str) -> Optional[list[int]]:
    """Places along an axis; negative ones count from its end."""
    if places is None:
        return None
    listed = [places] if isinstance(places, (int, np.integer)) else list(places)
    for place in listed:
        if not -length <= place < length:
            raise ValueError(f"there is no {what} {place}: they run from 0 to {length - 1}")
    return [int(place) % length for place in listed]


@dataclass
class Asked:
    """What every study of pairs is asked: the pairs, and the metric."""

    model: Model
    clean: Union[Prompt, PromptSet]
    corrupted: Optional[Prompt]
    answers: Optional[tuple[Answers, Answers]]
    options: dict[str, Any] = field(default_factory=dict)

    def pairs(self) -> _native.Pairs:
        """The pairs as tokens."""
        options = self.options
        direction, bos = options["direction"], options["prepend_bos"]
        if isinstance(self.clean, PromptSet):
            if self.corrupted is not None:
                raise TypeError("a PromptSet has its corrupted prompts: leave out corrupted")
            sampling = (options["resamples"], options["seed"], options["align"])
            return _native.Pairs.of_set(
                self.model._native, self.clean._native, self.model.bos(bos), direction, sampling
            )
        if self.corrupted is None:
            raise TypeError("give two prompts, clean and corrupted, or a PromptSet")
        a, b = self.answers if self.answers is not None else (None, None)
        return _native.Pairs.one(
            self.model._native,
            self.model.prompt(self.clean, bos),
            self.model.prompt(self.corrupted, bos),
            [ids_of(self.model, a), ids_of(self.model, b)],
            direction,
        )

    def n_tokens(self) -> int:
        """How many tokens the prompts have; of a set, a bound that leaves the check to the sweep."""
        if isinstance(self.clean, PromptSet):
            return self.model.config["block_size"]
        return len(self.model.prompt(self.clean, self.options["prepend_bos"])[1])

    def metric(self) -> _native.Metric:
        """The metric."""
        options = self.options
        of_set = isinstance(self.clean, PromptSet)
        a, b = self.answers if of_set and self.answers is not None else (None, None)
        return metric_of(self.model, options["metric"], options["scale"], (a, b), options["token"], options["loss_at"])


def metric_of(
    model: Model,
    metric: Metric,
    scale: Optional[str],
    answers: tuple[Optional[Answers], Optional[Answers]],
    token: Optional[Answers],
    loss_at: Optional[tuple[int, int]],
) -> _native.Metric:
    """A metric by its name, or a function."""
    ids = [ids_of(model, answers[0]), ids_of(model, answers[1]), ids_of(model, token)]
    if isinstance(metric, str):
        return _native.Metric(metric, scale, ids, loss_at, None)
    if not callable(metric):
        raise TypeError(f"metric={metric!r}: give the name of a metric, or a function of the last logits")
    return _native.Metric("", scale, ids, loss_at, (metric, getattr(metric, "__name__", type(metric).__name__)))


def selection(
    model: Model,
    n_tokens: int,
    site: Union[str, Sequence[str]],
    by: Union[None, str, Sequence[str]] = None,
    layers: Union[None, int, Iterable[int]] = None,
    positions: Union[None, int, Iterable[int]] = None,
    heads: Optional[Iterable[Head]] = None,
    neurons: Union[None, int, Iterable[int]] = None,
    engine: str = "incremental",
) -> dict[str, Any]:
    """The cells of a sweep."""
    if engine not in ("incremental", "plain"):
        raise ValueError(f'there is no engine "{engine}"; give incremental or plain')
    names = {"heads": ["z", "q", "k", "v", "pattern"], "blocks": ["resid_pre", "attn_out", "mlp_out"]}
    sites = names.get(site, [site]) if isinstance(site, str) else list(site)
    return {
        "sites": sites,
        "by": [by] if isinstance(by, str) else by if by is None else list(by),
        "layers": _places(layers, model.config["n_layer"], "layer"),
        "positions": _places(positions, n_tokens, "position"),
        "heads": None if heads is None else [head_of(head) for head in heads],
        "neurons": _places(neurons, model.config["n_inner"], "neuron"),
        "plain": engine == "plain",
    }


def sweep(
    model: Model,
    clean: Union[Prompt, PromptSet],
    corrupted: Optional[Prompt] = None,
    answers: Optional[tuple[Answers, Answers]] = None,
    *,
    site: Union[str, Sequence[str]] = "resid_post",
    by: Union[None, str, Sequence[str]] = None,
    metric: Metric = "logit_diff",
    direction: str = "denoising",
    scale: Optional[str] = None,
    token: Optional[Answers] = None,
    loss_at: Optional[tuple[int, int]] = None,
    layers: Union[None, int, Iterable[int]] = None,
    positions: Union[None, int, Iterable[int]] = None,
    heads: Optional[Iterable[Head]] = None,
    neurons: Union[None, int, Iterable[int]] = None,
    prepend_bos: Optional[bool] = None,
    engine: str = "incremental",
    resamples: int = 1000,
    seed: int = 0,
    align: Optional[str] = None,
    progress: Progress = None,
) -> Result:
    """Patches one activation after the other, and measures each patched run.

    ``answers`` are (a, b): the metric is logit(a) − logit(b) unless said otherwise. Other metrics are prob_diff, logit,
    prob, log_prob, rank, logit_change, prob_change (of ``token``, or else b), kl, loss (at ``loss_at``), or a function
    of the logits of the next token. ``scale`` is value, change or normalized.

    ``site`` is what is patched (resid_pre, resid_post, attn_out, mlp_out, z, q, k, v, pattern, …; several in a list;
    or ``"heads"``, ``"blocks"``), ``by`` the axes that the sweep runs along, such as ``("layer", "pos", "head")``; the
    other arguments choose a part of it. In ``direction`` denoising, activations of the clean run are put into the
    corrupted one; in noising the other way round.
    """
    options = dict(locals())
    asked = Asked(model, clean, corrupted, answers, options)
    cells = selection(model, asked.n_tokens(), site, by, layers, positions, heads, neurons, engine)
    pairs, measured = asked.pairs(), asked.metric()
    with reporter(progress, "sweep") as report:
        return Result(_native.sweep(model._native, pairs, measured, cells, report))


def ablate(
    model: Model,
    prompt: Prompt,
    answers: Optional[tuple[Answers, Answers]] = None,
    *,
    replacement: str = "zero",
    position: Optional[int] = None,
    others: Optional[Iterable[Prompt]] = None,
    site: Union[str, Sequence[str]] = "z",
    by: Union[None, str, Sequence[str]] = None,
    metric: Metric = "logit_diff",
    scale: Optional[str] = None,
    token: Optional[Answers] = None,
    loss_at: Optional[tuple[int, int]] = None,
    layers: Union[None, int, Iterable[int]] = None,
    positions: Union[None, int, Iterable[int]] = None,
    heads: Optional[Iterable[Head]] = None,
    neurons: Union[None, int, Iterable[int]] = None,
    prepend_bos: Optional[bool] = None,
    engine: str = "incremental",
    progress: Progress = None,
) -> Result:
    """Replaces one activation of a prompt after the other, and measures what is lost.

    ``replacement`` is zero; mean (over the prompt's positions, or over those of ``others``); other-position (the
    activation at ``position``); or resample (the activations of each of ``others`` in turn: the result is the mean).
    """
    text, ids = model.prompt(prompt, prepend_bos)
    a, b = answers if answers is not None else (None, None)
    measured = metric_of(model, metric, scale, (a, b), token, loss_at)
    cells = selection(model, len(ids), site, by, layers, positions, heads, neurons, engine)
    at = _places(position, len(ids), "position")
    given = {
        "how": replacement,
        "position": None if at is None else at[0],
        "others": None if others is None else [model.prompt(other, prepend_bos)[1] for other in others],
    }
    with reporter(progress, "ablate") as report:
        return Result(_native.ablate(model._native, (text, ids), given, measured, cells, report))


def path_patch(
    model: Model,
    clean: Union[Prompt, PromptSet],
    corrupted: Optional[Prompt] = None,
    answers: Optional[tuple[Answers, Answers]] = None,
    *,
    sender: str = "z",
    to: str = "logits",
    receivers: Iterable[Any] = (),
    pos: Optional[int] = None,
    freeze_mlps: bool = False,
    metric: Metric = "logit_diff",
    direction: str = "denoising",
    scale: Optional[str] = None,
    token: Optional[Answers] = None,
    loss_at: Optional[tuple[int, int]] = None,
    prepend_bos: Optional[bool] = None,
    engine: str = "incremental",
    resamples: int = 1000,
    seed: int = 0,
    align: Optional[str] = None,
    progress: Progress = None,
) -> Result:
    """Patches the path from each sender to the receivers, and measures the change.

    ``sender`` is z (each head), mlp_out or embed; ``to`` is logits; q, k or v of the heads ``receivers``; or mlp of the
    layers ``receivers``. The metric is given as its change from the base run unless ``scale`` says otherwise.
    """
    options = dict(locals())
    asked = Asked(model, clean, corrupted, answers, options)
    listed = list(receivers)
    if to == "logits" and listed:
        raise ValueError('receivers= names heads or MLPs, which to="logits" does not use: leave one of the two out')
    route = {
        "from": sender,
        "to": to,
        "heads": [head_of(head) for head in listed] if to in ("q", "k", "v") else [],
        "layers": [int(layer) for layer in listed] if to == "mlp" else [],
        "pos": pos,
        "through_mlps": not freeze_mlps,
        "plain": engine == "plain",
    }
    pairs, measured = asked.pairs(), asked.metric()
    with reporter(progress, "path") as report:
        return Result(_native.path_patch(model._native, pairs, measured, route, report))


def attribute(
    model: Model,
    clean: Union[Prompt, PromptSet],
    corrupted: Optional[Prompt] = None,
    answers: Optional[tuple[Answers, Answers]] = None,
    *,
    method: str = "atp",
    steps: Optional[int] = None,
    exact: bool = False,
    site: Union[str, Sequence[str]] = "resid_post",
    by: Union[None, str, Sequence[str]] = None,
    metric: str = "logit_diff",
    direction: str = "denoising",
    scale: Optional[str] = None,
    token: Optional[Answers] = None,
    loss_at: Optional[tuple[int, int]] = None,
    layers: Union[None, int, Iterable[int]] = None,
    positions: Union[None, int, Iterable[int]] = None,
    heads: Optional[Iterable[Head]] = None,
    neurons: Union[None, int, Iterable[int]] = None,
    prepend_bos: Optional[bool] = None,
    engine: str = "incremental",
    resamples: int = 1000,
    seed: int = 0,
    align: Optional[str] = None,
    progress: Progress = None,
) -> Result:
    """Predicts a whole sweep from one backward pass.

    ``method`` is atp, relp, atp-star, or ig with ``steps`` runs. With ``exact`` the sweep is run as well: the grids
    ``"attribution"`` and ``"exact"`` are compared in ``result.facts["agreement"]``.
    """
    options = dict(locals())
    asked = Asked(model, clean, corrupted, answers, options)
    cells = selection(model, asked.n_tokens(), site, by, layers, positions, heads, neurons, engine)
    pairs, measured = asked.pairs(), asked.metric()
    how = {"method": method, "steps": steps, "exact": exact}
    with reporter(progress, "attribute") as report:
        return Result(_native.attribute(model._native, pairs, measured, cells, how, report))
