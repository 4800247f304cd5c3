"""Makes training.json: losses and gradients of two small GPT-2s, and their training with AdamW, in double precision.

usage: python training.py          (PyTorch and transformers; HF_HUB_OFFLINE=1)

The weights are random numbers of few digits, so that they are the same in f32. Each run trains on the same batch,
ten steps at lr 1e-3, betas 0.9 and 0.999, eps 1e-8, weight_decay 0.01:
  all       weight decay for every parameter, as torch.optim.AdamW does by itself
  matrices  weight decay for the weights of linear layers alone, as in minGPT
  clipped   as `all`, with clip_grad_norm_(0.5)
"""

import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).parent
BATCH = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8], [1, 4, 1, 4, 2, 1, 3, 5]]
SIZES = {"vocab_size": 10, "n_positions": 8, "n_layer": 2, "n_head": 3, "n_embd": 12, "n_inner": 20}
KINDS = {
    "tied": {},
    "untied": {"tie_word_embeddings": False, "activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True},
}


def rounded(x, digits):
    return [float(f"{y:.{digits}g}") for y in x.detach().flatten().tolist()]


def fresh(config, weights):
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(**config, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                                       attn_implementation="eager", bos_token_id=0, eos_token_id=0)).double().train()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(torch.tensor(weights[name], dtype=torch.double).view(p.shape))
    return model


def loss_of(model):
    ids = torch.tensor(BATCH)
    logits = model(ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())


def train(model, decay, clip):
    matrices = [p for n, p in model.named_parameters() if ".h." in n and p.dim() == 2]
    others = [p for n, p in model.named_parameters() if not (".h." in n and p.dim() == 2)]
    groups = [{"params": matrices}, {"params": others, "weight_decay": 0.01 if decay == "all" else 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses, norms = [], []
    for _ in range(10):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), clip)))
        losses.append(float(loss))
        optimizer.step()
    losses.append(float(loss_of(model)))
    return {"decay": decay, "clip": clip if clip < 1e9 else None, "losses": losses, "norms": norms}


def case(name, change):
    config = {**SIZES, **change}
    model = GPT2LMHeadModel(GPT2Config(**config, bos_token_id=0, eos_token_id=0))
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for parameter, p in model.named_parameters():
        mean = 1.0 if ".ln_" in parameter and parameter.endswith("weight") else 0.0
        weights[parameter] = rounded(mean + 0.3 * torch.randn(p.shape, generator=generator), 4)
    model = fresh(config, weights)
    loss = loss_of(model)
    loss.backward()
    gradient = {n.removeprefix("transformer."): rounded(p.grad, 7) for n, p in model.named_parameters()}
    runs = [train(fresh(config, weights), decay, clip) for decay, clip in [("all", 1e10), ("matrices", 1e10), ("all", 0.5)]]
    short = {n.removeprefix("transformer."): x for n, x in weights.items()}
    return {"name": name, "config": {"model_type": "gpt2", **config}, "weights": short, "loss": float(loss), "gradient": gradient, "runs": runs}


cases = {"batch": BATCH, "cases": [case(name, change) for name, change in KINDS.items()]}
(HERE / "training.json").write_text(json.dumps(cases) + "\n")
