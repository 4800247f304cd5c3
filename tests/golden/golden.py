"""Makes logits.json, activations.json, sweeps.json, ablations.json, repeated_tokens.json, attribution.json,
processed.json, composition.json and ioi.json: what transformers and TransformerLens 2.16.1 say of the tiny
model, in float32.

usage: python golden.py [NAME…]          (README.md; without a name, all of them)
"""

import json
import random
import sys

import torch
from transformer_lens import patching

from judge import DEFAULT, DIRECTIONS, END_OF_TEXT, PAIRS, TINY, array, encode, load_hf, load_tl, one, rounded
from judge import save, tokens

PROMPTS = [
    ("jones", "Michelle Jones was a top-notch student. Michelle"),
    ("smith", "Michelle Smith was a top-notch student. Michelle"),
    ("hart", "Her name was Alex Hart. When Alex"),
    ("milk", "After John and Mary went to the store, John gave a bottle of milk to"),
    ("turing", "Famous computer scientist Alan"),
]
hf = load_hf()
raw = load_tl(hf)
N_LAYER, N_HEAD = raw.cfg.n_layers, raw.cfg.n_heads


def summary(x):
    finite = x[torch.isfinite(x)]
    return {"sum": rounded(finite.sum()), "abs_sum": rounded(finite.abs().sum()), "first": rounded(x.flatten()[:8])}


def logits():
    """The last position's logits, the mean log probability of the text, and eight greedy tokens."""
    cases = []
    for name, text in PROMPTS:
        for bos in (False, True):
            ids = tokens(text, bos)
            out = hf(ids).logits[0]
            last = out[-1]
            top = last.softmax(-1).topk(20)
            written = hf.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=END_OF_TEXT)
            log_probs = out[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
            cases.append({
                "name": f"{name}, bos" if bos else name, "prompt": text, "bos": bos, "ids": ids[0].tolist(),
                "top20_ids": top.indices.tolist(), "top20_probs": rounded(top.values),
                "top20_logits": rounded(last[top.indices]), "logsumexp": rounded(last.logsumexp(-1)),
                "last_logits_first_64": rounded(last[:64]), "mean_log_prob": rounded(log_probs.mean()),
                "greedy_8": written[0].tolist(),
            })
    return cases


def activations():
    """Every activation of a prompt, by TransformerLens's names: shape, sums, and the first numbers."""
    prompt = PAIRS[0][1]
    _, cache = raw.run_with_cache(tokens(prompt))
    shape = lambda x: list(x.shape[1:]) if x.dim() > 1 and x.shape[0] == 1 else list(x.shape)
    hooks = {name: {"shape": shape(x), **summary(x)} for name, x in cache.items()}
    return {"prompt": prompt, "bos": False, "hooks": hooks}


KINDS = ["resid_pre", "resid_mid", "attn_out", "mlp_out",
         *(f"attn_head_{x}_{axes}" for axes in ("all_pos", "by_pos") for x in ("out", "q", "k", "v", "pattern"))]


def sweeps():
    """Every sweep of transformer_lens.patching, both directions, and resid_post."""
    cases = []
    for name, clean, corrupted, a, b in PAIRS:
        metric = lambda logits: logits[0, -1, one(b)] - logits[0, -1, one(a)]
        for direction in DIRECTIONS:
            source, base = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
            _, cache = raw.run_with_cache(tokens(source))
            ids = tokens(base)
            grids = {kind: array(getattr(patching, "get_act_patch_" + kind)(raw, ids, cache, metric)) for kind in KINDS}
            post = torch.zeros(N_LAYER, ids.shape[1])
            for layer in range(N_LAYER):
                for pos in range(ids.shape[1]):
                    def put(x, hook):
                        x[:, pos] = cache[hook.name][:, pos]
                        return x
                    post[layer, pos] = metric(raw.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", put)]))
            cases.append({
                "name": f"{name}, {direction}", "clean": clean, "corrupted": corrupted, "answer_a": a, "answer_b": b,
                "direction": direction, "metric": "logit[answer_b] - logit[answer_a] at the last position",
                "clean_metric": rounded(metric(raw(tokens(clean)))),
                "corrupted_metric": rounded(metric(raw(tokens(corrupted)))),
                "sweeps": {**grids, "resid_post": array(post)},
            })
    return cases


def ablations():
    """Each head's z replaced by zeros or by its mean over positions; each mlp_out and attn_out by zeros."""
    _, prompt, _, a, b = PAIRS[0]
    ids = tokens(prompt)
    metric = lambda logits: logits[0, -1, one(b)] - logits[0, -1, one(a)]
    made = {"prompt": prompt, "metric": "logit[answer_b] - logit[answer_a]", "answer_a": a, "answer_b": b,
            "base": rounded(metric(raw(ids)))}
    for name in ("head_zero", "head_mean"):
        grid = torch.zeros(N_LAYER, N_HEAD)
        for layer in range(N_LAYER):
            for head in range(N_HEAD):
                def put(z, hook):
                    z[:, :, head] = 0 if name == "head_zero" else z[:, :, head].mean(1, keepdim=True)
                    return z
                grid[layer, head] = metric(raw.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)]))
        made[name] = array(grid)
    for site in ("mlp", "attn"):
        grid = torch.zeros(N_LAYER, ids.shape[1])
        for layer in range(N_LAYER):
            for pos in range(ids.shape[1]):
                def put(x, hook):
                    x[:, pos] = 0
                    return x
                grid[layer, pos] = metric(raw.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.hook_{site}_out", put)]))
        made[f"{site}_zero"] = array(grid)
    return made


def repeated_tokens():
    """Random tokens twice over: log probabilities, stripes of the patterns, and the MLP transplant."""
    generator = random.Random(7)
    seq_len = 40
    known = [token for token in json.loads((TINY / "known_tokens.json").read_text()) if token != END_OF_TEXT]
    half = [generator.choice(known) for _ in range(seq_len)]
    ids = torch.tensor([[END_OF_TEXT] + half + half])
    out, cache = raw.run_with_cache(ids)
    log_probs = lambda logits: logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
    scored = log_probs(out)
    right = (out[0, :-1].argmax(-1) == ids[0, 1:]).float()
    offsets = {"induction": 1 - seq_len, "duplicate": -seq_len, "previous": -1, "current": 0}
    scores = {name: torch.zeros(N_LAYER, N_HEAD) for name in [*offsets, "first"]}
    for layer in range(N_LAYER):
        pattern = cache["pattern", layer][0]
        for name, offset in offsets.items():
            scores[name][layer] = pattern.diagonal(dim1=-2, dim2=-1, offset=offset).mean(-1)
        scores["first"][layer] = pattern[:, :, 0].mean(-1)
    loss = -scored[seq_len:].mean()
    transplant = torch.zeros(N_LAYER, seq_len)
    for layer in range(N_LAYER):
        for pos in range(seq_len + 1, 2 * seq_len + 1):
            def put(x, hook):
                x[0, pos] = cache[hook.name][0, pos - seq_len]
                return x
            changed = raw.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", put)])
            transplant[layer, pos - seq_len - 1] = -log_probs(changed)[seq_len:].mean() - loss
    return {
        "ids": ids[0].tolist(), "seq_len": seq_len,
        "first_half_mean_log_prob": rounded(scored[:seq_len].mean()),
        "second_half_mean_log_prob": rounded(scored[seq_len:].mean()),
        "first_half_accuracy": rounded(right[:seq_len].mean()),
        "second_half_accuracy": rounded(right[seq_len:].mean()),
        "definition": "stripe mean of pattern[dest, src]: induction src = dest - seq_len + 1 (diagonal offset 1 - seq_len), duplicate src = dest - seq_len, previous src = dest - 1, current src = dest, first src = 0 (mean over all dest)",
        **{name: array(x) for name, x in scores.items()},
        "mlp_transplant": {
            "definition": "mlp_out[layer] at position p (p = seq_len+1 .. 2 seq_len, counting <|endoftext|> as 0) replaced by its value at p - seq_len of the same run; entry = mean negative log prob of the second half minus the unpatched one",
            **array(transplant),
        },
    }


def attribution():
    """The logit lens and direct logit attribution, with raw weights and the layer norm's scale of the run."""
    _, prompt, _, a, b = PAIRS[0]
    ids = tokens(prompt)
    out, cache = raw.run_with_cache(ids)
    answers = [one(a), one(b)]
    read = lambda name: raw.unembed(raw.ln_final(cache[name]))[0, -1, answers]
    lens = [read(f"blocks.{layer}.hook_resid_{w}") for layer in range(N_LAYER) for w in ("pre", "mid")]
    lens.append(read(f"blocks.{N_LAYER - 1}.hook_resid_post"))
    direction = raw.W_U[:, one(b)] - raw.W_U[:, one(a)]
    scale = cache["ln_final.hook_scale"][0, -1]
    share = lambda v: float((((v - v.mean()) / scale) * raw.ln_final.w) @ direction)
    heads = torch.tensor([[share(cache["result", layer][0, -1, head]) for head in range(N_HEAD)] for layer in range(N_LAYER)])
    return {
        "prompt": prompt, "answer_a": a, "answer_b": b,
        "logit_lens": {"rows": [f"{layer}_{w}" for layer in range(N_LAYER) for w in ("pre", "mid")] + ["final_post"],
                       "columns": [a, b], **array(torch.stack(lens))},
        "direct_logit_attribution": {
            "definition": "((v - mean(v)) / scale * ln_f.weight) . (W_U[b] - W_U[a]) at the last position, scale = ln_f's sqrt(var + eps) of the run; the final term is ln_f.bias . (W_U[b] - W_U[a])",
            "embed": share(cache["embed"][0, -1]), "pos_embed": share(cache["pos_embed"][0, -1]), "heads": array(heads),
            "attn_out": [share(cache["attn_out", layer][0, -1]) for layer in range(N_LAYER)],
            "mlp_out": [share(cache["mlp_out", layer][0, -1]) for layer in range(N_LAYER)],
            "ln_f_bias": float(raw.ln_final.b @ direction), "sum_is": rounded(out[0, -1, one(b)] - out[0, -1, one(a)]),
        },
    }


def processed():
    """What weight processing changes, and that log probabilities stay."""
    prompt = PAIRS[0][1]
    ids = tokens(prompt)
    model = load_tl(hf, DEFAULT)
    out, cache = model.run_with_cache(ids)
    change = (raw(ids)[0, -1].log_softmax(-1) - out[0, -1].log_softmax(-1)).abs().max()
    shown = ("resid_post", "hook_z", "hook_pattern", "ln_final")
    return {
        "prompt": prompt, "flags": ", ".join(name for name, on in DEFAULT.items() if on),
        "max_log_prob_change": rounded(change), "b_U_first_8": rounded(model.b_U[:8]),
        "logits_last_first_16": rounded(out[0, -1, :16]),
        "hooks": {name: summary(x) for name, x in cache.items() if any(part in name for part in shown)},
    }


def composition_scores(kind, model=None):
    """‖OV₁ R₂‖ / (‖OV₁‖ ‖R₂‖) for every two heads, (n_layer, n_head, n_layer, n_head)."""
    model = model or raw
    ov = model.W_V @ model.W_O
    qk = model.W_Q @ model.W_K.transpose(-1, -2)
    scores = torch.zeros(N_LAYER, N_HEAD, N_LAYER, N_HEAD)
    for first in range(N_LAYER):
        for second in range(first + 1, N_LAYER):
            reader = {"q": qk[second], "k": qk[second].transpose(-1, -2), "v": ov[second]}[kind]
            norms = torch.einsum("hij,gjk->hgik", ov[first], reader).norm(dim=(-1, -2))
            scores[first, :, second, :] = norms / ov[first].norm(dim=(-1, -2))[:, None] / reader.norm(dim=(-1, -2))[None]
    return scores


def composition():
    made = {"definition": "||OV1 R2||_F / (||OV1||_F ||R2||_F), zero unless layer1 < layer2; OV = W_V W_O, q: R = W_Q W_K^T, k: its transpose, v: W_V W_O; raw weights, x @ W convention, no biases; indices [layer1, head1, layer2, head2]"}
    for kind in "qkv":
        scores = composition_scores(kind)
        places = [(l1, h1, l2, h2) for l1 in range(N_LAYER) for h1 in range(N_HEAD)
                  for l2 in range(l1 + 1, N_LAYER) for h2 in range(N_HEAD)]
        strongest = sorted(((float(scores[place]), place) for place in places), reverse=True)[:40]
        made[kind] = {"shape": list(scores.shape), "sum": rounded(scores.sum()),
                      "top": [[*place, rounded(score)] for score, place in strongest]}
    return made


# TransformerLens's Exploratory Analysis Demo: each sentence in both roles.
SENTENCES = [
    ("When John and Mary went to the shops,{} gave the bag to", " Mary", " John"),
    ("When Tom and James went to the park,{} gave the ball to", " Tom", " James"),
    ("When Dan and Sid went to the shops,{} gave an apple to", " Dan", " Sid"),
    ("After Martin and Amy went to the park,{} gave a drink to", " Martin", " Amy"),
]


def ioi_prompts():
    """The eight prompts, each with the right and the wrong answer."""
    for sentence, first, second in SENTENCES:
        yield sentence.format(second), first, second
        yield sentence.format(first), second, first


def ioi():
    """The logit difference of each of the eight prompts."""
    rows = []
    for bos in (True, False):
        for prompt, correct, incorrect in ioi_prompts():
            last = hf(tokens(prompt, bos)).logits[0, -1]
            rows.append({"prompt": prompt, "bos": bos, "correct": correct, "incorrect": incorrect,
                         "logit_diff": rounded(last[one(correct)] - last[one(incorrect)])})
    return rows


MAKERS = [logits, activations, sweeps, ablations, repeated_tokens, attribution, processed, composition, ioi]

if __name__ == "__main__":
    for make in MAKERS:
        if not sys.argv[1:] or make.__name__ in sys.argv[1:]:
            save(make.__name__, make())
