"""Makes families/: small random checkpoints of GPT-Neo and OPT, and what transformers says of them in double precision.

usage: python families.py          (PyTorch and transformers 5; HF_HUB_OFFLINE=1)

families/NAME/{config.json,model.safetensors} as transformers writes them, and families.json: for each the logits of a prompt
at all positions, and the metric logit[a] - logit[b] of the clean run with one layer and position of its residual stream
patched from the corrupted run (noising, resid_post).
"""

import json
from pathlib import Path

import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM, OPTConfig, OPTForCausalLM

HERE = Path(__file__).parent
torch.manual_seed(20261125)
VOCAB = 40
TOKENS = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 0}
MODELS = {
    "gpt_neo": lambda: GPTNeoForCausalLM(GPTNeoConfig(
        num_layers=3, num_heads=3, hidden_size=12, max_position_embeddings=16, window_size=4,
        attention_types=[[["global", "local"], 1], [["local"], 1]], intermediate_size=20,
        attn_implementation="eager", **TOKENS)),
    "opt": lambda: OPTForCausalLM(OPTConfig(
        num_hidden_layers=2, num_attention_heads=2, hidden_size=12, ffn_dim=20, max_position_embeddings=16,
        word_embed_proj_dim=12, pad_token_id=1, attn_implementation="eager", **TOKENS)),
}
CLEAN = [5, 9, 30, 12, 7, 7, 21, 3, 33, 18]
CORRUPTED = [5, 9, 31, 12, 7, 8, 21, 3, 33, 18]
A, B = 11, 23


def blocks(model):
    return model.transformer.h if hasattr(model, "transformer") else model.model.decoder.layers


def rounded(values):
    return [float(f"{x:.9g}") for x in values]


expected = {}
for name, make in MODELS.items():
    model = make().eval()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if p.dim() > 1:
                p.mul_(20.0)
            elif "bias" in key:
                p.normal_(0, 0.3)
            else:
                p.normal_(1.0, 0.2)
    model.save_pretrained(HERE / "families" / name)
    model = model.double()
    clean, corrupted = torch.tensor([CLEAN]), torch.tensor([CORRUPTED])
    kept, grid = [], []
    with torch.no_grad():
        output = lambda out: out[0] if isinstance(out, tuple) else out
        hooks = [b.register_forward_hook(lambda m, i, out: kept.append(output(out).clone())) for b in blocks(model)]
        model(corrupted)
        for hook in hooks:
            hook.remove()
        logits = model(clean).logits[0]
        for layer, block in enumerate(blocks(model)):
            for pos in range(len(CLEAN)):
                def patch(m, i, out):
                    x = output(out).clone()
                    x[:, pos] = kept[layer][:, pos]
                    return (x, *out[1:]) if isinstance(out, tuple) else x
                hook = block.register_forward_hook(patch)
                last = model(clean).logits[0, -1]
                hook.remove()
                grid.append(float(last[A] - last[B]))
    expected[name] = {"logits": rounded(logits.flatten().tolist()), "resid_post": rounded(grid)}
    print(name, max(grid) - min(grid))
(HERE / "families.json").write_text(
    json.dumps({"clean": CLEAN, "corrupted": CORRUPTED, "a": A, "b": B, "models": expected}) + "\n")
