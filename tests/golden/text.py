"""Makes text.json: what transformers says of texts, in double precision, with the tiny model that ships.

usage: python text.py          (PyTorch and transformers; HF_HUB_OFFLINE=1)

- "greedy": at most 60 tokens after each prompt of logits.json, by `generate`, which stops after
  <|endoftext|>; "greedy_60": 60 tokens that go on after it.
- "warped": what TemperatureLogitsWarper, TopKLogitsWarper and TopPLogitsWarper leave of the tokens after
  the first prompt, in the order of generate(), and their probabilities, the most likely first.
- "texts": of each token of a text but the first, its log probability, its rank and the most likely token
  with its probability; the loss is the one that the model returns for labels = ids.
- "logits": sums of all logits of the first prompt, (T, V), and the first eight.
"""

import json
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel, LogitsProcessorList
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

HERE = Path(__file__).parent
torch.set_grad_enabled(False)
torch.set_num_threads(2)
model = GPT2LMHeadModel.from_pretrained(HERE / "../../weights/tiny", attn_implementation="eager").double().eval()
prompts = json.loads((HERE / "logits.json").read_text())


def rounded(x):
    return [float(f"{y:.9g}") for y in x.flatten().tolist()]


def greedy(case, end):
    ids = torch.tensor([case["ids"]])
    model.generation_config.eos_token_id = end
    # Every token is read: an opening <|endoftext|> would be taken for padding.
    mask = torch.ones_like(ids)
    written = model.generate(ids, attention_mask=mask, max_new_tokens=60, do_sample=False, pad_token_id=50256)
    return {"name": case["name"], "prompt": case["prompt"], "bos": case["bos"], "ids": written[0, ids.shape[1]:].tolist()}


def warped(logits, temperature, top_k, top_p):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p:
        warpers.append(TopPLogitsWarper(top_p))
    probs = warpers(None, logits[None])[0].softmax(-1)
    order = [i for i in probs.argsort(descending=True, stable=True).tolist() if probs[i] > 0][:500]
    kept = int((probs > 0).sum())
    return {"temperature": temperature, "top_k": top_k, "top_p": top_p, "kept": kept,
            "ids": order[:20], "probs": rounded(probs[order[:20]])}


def text(words, ids):
    ids = torch.tensor([ids])
    out = model(ids, labels=ids)
    log_probs = out.logits[0, :-1].log_softmax(-1)
    of_text = log_probs.gather(1, ids[0, 1:, None])
    likeliest = log_probs.max(-1)
    return {"text": words, "ids": ids[0].tolist(), "log_probs": rounded(of_text),
            "ranks": (log_probs > of_text).sum(-1).tolist(), "likeliest_ids": likeliest.indices.tolist(),
            "likeliest_probs": rounded(likeliest.values.exp()), "loss": float(f"{out.loss.item():.9g}")}


last = model(torch.tensor([prompts[0]["ids"]])).logits[0]
settings = [(1.0, None, 0.9), (1.0, 5, None), (0.7, 10, 0.5), (2.0, None, 0.95), (1.5, 40, 0.8), (1.0, None, 0.3)]
texts = [
    ("When John and Mary went to the shops, John gave the bag to Mary.",
     [2215, 1757, 290, 5335, 1816, 284, 262, 12437, 11, 1757, 2921, 262, 6131, 284, 5335, 13]),
    ("Her name was Alex Hart. One day Alex Hart was late.",
     [9360, 1438, 373, 4422, 11345, 13, 1881, 1110, 4422, 11345, 373, 2739, 13]),
]
made = {
    "greedy": [greedy(case, 50256) for case in prompts],
    "greedy_60": [greedy(case, None) for case in prompts],
    "warped": [warped(last[-1], *setting) for setting in settings],
    "texts": [text(*pair) for pair in texts],
    "logits": {"shape": list(last.shape), "sum": last.sum().item(), "abs_sum": last.abs().sum().item(),
               "first": rounded(last[0, :8])},
}
(HERE / "text.json").write_text(json.dumps(made) + "\n")
