"""GPT-2's tokens, from OpenAI's encoder.json and vocab.bpe: those of the crate tiktoken-rs, or of $GPT2_ASSETS."""

import os
from pathlib import Path

from transformers import GPT2TokenizerFast

END_OF_TEXT = 50256


def assets():
    """The folder with the two files."""
    if "GPT2_ASSETS" in os.environ:
        return Path(os.environ["GPT2_ASSETS"])
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    found = sorted(cargo.glob("registry/src/*/tiktoken-rs-*/assets/encoder.json"))
    if not found:
        raise SystemExit("run `cargo fetch` first, or set GPT2_ASSETS to a folder with encoder.json and vocab.bpe")
    return found[-1].parent


_tokenizer = GPT2TokenizerFast(str(assets() / "encoder.json"), str(assets() / "vocab.bpe"))


def encode(text):
    return _tokenizer.encode(text)
