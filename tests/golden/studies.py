"""Makes studies.json: the indirect objects of TransformerLens's Exploratory Analysis Demo, and composition scores
of processed weights, by TransformerLens 2.16.1.

usage: python studies.py          (README.md)
"""

import torch
from transformer_lens import patching

from golden import composition_scores, hf, ioi_prompts, raw
from judge import DEFAULT, load_tl, one, save, tokens

prompts = list(ioi_prompts())
ids = torch.cat([tokens(prompt, bos=True) for prompt, _, _ in prompts])
answers = torch.tensor([[one(correct), one(incorrect)] for _, correct, incorrect in prompts])


def mean_logit_diff(logits):
    last = logits[:, -1].gather(-1, answers)
    return (last[:, 0] - last[:, 1]).mean()


def fixed(x):
    """Seven decimals."""
    return [round(float(y), 7) for y in x]


model = load_tl(hf, DEFAULT)
_, cache = model.run_with_cache(ids)
directions = (model.W_U[:, answers[:, 0]] - model.W_U[:, answers[:, 1]]).T


def share(stack):
    """What each component adds to the logit difference, as a mean over the prompts: (component,)."""
    scaled = cache.apply_ln_to_stack(stack, layer=-1, pos_slice=-1)
    return torch.einsum("cbd,bd->c", scaled, directions) / len(prompts)


accumulated, _ = cache.accumulated_resid(layer=-1, incl_mid=True, pos_slice=-1, return_labels=True)
decomposed, labels = cache.decompose_resid(layer=-1, pos_slice=-1, return_labels=True)
heads = cache.stack_head_results(layer=-1, pos_slice=-1)

# The pair of a prompt is the same sentence in the other role: 0 is the corrupted mean, 1 the clean one.
pairs = ids[[i ^ 1 for i in range(len(prompts))]]
clean_logits, clean_cache = raw.run_with_cache(ids)
clean, corrupted = mean_logit_diff(clean_logits), mean_logit_diff(raw(pairs))
metric = lambda logits: (mean_logit_diff(logits) - corrupted) / (clean - corrupted)
sweep = lambda kind: getattr(patching, f"get_act_patch_attn_head_{kind}_all_pos")(raw, pairs, clean_cache, metric)

scores = {kind: composition_scores(kind, model) for kind in "qkv"}
save("studies", {
    "source": "TransformerLens 2.16.1 on the tiny model, eight IOI prompts with <|endoftext|>: head attribution with default processing (stack_head_results, apply_ln, mean over prompts), accumulated_resid(incl_mid) and decompose_resid likewise; get_act_patch_attn_head_out_all_pos and pattern_all_pos of prompts into their pairs, ioi_metric (0 corrupted, 1 clean), raw weights",
    "head_attribution": fixed(share(heads)),
    "accumulated": fixed(share(accumulated)),
    "decomposed_labels": labels,
    "decomposed": fixed(share(decomposed)),
    "clean": float(clean),
    "corrupted": float(corrupted),
    "sweep_z": fixed(sweep("out").flatten()),
    "sweep_pattern": fixed(sweep("pattern").flatten()),
    "composition_processed": {kind: {"sum": float(x.sum()), "max": float(x.max())} for kind, x in scores.items()},
})
