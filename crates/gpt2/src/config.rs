//! The sizes of a model.

use std::path::Path;

use serde_json::{Map, Value};

use crate::locate::KNOWN;
use crate::{Checkpoint, Error, files};

/// The sizes of a GPT-2, under minGPT's names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How many tokens there are: 50,257 for every GPT-2.
    pub vocab_size: usize,
    /// The most tokens a prompt may have: 1,024 for GPT-2 (`n_positions` in `config.json`).
    pub block_size: usize,
    /// How many blocks are stacked.
    pub n_layer: usize,
    /// How many attention heads a block has.
    pub n_head: usize,
    /// The width of the residual stream, `C` in the comments on shapes.
    pub n_embd: usize,
    /// ε of every layer norm.
    pub layer_norm_epsilon: f32,
}

impl Default for Config {
    /// GPT-2 small's.
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            block_size: 1024,
            n_layer: 12,
            n_head: 12,
            n_embd: 768,
            layer_norm_epsilon: 1e-5,
        }
    }
}

impl Config {
    /// The width of one head: `n_embd / n_head`.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// How many numbers the model has learned, `lm_head` tied to `wte`.
    pub fn n_parameters(&self) -> usize {
        let c = self.n_embd;
        // Two layer norms (4C), c_attn (3C² + 3C), c_proj (C² + C), c_fc (4C² + 4C), c_proj (4C² + C).
        let block = 12 * c * c + 13 * c;
        (self.vocab_size + self.block_size) * c + self.n_layer * block + 2 * c
    }

    /// Reads `config.json` in Hugging Face's form.
    ///
    /// # Errors
    /// If the file cannot be read, is no JSON object, lacks a size, or asks for a model that this
    /// crate does not compute (another architecture, activation or attention scaling).
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Self::from_json(&files::read_text(path)?, path)
    }

    /// Reads the text of a `config.json`; `path` is only for messages.
    ///
    /// # Errors
    /// As [`Config::from_file`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self, Error> {
        let fail = |reason: String| Error::config(path, reason);
        let json: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| fail(format!("not a JSON object: {e}")))?;

        let size = |name: &str| match json.get(name).map(Value::as_u64) {
            // Bounded, so that no product of two sizes can overflow.
            Some(Some(n)) if (1..=1 << 24).contains(&n) => Ok(n as usize),
            Some(_) => Err(fail(format!(
                "`{name}` is {}, not a whole number from 1 to 2^24",
                json[name]
            ))),
            None => Err(fail(format!("`{name}` is missing"))),
        };
        // What a GPT-2 has; another value means another computation than ours.
        let fixed = |name: &str, expected: Value| match json.get(name) {
            Some(found) if *found != expected && !found.is_null() => Err(fail(format!(
                "`{name}` is {found}; only {expected} is computed here"
            ))),
            _ => Ok(()),
        };
        fixed("model_type", "gpt2".into())?;
        fixed("scale_attn_weights", true.into())?;
        fixed("scale_attn_by_inverse_layer_idx", false.into())?;
        fixed("add_cross_attention", false.into())?;
        match json.get("activation_function").and_then(Value::as_str) {
            None | Some("gelu_new" | "gelu_pytorch_tanh") => {}
            Some(other) => {
                return Err(fail(format!(
                    "`activation_function` is \"{other}\"; only \"gelu_new\" is computed here"
                )));
            }
        }

        let epsilon = match json.get("layer_norm_epsilon") {
            None => 1e-5,
            // As `f32`, because 1e-300 is a number between 0 and 1, and 0 as an f32.
            Some(value) => match value.as_f64().map(|epsilon| epsilon as f32) {
                Some(epsilon) if epsilon > 0.0 && epsilon < 1.0 => epsilon,
                _ => {
                    return Err(fail(format!(
                        "`layer_norm_epsilon` is {value}, not a number between 0 and 1"
                    )));
                }
            },
        };
        let config = Self {
            vocab_size: size("vocab_size")?,
            block_size: if json.contains_key("n_positions") {
                size("n_positions")?
            } else {
                size("n_ctx")?
            },
            n_layer: size("n_layer")?,
            n_head: size("n_head")?,
            n_embd: size("n_embd")?,
            layer_norm_epsilon: epsilon,
        };
        if !config.n_embd.is_multiple_of(config.n_head) {
            return Err(fail(format!(
                "`n_embd` {} is not a multiple of `n_head` {}",
                config.n_embd, config.n_head
            )));
        }
        if json
            .get("n_inner")
            .is_some_and(|n| !n.is_null() && n.as_u64() != Some(4 * config.n_embd as u64))
        {
            return Err(fail(format!(
                "`n_inner` is {}; only 4 · n_embd = {} is computed here",
                json["n_inner"],
                4 * config.n_embd
            )));
        }
        Ok(config)
    }

    /// Reads the sizes off the shapes of a checkpoint that has no `config.json` beside it. The
    /// number of heads leaves no trace in the shapes: it is taken from the well-known models.
    ///
    /// # Errors
    /// If the embeddings or all blocks are missing, or no well-known model has these sizes.
    pub fn from_shapes(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let [vocab_size, n_embd] = checkpoint.matrix_shape("wte.weight")?;
        let [block_size, _] = checkpoint.matrix_shape("wpe.weight")?;
        let n_layer = checkpoint.count_blocks();
        let known = KNOWN
            .iter()
            .find(|known| (known.n_layer, known.n_embd) == (n_layer, n_embd));
        let Some(known) = known else {
            return Err(Error::config(
                checkpoint.path(),
                format!(
                    "has {n_layer} blocks of width {n_embd}, and no known model has: its number of \
                     heads cannot be told from the weights. Put a config.json with `n_head` beside it"
                ),
            ));
        };
        Ok(Self {
            vocab_size,
            block_size,
            n_layer,
            n_head: known.n_head,
            n_embd,
            layer_norm_epsilon: 1e-5,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        Config::from_json(text, Path::new("config.json")).map_err(|e| e.to_string())
    }

    #[test]
    fn the_tiny_models_config_is_read() {
        let config = read(gpt2_tiny::CONFIG).unwrap();
        assert_eq!(
            (
                config.n_layer,
                config.n_head,
                config.n_embd,
                config.head_size()
            ),
            (12, 4, 64, 16)
        );
        assert_eq!((config.vocab_size, config.block_size), (50257, 128));
    }

    #[test]
    fn what_we_do_not_compute_is_refused_by_name() {
        for (from, to, message) in [
            (
                "\"gelu_new\"",
                "\"relu\"",
                "`activation_function` is \"relu\"",
            ),
            (
                "\"gpt2\"",
                "\"llama\"",
                "`model_type` is \"llama\"; only \"gpt2\"",
            ),
            (
                "\"n_head\": 4",
                "\"n_head\": 5",
                "`n_embd` 64 is not a multiple of `n_head` 5",
            ),
            (
                "\"n_head\": 4",
                "\"n_head\": -4",
                "`n_head` is -4, not a whole number",
            ),
            ("\"n_head\": 4", "\"n_head\": 1e30", "`n_head` is 1e+30"),
            ("\"n_layer\": 12,", "", "`n_layer` is missing"),
            (
                "\"n_layer\": 12",
                "\"n_layer\": 12, \"n_inner\": 100",
                "only 4 · n_embd = 256",
            ),
            ("1e-05", "\"x\"", "`layer_norm_epsilon` is \"x\""),
            (
                "1e-05",
                "1e-300",
                "`layer_norm_epsilon` is 1e-300, not a number",
            ),
            ("{", "[", "not a JSON object"),
        ] {
            let error = read(&gpt2_tiny::CONFIG.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
