"""What the makers share: the tiny model in transformers and in TransformerLens, tokens, and rounding."""

import json
import math
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import GPT2LMHeadModel, GPT2Tokenizer
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

torch.set_grad_enabled(False)
torch.set_num_threads(2)

HERE = Path(__file__).parent
TINY = HERE / "../../weights/tiny"
END_OF_TEXT = 50256

# Each has a name, the two prompts, and two answers: the metrics are logit[second] - logit[first].
PAIRS = [
    ("surname", "Michelle Jones was a top-notch student. Michelle",
     "Michelle Smith was a top-notch student. Michelle", " Jones", " Smith"),
    ("shops", "When John and Mary went to the shops, John gave the bag to",
     "When John and Mary went to the shops, Mary gave the bag to", " Mary", " John"),
]
DIRECTIONS = ["denoising", "noising"]

# What TransformerLens does by itself when it loads a model, and what it can do.
DEFAULT = dict(fold_ln=True, center_writing_weights=True, center_unembed=True, fold_value_biases=True,
               refactor_factored_attn_matrices=False)
NOTHING = dict.fromkeys(DEFAULT, False)
EVERYTHING = dict.fromkeys(DEFAULT, True)


def find_assets():
    """The folder with OpenAI's encoder.json and vocab.bpe: $GPT2_ASSETS, or the crate tiktoken-rs."""
    if "GPT2_ASSETS" in os.environ:
        return Path(os.environ["GPT2_ASSETS"])
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = sorted(cargo.glob("registry/src/*/tiktoken-rs-*/assets/encoder.json"))
    if not found:
        raise SystemExit("run `cargo fetch` first, or set GPT2_ASSETS to a folder with encoder.json and vocab.bpe")
    return found[-1].parent


ASSETS = find_assets()
TOKENIZER = GPT2Tokenizer(str(ASSETS / "encoder.json"), str(ASSETS / "vocab.bpe"), add_prefix_space=False)


def encode(text):
    return TOKENIZER.encode(text)


def tokens(text, bos=False):
    """The ids of a text, (1, T), with <|endoftext|> in front if `bos`."""
    return torch.tensor([[END_OF_TEXT] * bos + encode(text)])


def one(text):
    """The id of a text that is one token."""
    [token] = encode(text)
    return token


def load_hf():
    """The tiny model in transformers."""
    return GPT2LMHeadModel.from_pretrained(TINY, torch_dtype=torch.float32, attn_implementation="eager").eval()


def load_tl(hf, flags=NOTHING):
    """The tiny model in TransformerLens, its weights processed as `flags` say."""
    c = hf.config
    cfg = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head,
        n_heads=c.n_head, d_mlp=4 * c.n_embd, d_vocab=c.vocab_size, act_fn="gelu_new",
        eps=c.layer_norm_epsilon, normalization_type="LN", positional_embedding_type="standard",
        original_architecture="GPT2LMHeadModel", use_attn_result=True, device="cpu",
        default_prepend_bos=False, seed=0,
    )
    model = HookedTransformer(cfg)
    model.load_and_process_state_dict(convert_gpt2_weights(hf, model.cfg), **flags)
    return model.eval()


def rounded(x, digits=7):
    """Nested lists of numbers with so many significant digits; null for what is not finite."""
    if isinstance(x, torch.Tensor):
        x = x.detach().double().tolist()
    if isinstance(x, list):
        return [rounded(y, digits) for y in x]
    if isinstance(x, float):
        return float(f"{x:.{digits}g}") if math.isfinite(x) else None
    return x


def array(x):
    return {"shape": list(x.shape), "values": rounded(x.flatten())}


def save(name, value):
    (HERE / f"{name}.json").write_text(json.dumps(value) + "\n")
    print(f"{name}.json", flush=True)
