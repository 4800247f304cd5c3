"""Models, and what a run of one gives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np
import numpy.typing as npt

from . import _native
from ._progress import Progress, reporter
from ._tokens import Prompt, as_ids

Floats = npt.NDArray[np.float32]
#: An activation's name, several, or a function that says of a name whether it is wanted.
Names = Union[str, Sequence[str], Callable[[str], bool]]

_STEPS = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases", "refactor_factored_attn_matrices")


def act_name(name: str, layer: Optional[int] = None) -> str:
    """TransformerLens's full name of an activation: of ``("z", 3)`` ``"blocks.3.attn.hook_z"``."""
    return _native.site_name(name if layer is None else f"{name}{layer}")


@dataclass(frozen=True)
class HookPoint:
    """Where in the model a hook is called."""

    name: str

    def layer(self) -> int:
        """The layer of an activation of a block."""
        found = re.match(r"blocks\.(\d+)\.", self.name)
        if found is None:
            raise ValueError(f"{self.name} is in no layer")
        return int(found[1])


Hook = Callable[..., Any]


class ActivationCache(Mapping[str, Floats]):
    """The activations of a run by TransformerLens's names.

    ``cache["blocks.3.attn.hook_z"]``, ``cache["z3"]`` and ``cache["z", 3]`` are the same array. An activation has the
    shape ``(tokens, …)``, of patterns and scores ``(heads, tokens, tokens)``; where several prompts were run, or one
    as an array of two axes, an axis of prompts comes first.
    """

    def __init__(self, activations: dict[str, Floats], tokens: npt.NDArray[np.int64], model: "Model") -> None:
        self._activations = activations
        self.tokens = tokens
        self.model = model

    def __getitem__(self, key: Union[str, tuple[Any, ...]]) -> Floats:
        name = act_name(*key[:2]) if isinstance(key, tuple) else key
        found = self._activations.get(name)
        if found is None:
            name = act_name(name)
            found = self._activations.get(name)
        if found is None:
            raise KeyError(f"{name} was not kept")
        return found

    def __contains__(self, key: object) -> bool:
        try:
            self[key]  # type: ignore[index]
        except (KeyError, ValueError, TypeError):
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        return f"<ActivationCache of {len(self)} activations, {self.tokens.shape[-1]} tokens>"


@dataclass(frozen=True)
class Generated:
    """What a model wrote after a prompt."""

    text: str
    ids: list[int]
    tokens: list[str]
    log_probs: list[float]
    #: ``"length"``, ``"stop"`` or ``"end_of_text"``.
    finish_reason: str

    def __str__(self) -> str:
        return self.text


class Model:
    """A GPT-2 with its tokenizer. Load one with :meth:`from_pretrained`."""

    def __init__(self, native: _native.Model) -> None:
        self._native = native

    @classmethod
    def from_pretrained(
        cls,
        model: Union[str, "os.PathLike[str]"] = "tiny",
        *,
        ids_only: bool = False,
        fold_ln: bool = False,
        center_writing_weights: bool = False,
        center_unembed: bool = False,
        fold_value_biases: bool = False,
        refactor_factored_attn_matrices: bool = False,
    ) -> "Model":
        """``"tiny"`` (in the package), the name of a downloaded model such as ``"gpt2"``, or a folder of weights.

        The flags process the weights as TransformerLens does; by default they stay as they are. With ``ids_only``, a
        tokenizer that cannot be read is no error, and prompts are given as token ids.
        """
        flags = (fold_ln, center_writing_weights, center_unembed, fold_value_biases, refactor_factored_attn_matrices)
        steps = [step for step, wanted in zip(_STEPS, flags) if wanted]
        return cls(_native.Model.load(os.fspath(model), steps, ids_only))

    @property
    def name(self) -> str:
        """What it is called."""
        return self._native.name

    @property
    def config(self) -> dict[str, int]:
        """Its sizes, by GPT-2's names: ``n_layer``, ``n_head``, ``n_embd`` and so on."""
        return self._native.config

    @property
    def notes(self) -> list[str]:
        """What was assumed because its files do not say it."""
        return self._native.notes

    @property
    def bos_token_id(self) -> Optional[int]:
        """The token that opens a text."""
        return self._native.bos

    @property
    def eos_token_id(self) -> Optional[int]:
        """The token that ends a text."""
        return self._native.eos

    def __repr__(self) -> str:
        config = self.config
        sizes = f"{config['n_layer']} layers, {config['n_head']} heads, width {config['n_embd']}"
        return f"<Model {self.name}: {', '.join([sizes, *self._native.processing])}>"

    # Tokens

    def bos(self, prepend_bos: Optional[bool] = None) -> Optional[int]:
        """The token that is put in front of a text: none, unless it is asked for or the tokenizer always does it."""
        wanted = self._native.opens_texts if prepend_bos is None else prepend_bos
        if not wanted:
            return None
        if self._native.bos is None:
            raise ValueError(f"{self.name} has no token that opens a text: leave out prepend_bos")
        return self._native.bos

    def to_tokens(
        self, text: Union[str, Sequence[str]], prepend_bos: Optional[bool] = None
    ) -> npt.NDArray[np.int64]:
        """The token ids of a text, ``(tokens,)``, or of several texts of equally many tokens, ``(texts, tokens)``.

        No token is put in front unless ``prepend_bos`` is true.
        """
        bos = self.bos(prepend_bos)
        opening = [] if bos is None else [bos]
        if isinstance(text, str):
            return np.array(opening + self._native.encode(text), dtype=np.int64)
        rows = [opening + self._native.encode(one) for one in text]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1:
            counts = ", ".join(str(len(row)) for row in rows)
            raise ValueError(f"the texts have {counts} tokens: give texts of equally many, or one at a time")
        return np.array(rows, dtype=np.int64)

    def to_string(self, tokens: Any) -> Union[str, list[str]]:
        """The text of token ids; of two axes a list of texts."""
        ids = as_ids([tokens] if isinstance(tokens, (int, np.integer)) else tokens)
        if ids.ndim == 1:
            return self._native.decode(ids.tolist())
        return [self._native.decode(row) for row in ids.tolist()]

    def to_str_tokens(self, prompt: Prompt, prepend_bos: Optional[bool] = None) -> list[str]:
        """Each token of a prompt as a text."""
        return self._native.str_tokens(self.prompt(prompt, prepend_bos)[1])

    def to_single_token(self, text: str) -> int:
        """The id of a text that is exactly one token. ``"#319"`` is the token 319."""
        return self._native.single_token(text)

    def to_single_str_token(self, token: int) -> str:
        """A token as a text."""
        return self._native.str_tokens([int(token)])[0]

    def get_token_position(self, token: Union[str, int], prompt: Prompt, mode: str = "first") -> int:
        """Where a token stands in a prompt: its ``"first"`` or ``"last"`` place."""
        wanted = self.answer(token)
        found = [pos for pos, own in enumerate(self.prompt(prompt)[1]) if own == wanted]
        if mode not in ("first", "last"):
            raise ValueError(f'there is no mode "{mode}"; give first or last')
        if not found:
            raise ValueError(f"{self.to_single_str_token(wanted)!r} is not among the tokens of the prompt")
        return found[0 if mode == "first" else -1]

    def prompt(self, prompt: Prompt, prepend_bos: Optional[bool] = None) -> tuple[str, list[int]]:
        """One prompt as its text and its ids. Ids are taken as they are."""
        if isinstance(prompt, str):
            return prompt, self.to_tokens(prompt, prepend_bos).tolist()
        ids = as_ids(prompt)
        if ids.ndim == 2:
            if len(ids) != 1:
                raise ValueError(f"{len(ids)} prompts where one is expected: give one at a time")
            ids = ids[0]
        return self._native.decode(ids.tolist()), ids.tolist()

    def prompts(self, prompt: Any, prepend_bos: Optional[bool] = None) -> tuple[list[list[int]], bool]:
        """The ids of one or several prompts, and whether they were given as several."""
        if isinstance(prompt, str):
            return [self.prompt(prompt, prepend_bos)[1]], False
        if not hasattr(prompt, "shape") and len(prompt) and all(isinstance(one, str) for one in prompt):
            ids = self.to_tokens(prompt, prepend_bos)
        else:
            ids = as_ids(prompt)
        return (ids.tolist(), True) if ids.ndim == 2 else ([ids.tolist()], False)

    def answer(self, token: Union[str, int]) -> int:
        """The id of an answer: a text that is one token, or an id."""
        return self.to_single_token(token) if isinstance(token, str) else int(token)

    # Runs

    def run(self, prompt: Any, prepend_bos: Optional[bool] = None) -> Floats:
        """The logits of the token after each position, ``(tokens, vocabulary)``; of several prompts with an axis more."""
        prompts, several = self.prompts(prompt, prepend_bos)
        logits = [self._native.cached(ids, [])[0] for ids in prompts]
        return np.stack(logits) if several else logits[0]

    __call__ = run

    def run_with_cache(
        self, prompt: Any, names_filter: Optional[Names] = None, prepend_bos: Optional[bool] = None
    ) -> tuple[Floats, ActivationCache]:
        """The logits, and the activations of a run by TransformerLens's names."""
        prompts, several = self.prompts(prompt, prepend_bos)
        names = None if names_filter is None else self.names(names_filter)
        runs = [self._native.cached(ids, names) for ids in prompts]
        if not several:
            logits, kept = runs[0]
            return logits, ActivationCache(dict(kept), np.array(prompts[0]), self)
        columns = zip(*(kept for _, kept in runs))
        activations = {column[0][0]: np.stack([array for _, array in column]) for column in columns}
        logits = np.stack([logits for logits, _ in runs])
        return logits, ActivationCache(activations, np.array(prompts), self)

    def run_with_hooks(
        self, prompt: Any, fwd_hooks: Iterable[tuple[Names, Hook]] = (), prepend_bos: Optional[bool] = None
    ) -> Floats:
        """The logits of a run in which functions see and change activations.

        A hook is called as ``function(value, hook=point)``; what it returns, or else what it leaves in ``value``, is
        what the model goes on with. Names are as in :class:`ActivationCache`, or a function that says of a name
        whether it is meant.
        """
        prompts, several = self.prompts(prompt, prepend_bos)
        if len(prompts) != 1:
            raise ValueError(f"{len(prompts)} prompts with hooks: give one at a time")
        hooks: dict[str, list[Hook]] = {}
        for names, function in fwd_hooks:
            for name in self.names(names):
                hooks.setdefault(name, []).append(function)

        def call(name: str, array: Floats) -> Floats:
            value = array[None] if several else array
            for function in hooks[name]:
                returned = function(value, hook=HookPoint(name))
                if returned is not None:
                    value = np.asarray(returned, dtype=np.float32)
            return value[0] if several else value

        logits = self._native.hooked(prompts[0], list(hooks), call)
        return logits[None] if several else logits

    def names(self, names: Names) -> list[str]:
        """The full names of the activations that are meant."""
        if callable(names):
            return [name for name in _native.site_names(self.config["n_layer"]) if names(name)]
        return [act_name(name) for name in ([names] if isinstance(names, str) else names)]

    def generate(
        self,
        prompt: Prompt,
        max_new_tokens: int = 10,
        *,
        temperature: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
        seed: Optional[int] = None,
        stop: Union[str, Sequence[str]] = (),
        prepend_bos: Optional[bool] = None,
        progress: Progress = None,
    ) -> Generated:
        """What the model writes after a prompt: always the most likely token, unless tokens are to be drawn."""
        drawn = any(value is not None for value in (top_k, top_p, seed))
        chosen = (1.0 if drawn else 0.0) if temperature is None else temperature
        stops = [stop] if isinstance(stop, str) else list(stop)
        _, ids = self.prompt(prompt, prepend_bos)
        with reporter(progress, "generate") as report:
            written, log_probs, text, reason = self._native.generate(
                ids, max_new_tokens, chosen, top_k, top_p, seed or 0, stops, report
            )
        return Generated(text, written, self._native.str_tokens(written), log_probs, reason)
