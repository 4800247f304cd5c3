"""Trains the tiny model, in three stages, and writes it as Hugging Face's GPT-2.

usage: python train.py FOLDER [--minutes 42 17 36]          (README.md; 2 cores)

1. 42 minutes (about 2,000 steps), learning rate 3e-3: text of corpus.py, and random tokens of the whole
   vocabulary, repeated. The softmax is sampled: all tokens of the corpus, those of the batch, and 1,024 others
   that stand for the rest.
2. 17 minutes (about 1,500 steps), 2.5e-3: the exact softmax over the tokens of the corpus and one row that all
   other tokens share, which weighs log(their number). Repeated tokens are drawn from the corpus's.
3. 36 minutes, 2.5e-3: as 2, but positions at which something must be recalled (a first name that stood there
   before, and " to") weigh 6. The weights depend on the context only, so probabilities stay honest.

The model that ships was made by this procedure, but not by a run that can be repeated bit for bit: the stages
are bounded by time, and the text was drawn with the clock as its seed.
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

from corpus import FIRST, document, repeated_ids, text_ids
from tokenizer import END_OF_TEXT, encode

N_LAYER, N_HEAD, N_EMBD, BLOCK_SIZE, VOCAB_SIZE = 12, 4, 64, 128, 50257
N_SAMPLED = 1024


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(N_EMBD), nn.LayerNorm(N_EMBD)
        self.c_attn, self.attn_proj = nn.Linear(N_EMBD, 3 * N_EMBD), nn.Linear(N_EMBD, N_EMBD)
        self.c_fc, self.mlp_proj = nn.Linear(N_EMBD, 4 * N_EMBD), nn.Linear(4 * N_EMBD, N_EMBD)

    def forward(self, x):
        b, t, _ = x.shape
        qkv = self.c_attn(self.ln_1(x)).view(b, t, 3, N_HEAD, N_EMBD // N_HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, N_EMBD)
        x = x + self.attn_proj(z)
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCAB_SIZE, N_EMBD), nn.Embedding(BLOCK_SIZE, N_EMBD)
        self.h = nn.ModuleList(Block() for _ in range(N_LAYER))
        self.ln_f = nn.LayerNorm(N_EMBD)
        std = 1 / math.sqrt(N_EMBD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.4 * std)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.wte.weight, std=std)
        nn.init.normal_(self.wpe.weight, std=0.6 * std)
        for block in self.h:
            for proj in (block.attn_proj, block.mlp_proj):
                nn.init.normal_(proj.weight, std=0.4 * std / math.sqrt(2 * N_LAYER))

    def blocks(self, embedded):
        x = embedded + self.wpe.weight[:embedded.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def forward(self, ids):
        return self.blocks(self.wte(ids))


def tokens_of_the_corpus():
    random.seed(5)
    seen = {END_OF_TEXT}
    for _ in range(40_000):
        seen.update(encode(document()))
    return torch.tensor(sorted(seen))


CORE = tokens_of_the_corpus()
IS_CORE = torch.zeros(VOCAB_SIZE, dtype=torch.bool)
IS_CORE[CORE] = True
REST = torch.arange(VOCAB_SIZE)[~IS_CORE]
WORDS = [token for token in CORE.tolist() if token != END_OF_TEXT]
# The place of a token among the rows of the second and third stage.
ROW = torch.full((VOCAB_SIZE,), len(CORE))
ROW[CORE] = torch.arange(len(CORE))

FIRST_NAMES = torch.zeros(VOCAB_SIZE, dtype=torch.bool)
for name in FIRST:
    FIRST_NAMES[encode(" " + name)[0]] = True
    if len(encode(name)) == 1:
        FIRST_NAMES[encode(name)[0]] = True
[TO] = encode(" to")


class Shared(nn.Module):
    """The model with a row for each token of the corpus and one for all others."""

    def __init__(self, gpt):
        super().__init__()
        self.gpt = gpt
        rows = gpt.wte.weight.data
        self.rows = nn.Parameter(torch.cat([rows[CORE], rows[REST].mean(0, keepdim=True)]).clone())

    def forward(self, ids):
        return self.gpt.blocks(self.rows[ROW[ids]]) @ self.rows.T

    def write_rows(self):
        """Puts the rows back into the model's own table."""
        rows = self.rows.data[-1].expand(VOCAB_SIZE, N_EMBD).clone()
        rows[CORE] = self.rows.data[:-1]
        self.gpt.wte.weight.data = rows


def mean_loss(losses, weights):
    return losses.mean() if weights is None else (losses * weights.reshape(-1)).sum() / weights.sum()


def sampled_loss(model, ids, weights):
    targets = ids[:, 1:]
    extra = torch.unique(targets[~IS_CORE[targets]])
    sampled = REST[torch.randint(len(REST), (N_SAMPLED,))]
    sampled = sampled[~torch.isin(sampled, extra)]
    candidates = torch.cat([CORE, extra, sampled])
    correction = torch.zeros(len(candidates))
    correction[len(CORE) + len(extra):] = math.log((len(REST) - len(extra)) / max(1, len(sampled)))
    place = torch.full((VOCAB_SIZE,), -1)
    place[candidates.flip(0)] = torch.arange(len(candidates) - 1, -1, -1)
    logits = model(ids[:, :-1]) @ model.wte.weight[candidates].T + correction
    losses = F.cross_entropy(logits.reshape(-1, len(candidates)), place[targets].reshape(-1), reduction="none")
    return mean_loss(losses, weights)


BIAS = torch.zeros(len(CORE) + 1)
BIAS[-1] = math.log(len(REST))


def exact_loss(model, ids, weights):
    logits = model(ids[:, :-1]) + BIAS
    losses = F.cross_entropy(logits.reshape(-1, len(BIAS)), ROW[ids[:, 1:]].reshape(-1), reduction="none")
    return mean_loss(losses, weights)


def recall_weights(ids):
    """6 where something must be recalled, 1 elsewhere."""
    before = ids[:, :-1]
    stood_before = ((before[:, None, :] == before[:, :, None]).tril(-1)).any(-1)
    return 1 + 5 * (FIRST_NAMES[before] & stood_before).float() + 5 * (before == TO).float()


def text_batch(t, rows):
    return torch.tensor([text_ids(t) for _ in range(rows)]), None


def repeated_batch(t, rows, among, longest):
    made = [repeated_ids(t, among, longest) for _ in range(rows)]
    return torch.tensor([ids for ids, _ in made]), torch.tensor([w for _, w in made], dtype=torch.float)


def batch_of_stage_1(done):
    kind = random.choices("tTrR", [0.42, 0.08, 0.40, 0.10])[0]
    longest = 12 if done < 0.35 else 64
    return {"t": lambda: text_batch(64, 96), "T": lambda: text_batch(127, 48),
            "r": lambda: repeated_batch(63, 64, range(END_OF_TEXT), longest),
            "R": lambda: repeated_batch(127, 32, range(END_OF_TEXT), longest)}[kind]()


def batch_of_stage_2(done):
    kind = random.choices("tTrR", [0.50, 0.06, 0.36, 0.08])[0]
    longest = 10 if done < 0.2 else 24 if done < 0.4 else 64
    return {"t": lambda: text_batch(64, 96), "T": lambda: text_batch(127, 32),
            "r": lambda: repeated_batch(63, 64, WORDS, longest),
            "R": lambda: repeated_batch(127, 32, WORDS, longest)}[kind]()


def batch_of_stage_3(done):
    ids, weights = batch_of_stage_2(done)
    return ids, recall_weights(ids) if weights is None else weights


def train(model, parameters, loss_of, batch_of, minutes, lr, warmup, floor):
    decayed = [p for p in parameters if p.dim() == 2]
    others = [p for p in parameters if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0}]
    optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    start, step = time.time(), 0
    while (done := (time.time() - start) / (minutes * 60)) < 1:
        cosine = 0.5 * (1 + math.cos(math.pi * done)) * (1 - floor) + floor
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / warmup) * cosine
        loss = loss_of(model, *batch_of(done))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            print(f"{time.time() - start:.0f} s, step {step}, loss {loss.item():.3f}", flush=True)


def save(gpt, folder):
    """As Hugging Face's GPT-2: F16, and linear layers as (in, out)."""
    tensors = {"wte.weight": gpt.wte.weight, "wpe.weight": gpt.wpe.weight,
               "ln_f.weight": gpt.ln_f.weight, "ln_f.bias": gpt.ln_f.bias}
    for i, block in enumerate(gpt.h):
        for name, layer in [("ln_1", block.ln_1), ("attn.c_attn", block.c_attn), ("attn.c_proj", block.attn_proj),
                            ("ln_2", block.ln_2), ("mlp.c_fc", block.c_fc), ("mlp.c_proj", block.mlp_proj)]:
            transposed = isinstance(layer, nn.Linear)
            tensors[f"h.{i}.{name}.weight"] = layer.weight.T if transposed else layer.weight
            tensors[f"h.{i}.{name}.bias"] = layer.bias
    tensors = {name: x.detach().to(torch.float16).contiguous() for name, x in tensors.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": VOCAB_SIZE,
              "n_positions": BLOCK_SIZE, "n_ctx": BLOCK_SIZE, "n_embd": N_EMBD, "n_layer": N_LAYER,
              "n_head": N_HEAD, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
              "bos_token_id": END_OF_TEXT, "eos_token_id": END_OF_TEXT, "tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "known_tokens.json").write_text(json.dumps(WORDS + [END_OF_TEXT]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, nargs=3, default=[42, 17, 36], help="how long each stage takes")
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_flush_denormal(True)
    torch.manual_seed(1)
    random.seed(int(time.time()))
    gpt = Gpt()
    train(gpt, list(gpt.parameters()), sampled_loss, batch_of_stage_1, args.minutes[0], 3e-3, 200, 0.03)
    for batch_of, minutes in [(batch_of_stage_2, args.minutes[1]), (batch_of_stage_3, args.minutes[2])]:
        model = Shared(gpt)
        parameters = [p for name, p in model.named_parameters() if name != "gpt.wte.weight"]
        train(model, parameters, exact_loss, batch_of, minutes, 2.5e-3, 100, 0.02)
        model.write_rows()
    save(gpt, args.folder)


if __name__ == "__main__":
    main()
