"""Makes kin.json: what transformers says of GPT-2's kin, in double precision.

usage: python kin.py          (PyTorch and transformers 5; HF_HUB_OFFLINE=1)

The weights are those of the tiny model that ships, with another config.json: each changes what is computed.
Eager attention, because transformers 4.57's other kinds pass over the scales.
"""

import json
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel
from safetensors.torch import load_file

HERE = Path(__file__).parent
TINY = HERE / "../../weights/tiny"
IDS = [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738]
SHOWN = [5437, 4176, 373, 338, 11]
NAMES = ["gelu", "gelu_10", "gelu_fast", "gelu_new", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh",
         "gelu_accurate", "hardswish", "laplace", "leaky_relu", "linear", "mish", "quick_gelu", "relu", "relu2",
         "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh"]
torch.set_grad_enabled(False)

changes = [{"activation_function": name} for name in NAMES] + [
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True},
    {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
    {"n_head": 8},
    {"layer_norm_epsilon": 0.01},
    {"n_inner": 100},
]


def logits(change):
    config = GPT2Config.from_pretrained(TINY, attn_implementation="eager", **change)
    model = GPT2LMHeadModel(config).double().eval()
    state = {name: x.double() for name, x in load_file(TINY / "model.safetensors").items()}
    inner = change.get("n_inner")
    for name in state:
        # The hidden layer's first columns.
        if inner and "mlp.c_fc" in name:
            state[name] = state[name][..., :inner]
        if inner and name.endswith("mlp.c_proj.weight"):
            state[name] = state[name][:inner]
    state = {name if name.startswith("transformer.") else "transformer." + name: x for name, x in state.items()}
    state["lm_head.weight"] = state["transformer.wte.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not [x for x in missing if "attn.bias" not in x] and not unexpected, (missing, unexpected)
    last = model(torch.tensor([IDS])).logits[0, -1]
    return [float(f"{x:.9g}") for x in last[SHOWN].tolist()]


cases = [{"config": change, "logits": logits(change)} for change in changes]
(HERE / "kin.json").write_text(json.dumps({"ids": IDS, "tokens": SHOWN, "cases": cases}) + "\n")
