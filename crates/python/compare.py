"""The times of docs/python.md: the package beside TransformerLens 2.16.1, and beside the command line.

usage: compare.py MODEL [--cli PATCH_CLI] [--only NAME,…]

MODEL is a folder of weights of GPT-2 small's size (cargo xtask synth-weights). Every line runs theirs and ours one
after the other, in one process and with the same metric. TransformerLens is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np

import gpt2_patching as gp
from gpt2_patching import compat

CLEAN = [48736, 5437, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738]
CORRUPTED = [48736, 4176, 373, 257, 1353, 12, 1662, 354, 3710, 13, 16738]
A, B = 4176, 5437  # " Smith", " Jones"
FUNCTIONS = [
    "resid_pre",
    "attn_out",
    "mlp_out",
    "attn_head_out_all_pos",
    "attn_head_q_all_pos",
    "attn_head_pattern_all_pos",
    "attn_head_out_by_pos",
]


def timed(call: Any, repeats: int = 1) -> tuple[float, Any]:
    """The shortest time of some calls, and the result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result


def transformer_lens(folder: str) -> Any:
    """The same weights in TransformerLens, as they are; none where it is not installed."""
    try:
        import torch
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
        from transformers import GPT2LMHeadModel
    except ImportError:
        return None
    torch.set_grad_enabled(False)
    torch.set_num_threads(int(os.environ.get("RAYON_NUM_THREADS", os.cpu_count() or 1)))
    hf = GPT2LMHeadModel.from_pretrained(folder).eval()
    c = hf.config
    config = HookedTransformerConfig(
        n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head, n_heads=c.n_head,
        d_mlp=4 * c.n_embd, d_vocab=c.vocab_size, act_fn="gelu_new", normalization_type="LN", device="cpu",
        default_prepend_bos=False,
    )
    model = HookedTransformer(config, move_to_device=False)
    state = convert_gpt2_weights(hf, config)
    steps = ("fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases")
    model.load_and_process_state_dict(state, **dict.fromkeys(steps, False))
    return model.eval()


def beside_transformer_lens(ours: gp.Model, theirs: Any, names: list[str]) -> None:
    """A line for each function: both times, their ratio, and the largest difference."""
    import torch
    from transformer_lens import patching

    clean, corrupted = torch.tensor([CLEAN]), torch.tensor([CORRUPTED])

    def metric(logits: Any) -> Any:
        return logits[0, -1, A] - logits[0, -1, B]

    _, their_cache = theirs.run_with_cache(clean)
    _, our_cache = ours.run_with_cache(clean)
    for name in names:
        function = f"get_act_patch_{name}"
        our_time, values = timed(lambda: getattr(compat, function)(ours, corrupted, our_cache, metric), 3)
        fast_time, _ = timed(lambda: getattr(compat, function)(ours, corrupted, our_cache, (A, B)), 3)
        their_time, expected = timed(lambda: getattr(patching, function)(theirs, corrupted, their_cache, metric))
        difference = float((values - expected).abs().max())
        print(
            f"{function:44} {their_time:8.2f} s  {our_time:6.3f} s  {their_time / our_time:6.1f}×  "
            f"(a, b): {fast_time:6.3f} s  {their_time / fast_time:6.1f}×  largest difference {difference:.1e}",
            flush=True,
        )


def beside_the_command_line(ours: gp.Model, folder: str, cli: str, rounds: int = 7) -> None:
    """The main sweep in a new process and in the command line, whose own time is taken from its JSON, in turns; and in
    this process, where the weights are in memory already."""
    ids = [" ".join(map(str, ids)) for ids in (CLEAN, CORRUPTED)]
    command = [cli, "--ids", "--clean", ids[0], "--corrupted", ids[1], "--logit-diff", f"#{A}", f"#{B}"]
    command += ["--model", folder, "--json", "--out", os.path.join(tempfile.gettempdir(), "compare.png")]
    times: list[tuple[float, float, float]] = []
    first = [sys.executable, __file__, folder, "--first"]
    for _ in range(rounds):
        seconds, result = timed(lambda: gp.sweep(ours, CLEAN, CORRUPTED, (A, B)))
        printed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        fresh = float(subprocess.run(first, capture_output=True, text=True, check=True).stdout)
        times.append((fresh, printed["seconds"]["sweep"], seconds))
        values = np.array(printed["grids"][0]["values"], dtype=np.float32)
        assert (values == result.values.ravel()).all(), "the same bits"
    best = [min(column) for column in zip(*times)]
    median = [sorted(column)[rounds // 2] for column in zip(*times)]
    for name, (fresh, rust, warm) in (("best", best), ("median", median)):
        print(
            f"main sweep, {name} of {rounds}: Python {fresh:.4f} s, command line {rust:.4f} s, {fresh / rust - 1:+.1%}; "
            f"Python again {warm:.4f} s",
            flush=True,
        )


def main() -> None:
    """Reads the arguments, and prints a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--cli")
    parser.add_argument("--first", action="store_true", help="only the time of the first sweep of a process")
    parser.add_argument("--only", default=",".join(FUNCTIONS))
    args = parser.parse_args()
    ours = gp.Model.from_pretrained(args.model, ids_only=True)
    seconds, _ = timed(lambda: gp.sweep(ours, CLEAN, CORRUPTED, (A, B)))
    if args.first:
        print(seconds)
        return
    if args.cli:
        beside_the_command_line(ours, args.model, args.cli)
    theirs = transformer_lens(args.model)
    if theirs is not None and args.only:
        beside_transformer_lens(ours, theirs, args.only.split(","))


if __name__ == "__main__":
    main()
