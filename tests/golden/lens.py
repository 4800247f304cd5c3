"""Makes lens.json: head detection, circuits between tokens, and refactored weights, by TransformerLens 2.16.1.

usage: python lens.py          (README.md)
"""

import itertools
import json

import torch
from transformer_lens import FactoredMatrix
from transformer_lens.head_detector import detect_head

from judge import EVERYTHING, TINY, load_hf, load_tl, rounded, save

IDS = [50256, 15470, 4995, 15470, 4995, 617, 15470, 4995, 617, 617]
hf = load_hf()
raw = load_tl(hf)
ids = torch.tensor([IDS])
known = torch.tensor(sorted(json.loads((TINY / "known_tokens.json").read_text())))
w_e, w_u = raw.W_E[known], raw.W_U[:, known]


def detected(kind, measure, exclude_bos, exclude_current_token):
    raw.to_tokens = lambda *_, **__: ids  # detect_head takes texts only
    scores = detect_head(raw, "", kind, exclude_bos=exclude_bos, exclude_current_token=exclude_current_token,
                         error_measure=measure)
    return {"kind": kind, "error_measure": measure, "exclude_bos": exclude_bos,
            "exclude_current_token": exclude_current_token, "values": rounded(scores.flatten())}


def accuracy(matrix, dim):
    """The share of rows (dim 1) or columns (dim 0) whose largest number stands on the diagonal."""
    return rounded((matrix.argmax(dim) == torch.arange(len(matrix))).float().mean())


def k_composition(l1, h1, l2, h2):
    queries = w_e @ raw.W_Q[l2, h2]
    keys = w_e @ raw.W_V[l1, h1] @ raw.W_O[l1, h1] @ raw.W_K[l2, h2]
    circuit = FactoredMatrix(queries, keys.T).AB
    return {"heads": [l1, h1, l2, h2], "by_rows": accuracy(circuit, 1), "by_columns": accuracy(circuit, 0)}


def ov(layer, head):
    circuit = FactoredMatrix(w_e @ raw.W_V[layer, head], raw.W_O[layer, head] @ w_u).AB
    return {"head": [layer, head], "by_rows": accuracy(circuit, 1)}


def refactored():
    model = load_tl(hf, EVERYTHING)
    logits, cache = model.run_with_cache(ids)
    last = lambda name: [rounded(cache[name, layer][0, -1].flatten().abs()) for layer in range(model.cfg.n_layers)]
    return {"logits_last_first_16": rounded(logits[0, -1, :16]), "z_abs_last": last("z"), "q_abs_last": last("q")}


kinds = ["previous_token_head", "duplicate_token_head", "induction_head"]
spectrum = FactoredMatrix(raw.W_V[7, 1], raw.W_O[7, 1])
save("lens", {
    "source": "TransformerLens 2.16.1 on the tiny model: detect_head; FactoredMatrix of W_V[7,1], W_O[7,1]; circuits over the tokens of known_tokens.json in ascending order, top-1 accuracy by rows (queries) and by columns (keys); logits and |z|, |q| at the last position after load_and_process_state_dict with every flag",
    "ids": IDS,
    "detect": [detected(*case) for case in itertools.product(kinds, ["mul", "abs"], [False, True], [False, True])],
    "singular_values": rounded(spectrum.S),
    "eigenvalues_abs": sorted(rounded(spectrum.eigenvalues.abs()), reverse=True),
    "k_composition_circuits": [k_composition(*heads) for heads in [(6, 2, 7, 1), (6, 0, 8, 3), (6, 2, 8, 3), (6, 0, 7, 1)]],
    "ov_circuits": [ov(*head) for head in [(7, 1), (8, 3), (0, 0)]],
    "all_flags": refactored(),
})
