"""Activation patching of GPT-2 on the CPU, without an ML framework.

>>> import gpt2_patching as gp
>>> model = gp.Model.from_pretrained("tiny")
>>> result = gp.sweep(
...     model,
...     "Michelle Jones was a top-notch student. Michelle",
...     "Michelle Smith was a top-notch student. Michelle",
...     (" Smith", " Jones"),
... )
>>> result.values.shape
(12, 11)

The numbers are those of the command line, bit for bit. A result that ends a notebook's cell is shown as its picture.
``gpt2_patching.compat`` has TransformerLens's ``get_act_patch_*`` functions.
"""

from ._circuits import CircuitResult, circuit, read_circuit
from ._looking import composition_scores, detect_heads, head_scores, logit_lens, score_text
from ._native import __version__
from ._model import ActivationCache, Generated, HookPoint, Model
from ._prompts import PromptSet
from ._results import Grid, Result
from ._studies import ablate, attribute, path_patch, sweep

__all__ = [
    "ActivationCache",
    "CircuitResult",
    "Generated",
    "Grid",
    "HookPoint",
    "Model",
    "PromptSet",
    "Result",
    "__version__",
    "ablate",
    "attribute",
    "circuit",
    "composition_scores",
    "detect_heads",
    "head_scores",
    "logit_lens",
    "path_patch",
    "read_circuit",
    "score_text",
    "sweep",
]
