"""Makes gradients.json: gradients, attribution patching and edges in plain PyTorch, in double precision.

usage: python gradients.py          (PyTorch; HF_HUB_OFFLINE=1)

A GPT-2 written out so that every reader has an input of its own: q, k and v of each head, each MLP, and the logits.
  writers  input (token embedding alone; positions and biases belong to nobody), a{l}.h{h} (a head's z W_O, no bias), m{l}
  readers  a{l}.h{h}<q|k|v>, m{l}, logits
base is the run that is patched, source the other one (denoising: base = corrupted; noising: base = clean).
  atp      sum (a_source - a_base) * dM/da at the base run, M = logit[b] - logit[a] at the last position
  relp     atp with LayerNorm's scale held constant and gelu'(x) replaced by gelu(x)/x in the backward pass
  eap      [writer, reader]: sum over positions (out_source - out_base) . dM/d(reader's input) at the base run
  eap_ig   the same difference; the gradient is averaged over m runs whose token embeddings are
           source + k/m (base - source), k = 0 .. m-1
  exact    [writer, reader] of a few edges: the metric with that reader's input alone changed by
           out_source - out_base, minus the base's
"""

import json
import math
import random

import torch
from safetensors.torch import load_file

from judge import DIRECTIONS, PAIRS, TINY, array, encode, one, rounded, save

torch.set_grad_enabled(True)
cfg = json.loads((TINY / "config.json").read_text())
sd = {k.removeprefix("transformer."): v.double() for k, v in load_file(TINY / "model.safetensors").items()}
L, H, C = cfg["n_layer"], cfg["n_head"], cfg["n_embd"]
D = C // H


class Frozen(torch.autograd.Function):
    """gelu with the backward coefficient gelu(x)/x (the identity rule)."""
    @staticmethod
    def forward(ctx, x):
        y = torch.nn.functional.gelu(x, approximate="tanh"); ctx.save_for_backward(x, y); return y
    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * torch.where(x.abs() < 1e-12, torch.full_like(x, 0.5), y / x)

def norm(x, w, b, relp):
    x = x - x.mean(-1, keepdim=True)
    s = (x.pow(2).mean(-1, keepdim=True) + cfg["layer_norm_epsilon"]).sqrt()
    return x / (s.detach() if relp else s) * w + b

def forward(ids, embed=None, add=None, relp=False, grad=True):
    """Returns the last logits, the writers' outputs, the readers' inputs and the sites (all retaining gradients)."""
    T = len(ids); site, reader, writer = {}, {}, {}
    def keep(d, k, x):
        if grad and x.requires_grad: x.retain_grad()
        d[k] = x; return x
    e = (sd["wte.weight"][ids] if embed is None else embed).clone().requires_grad_(grad)
    writer["input"] = e
    x = e + sd["wpe.weight"][:T]
    mask = torch.full((T, T), -math.inf, dtype=torch.double).triu(1)
    extra = lambda name: add[name] if add and name in add else 0.0
    for l in range(L):
        p = f"h.{l}."
        keep(site, f"resid_pre.{l}", x)
        W, B = sd[p + "attn.c_attn.weight"], sd[p + "attn.c_attn.bias"]
        qkv = []
        for i, n in enumerate("qkv"):
            heads = []
            for h in range(H):
                inp = keep(reader, f"a{l}.h{h}<{n}>", x + extra(f"a{l}.h{h}<{n}>") + torch.zeros_like(x))
                y = norm(inp, sd[p + "ln_1.weight"], sd[p + "ln_1.bias"], relp)
                cols = slice(i * C + h * D, i * C + (h + 1) * D)
                heads.append(y @ W[:, cols] + B[cols])
            qkv.append(keep(site, f"{n}.{l}", torch.stack(heads, 1)))  # (T, H, D)
        q, k, v = qkv
        att = torch.einsum("thd,shd->hts", q, k) / math.sqrt(D) + mask
        pat = keep(site, f"pattern.{l}", att.softmax(-1))
        z = keep(site, f"z.{l}", torch.einsum("hts,shd->thd", pat, v))
        WO = sd[p + "attn.c_proj.weight"].view(H, D, C)
        res = torch.einsum("thd,hdc->thc", z, WO)
        outs = [keep(writer, f"a{l}.h{h}", res[:, h] + 0.0) for h in range(H)]
        attn_out = keep(site, f"attn_out.{l}", sum(outs) + sd[p + "attn.c_proj.bias"])
        x = keep(site, f"resid_mid.{l}", x + attn_out)
        inp = keep(reader, f"m{l}", x + extra(f"m{l}") + torch.zeros_like(x))
        y = norm(inp, sd[p + "ln_2.weight"], sd[p + "ln_2.bias"], relp)
        hpre = y @ sd[p + "mlp.c_fc.weight"] + sd[p + "mlp.c_fc.bias"]
        act = Frozen.apply(hpre) if relp else torch.nn.functional.gelu(hpre, approximate="tanh")
        m = act @ sd[p + "mlp.c_proj.weight"] + sd[p + "mlp.c_proj.bias"]
        keep(site, f"mlp_out.{l}", m); writer[f"m{l}"] = m
        x = keep(site, f"resid_post.{l}", x + m)
    inp = keep(reader, "logits", x + extra("logits") + torch.zeros_like(x))
    y = norm(inp, sd["ln_f.weight"], sd["ln_f.bias"], relp)
    return y[-1] @ sd.get("lm_head.weight", sd["wte.weight"]).T, writer, reader, site

WRITERS = ["input"] + [n for l in range(L) for n in [f"a{l}.h{h}" for h in range(H)] + [f"m{l}"]]
READERS = [n for l in range(L) for n in [f"a{l}.h{h}<{c}>" for c in "qkv" for h in range(H)] + [f"m{l}"]] + ["logits"]
def is_edge(u, v):
    rank = lambda n: (-1, 0) if n == "input" else (99, 0) if n == "logits" else (int(n[1:].split(".")[0].split("<")[0]), 1 if n[0] == "m" else 0)
    return rank(u) < rank(v)


def edges(m):
    order = m.abs().flatten().argsort(descending=True)[:200].tolist()
    top = [[f"{WRITERS[i // len(READERS)]}->{READERS[i % len(READERS)]}", rounded(float(m.flatten()[i]))] for i in order]
    return {"sum": rounded(float(m.sum())), "abs_sum": rounded(float(m.abs().sum())), "top": top}


def case(name, src, base, M):
    """All values of one pair in one direction; M is the metric of the last logits."""
    ls, ws, _, ss = forward(src)
    lb, wb, rb, sb = forward(base)
    M(lb).backward()
    rec = {"name": name, "source_metric": rounded(float(M(ls))), "base_metric": rounded(float(M(lb))), "atp": {}, "gradient": {}}

    def atp(kind, dims, of=sb):
        sums = [((ss[f"{kind}.{l}"] - sb[f"{kind}.{l}"]) * of[f"{kind}.{l}"].grad).sum(dims) for l in range(L)]
        return torch.stack(sums).detach()

    for kind in ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"):
        rec["atp"][kind] = array(atp(kind, -1))  # (layer, pos)
    for kind in ("z", "q", "k", "v"):
        by_pos = atp(kind, -1)  # (layer, pos, head)
        rec["atp"][kind] = array(by_pos.sum(1))
        rec["atp"][kind + "_by_pos"] = array(by_pos)
    rec["atp"]["pattern"] = array(atp("pattern", (-1, -2)))
    for kind in ("resid_post", "z", "pattern", "mlp_out"):
        g = [sb[f"{kind}.{l}"].grad for l in range(L)]
        rec["gradient"][kind] = {"norms": rounded([float(x.norm()) for x in g]), "first_of_layer_3": rounded(g[3].flatten()[:12]),
                                 "last_of_layer_3": rounded(g[3].flatten()[-12:])}
    delta = torch.stack([ws[u] - wb[u] for u in WRITERS]).detach()  # (writer, T, C)
    G = torch.stack([rb[v].grad for v in READERS])  # (reader, T, C)
    valid = torch.tensor([[is_edge(u, v) for v in READERS] for u in WRITERS])
    eap = torch.einsum("utc,vtc->uv", delta, G) * valid
    steps = 5
    Gi = torch.zeros_like(G)
    for k in range(steps):
        e = (ws["input"] + (k / steps) * (wb["input"] - ws["input"])).detach()
        lg, _, rr, _ = forward(base, embed=e)
        M(lg).backward()
        Gi += torch.stack([rr[v].grad if rr[v].grad is not None else torch.zeros_like(G[0]) for v in READERS]) / steps
    eap_ig = torch.einsum("utc,vtc->uv", delta, Gi) * valid
    lg, _, _, sr = forward(base, relp=True)
    M(lg).backward()
    rec["relp"] = {kind: array(atp(kind, -1, sr)) for kind in ("resid_post", "mlp_out", "attn_out")}
    rec["edges"] = {"count": int(valid.sum()), "eap": edges(eap), "eap_ig_5": edges(eap_ig)}
    # exact effects: the 40 largest by eap_ig and 40 at random
    g = random.Random(3)
    cand = [(u, v) for u in range(len(WRITERS)) for v in range(len(READERS)) if valid[u, v]]
    pick = [divmod(i, len(READERS)) for i in eap_ig.abs().flatten().argsort(descending=True)[:40].tolist()] + g.sample(cand, 40)
    with torch.no_grad():
        exact = [[f"{WRITERS[u]}->{READERS[v]}", rounded(float(M(forward(base, add={READERS[v]: delta[u]}, grad=False)[0]) - M(lb)))]
                 for u, v in pick]
    rec["edges"]["exact"] = exact
    return rec


def cases():
    for name, clean, corrupted, a, b in PAIRS:
        ids = {"clean": clean, "corrupted": corrupted, "answer_a": a, "answer_b": b}
        ia, ib = one(a), one(b)
        clean, corrupted = torch.tensor(encode(clean)), torch.tensor(encode(corrupted))
        for direction in DIRECTIONS:
            src, base = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
            print(name, direction, flush=True)
            yield {**ids, "direction": direction, **case(f"{name}, {direction}", src, base, lambda lg: lg[ib] - lg[ia])}


save("gradients", list(cases()))
