"""The same sweep in PyTorch, for `cargo xtask bench --against-python`.

Usage: bench.py MODEL_DIR CLEAN_IDS CORRUPTED_IDS A B THREADS, the ids as JSON arrays. Then, for each
line on standard input, one answer of JSON with the seconds it took and its values:

  hooks 0, hooks 1, …  one layer of the sweep, one hooked forward pass for every patch, as transformers'
           users write it (layer 0 runs the clean prompt, for all layers)
  batched  the sweep as an expert writes it: all patched runs in one batch, one hook a layer that
           patches each row of the batch at its own position, and only the last position's logits
  gradient the gradient of the corrupted run's metric with respect to every block's output, by autograd with
           frozen weights; its values are those with respect to the embeddings
"""

import json
import sys
import time

import torch
from transformers import GPT2LMHeadModel

model_dir, clean, corrupted, a, b, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
torch.set_grad_enabled(False)
model = GPT2LMHeadModel.from_pretrained(model_dir).eval().requires_grad_(False)
clean, corrupted = (torch.tensor([json.loads(ids)]) for ids in (clean, corrupted))
a, b = int(a), int(b)
blocks = model.transformer.h
n_layer, t = len(blocks), clean.shape[1]


def hidden(output):
    """A block's residual stream: some versions of transformers wrap it in a tuple."""
    return output[0] if isinstance(output, tuple) else output


def keep_clean():
    cache = {}
    handles = [
        block.register_forward_hook(lambda _m, _i, o, layer=layer: cache.update({layer: hidden(o).clone()}))
        for layer, block in enumerate(blocks)
    ]
    model(clean, use_cache=False)
    for handle in handles:
        handle.remove()
    return cache


kept = {}


def hooks(layer):
    if layer == 0:
        kept.update(keep_clean())
    values = []
    for pos in range(t):

        def patch(_module, _input, output):
            hidden(output)[:, pos] = kept[layer][:, pos]
            return output

        handle = blocks[layer].register_forward_hook(patch)
        logits = model(corrupted, use_cache=False).logits[0, -1]
        handle.remove()
        values.append((logits[a] - logits[b]).item())
    return values


def batched():
    cache = keep_clean()
    handles = []
    for layer, block in enumerate(blocks):
        rows = torch.arange(layer * t, (layer + 1) * t)

        def patch(_module, _input, output, layer=layer, rows=rows):
            hidden(output)[rows, torch.arange(t)] = cache[layer][0]
            return output

        handles.append(block.register_forward_hook(patch))
    x = model.transformer(corrupted.expand(n_layer * t, t), use_cache=False).last_hidden_state[:, -1]
    for handle in handles:
        handle.remove()
    two = x @ model.lm_head.weight[[a, b]].T
    return (two[:, 0] - two[:, 1]).tolist()


@torch.enable_grad()
def gradient():
    kept = []

    def keep(_module, _input, output):
        hidden(output).retain_grad()
        kept.append(hidden(output))

    handles = [block.register_forward_hook(keep) for block in blocks]
    embeddings = model.transformer.wte(corrupted).detach().requires_grad_(True)
    x = model.transformer(inputs_embeds=embeddings, use_cache=False).last_hidden_state[0, -1]
    for handle in handles:
        handle.remove()
    (x @ (model.lm_head.weight[a] - model.lm_head.weight[b])).backward()
    return embeddings.grad.flatten().tolist()


for line in sys.stdin:
    what, *layer = line.split()
    start = time.perf_counter()
    values = {"hooks": hooks, "batched": batched, "gradient": gradient}[what](*map(int, layer))
    print(json.dumps({"seconds": time.perf_counter() - start, "values": values}), flush=True)
