//! What the targets share: taking a model out of a checkpoint, and running it.

use gpt2::{Checkpoint, Config, Error, Gpt2, no_hook};

/// Loads a model of the sizes that the file states, and runs it on one token.
pub fn load(checkpoint: Result<Checkpoint, Error>) -> Result<(), Error> {
    let checkpoint = checkpoint?;
    // No small model is among the known ones, so only its errors are of interest.
    let _ = Config::from_shapes(&checkpoint);
    let [vocab_size, n_embd] = checkpoint.matrix_shape("wte.weight")?;
    let [block_size, _] = checkpoint.matrix_shape("wpe.weight")?;
    let config = Config {
        vocab_size,
        block_size,
        n_layer: checkpoint.count_blocks(),
        n_head: 1,
        n_embd,
        ..Config::GPT2
    };
    // `Config` itself never gives a size below 1 or beyond 2^24.
    if n_embd == 0 || n_embd > 1 << 24 {
        return Ok(());
    }
    let model = Gpt2::from_checkpoint(config, checkpoint)?;
    model.check_prompt(&[0])?;
    model.next_token_logits(&[0], &mut no_hook);
    Ok(())
}
