"""Makes path.json: path patching from every head, as hooks on TransformerLens 2.16.1, in double precision.

usage: python path.py          (README.md)

The method is that of Wang et al. 2022 (arXiv 2211.00593), appendix B: z of all heads is frozen to the base run's
but the sender's, which is the source run's. What the receivers would read is kept, and put into a second run
of the base prompt. With through_mlps false, MLPs are frozen as well.
"""

import torch

from judge import DIRECTIONS, PAIRS, load_hf, load_tl, one, rounded, save, tokens

model = load_tl(load_hf()).double()
model.cfg.dtype = torch.float64
N_LAYER, N_HEAD = model.cfg.n_layers, model.cfg.n_heads
BELOW_THE_TOP = [(8, 1), (9, 1), (10, 3)]
AT_THE_TOP = [(11, 0)]


def path_patching(base, source, metric, to, receivers, pos, through_mlps):
    """The metric for each sender, (n_layer, n_head)."""
    _, of_base = model.run_with_cache(base)
    _, of_source = model.run_with_cache(source)
    where = slice(None) if pos is None else slice(pos, pos + 1)
    frozen = [f"blocks.{layer}.attn.hook_z" for layer in range(N_LAYER)]
    frozen += [] if through_mlps else [f"blocks.{layer}.hook_mlp_out" for layer in range(N_LAYER)]
    heard = {f"blocks.{layer}.attn.hook_{to}" for layer, _ in receivers}
    grid = torch.zeros(N_LAYER, N_HEAD, dtype=torch.float64)
    for layer in range(N_LAYER):
        for head in range(N_HEAD):
            def freeze(x, hook):
                x[:] = of_base[hook.name]
                if hook.name == f"blocks.{layer}.attn.hook_z":
                    x[:, where, head] = of_source[hook.name][:, where, head]
                return x

            kept = {}

            def keep(x, hook):
                kept[hook.name] = x.clone()
                return x

            def put(x, hook):
                for at, receiver in receivers:
                    if hook.name == f"blocks.{at}.attn.hook_{to}":
                        x[:, :, receiver] = kept[hook.name][:, :, receiver]
                return x

            hooks = [(name, freeze) for name in frozen] + [(name, keep) for name in heard]
            logits = model.run_with_hooks(base, fwd_hooks=hooks)
            if to != "logits":
                logits = model.run_with_hooks(base, fwd_hooks=[(name, put) for name in heard])
            grid[layer, head] = metric(logits)
    return grid


def paths(differing, last):
    """What is asked of each pair: receivers' input, receivers, position, through MLPs."""
    for to in ("logits", "q", "k", "v"):
        receivers = [] if to == "logits" else BELOW_THE_TOP
        # Values are read where the prompts differ, everything else at the end.
        pos = differing if to == "v" else last
        for through_mlps in (False, True):
            yield to, receivers, None, through_mlps
            yield to, receivers, pos, through_mlps
    for to in ("q", "k", "v"):
        for through_mlps in (False, True):
            yield to, AT_THE_TOP, None, through_mlps


def name_of(to, receivers, pos, through_mlps):
    of = " of " + ",".join(f"{layer}.{head}" for layer, head in receivers) if receivers else ""
    at = "" if pos is None else f" at {pos}"
    return f"{to}{of}{at}, {'through MLPs' if through_mlps else 'MLPs frozen'}"


made = []
for name, clean, corrupted, first, second in PAIRS:
    a, b = (second, first) if name == "surname" else (first, second)
    metric = lambda logits: logits[0, -1, one(a)] - logits[0, -1, one(b)]
    for direction in DIRECTIONS:
        source, base = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
        source, base = tokens(source), tokens(base)
        differing = int((source != base)[0].nonzero()[0])
        made.append({
            "name": f"{name}, {direction}", "clean": clean, "corrupted": corrupted, "a": a, "b": b,
            "direction": direction, "base_metric": rounded(metric(model(base))),
            "source_metric": rounded(metric(model(source))),
            "cases": [
                {"name": name_of(*case), "to": case[0], "receivers": [list(head) for head in case[1]],
                 "pos": case[2], "through_mlps": case[3],
                 "values": rounded(path_patching(base, source, metric, *case).flatten())}
                for case in paths(differing, base.shape[1] - 1)
            ],
        })
save("path", made)
