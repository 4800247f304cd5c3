//! The sizes of a model, and what its `config.json` says.

use std::path::Path;

use serde_json::{Map, Value};
use tensor::{Activation, Tensor};

use crate::locate::KNOWN;
use crate::{Checkpoint, Error, Gpt2, files};

/// The sizes of a model, under minGPT's names, and its differences from OpenAI's GPT-2, under transformers' names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Config {
    /// How many tokens there are: 50,257 for OpenAI's GPT-2.
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
    /// The width of the MLP's hidden layer; `None` is 4 · `n_embd`.
    pub n_inner: Option<usize>,
    /// The function between the MLP's two layers.
    pub activation_function: Activation,
    /// Whether attention's scores are divided by √head_size.
    pub scale_attn_weights: bool,
    /// Whether they are also divided by the number of the layer, counted from 1, as in Stanford CRFM's
    /// models.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The layers whose tokens see the last few tokens only, as every other layer of GPT-Neo.
    pub local_attention: Option<LocalAttention>,
    /// Whether logits are made with the token embeddings; if `None`, with `lm_head.weight` if the weights
    /// have one.
    pub tie_word_embeddings: Option<bool>,
}

/// Layers in which a token sees so many tokens, itself included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAttention {
    /// How many.
    pub window: usize,
    /// The layers, as the bits of a number.
    layers: u128,
}

impl LocalAttention {
    /// The most layers that can be told apart.
    const MOST_LAYERS: usize = u128::BITS as usize;

    /// These layers of the first 128.
    pub fn new(window: usize, layers: impl IntoIterator<Item = usize>) -> Self {
        let bit = |layer: usize| 1_u128.checked_shl(layer as u32).unwrap_or_default();
        Self { window, layers: layers.into_iter().map(bit).fold(0, |all, bit| all | bit) }
    }

    /// Whether it is about a layer.
    pub fn has(&self, layer: usize) -> bool {
        self.layers.checked_shr(layer as u32).is_some_and(|bits| bits & 1 == 1)
    }
}

impl Default for Config {
    /// GPT-2 small's.
    fn default() -> Self {
        Self::GPT2
    }
}

/// What a `config.json` says: of the model, and of its tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConfigFile {
    /// The model.
    pub config: Config,
    /// The token that opens a text, if the file names one.
    pub bos_token_id: Option<u32>,
    /// The token that ends a text, if the file names one.
    pub eos_token_id: Option<u32>,
}

impl Config {
    /// GPT-2 small's.
    pub const GPT2: Self = Self {
        vocab_size: 50257,
        block_size: 1024,
        n_layer: 12,
        n_head: 12,
        n_embd: 768,
        layer_norm_epsilon: 1e-5,
        n_inner: None,
        activation_function: Activation::GeluNew,
        scale_attn_weights: true,
        scale_attn_by_inverse_layer_idx: false,
        local_attention: None,
        tie_word_embeddings: None,
    };

    /// The width of one head: `n_embd / n_head`.
    pub fn head_size(&self) -> usize {
        self.n_embd / self.n_head
    }

    /// The width of the MLP's hidden layer.
    pub fn inner_size(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// What the scores q·k of a layer are multiplied by: 1/√head_size, unless the config says otherwise.
    pub fn score_scale(&self, layer: usize) -> f32 {
        let mut scale = 1.0;
        if self.scale_attn_weights {
            scale /= (self.head_size() as f32).sqrt();
        }
        if self.scale_attn_by_inverse_layer_idx {
            scale /= (layer + 1) as f32;
        }
        scale
    }

    /// How many tokens a token of a layer sees, itself included; none for all up to it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.local_attention.filter(|local| local.has(layer)).map(|local| local.window)
    }

    /// How many numbers the model has learned, `lm_head` tied to `wte`.
    pub fn n_parameters(&self) -> usize {
        let mut n = 0;
        // A model without numbers, whose shapes are counted.
        let counted = Gpt2::new(*self, &mut |_, shape| {
            n += shape.iter().product::<usize>();
            Ok(Tensor::zeros(&[0]))
        });
        counted.map_or(0, |_| n)
    }

    /// Reads `config.json` in Hugging Face's form.
    ///
    /// # Errors
    /// As [`ConfigFile::read`].
    pub fn from_file(path: &Path) -> Result<Self, Error> {
        Ok(ConfigFile::read(path)?.config)
    }

    /// Reads the text of a `config.json`; `path` is only for messages.
    ///
    /// # Errors
    /// As [`ConfigFile::read`].
    pub fn from_json(text: &str, path: &Path) -> Result<Self, Error> {
        Ok(ConfigFile::parse(text, path)?.config)
    }

    /// Reads the sizes off the shapes of a checkpoint that has no `config.json` beside it. The number of
    /// heads cannot be read off shapes: it is taken from the well-known models. All other options are those
    /// of OpenAI's GPT-2.
    ///
    /// # Errors
    /// If the embeddings or all blocks are missing, or no well-known model has these sizes.
    pub fn from_shapes(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let embeddings = if checkpoint.contains("wte.weight") {
            "wte.weight"
        } else {
            "lm_head.weight" // where the two are tied and saved once
        };
        let [vocab_size, n_embd] = checkpoint.matrix_shape(embeddings)?;
        let [block_size, _] = checkpoint.matrix_shape("wpe.weight")?;
        let n_layer = checkpoint.count_blocks();
        let known = KNOWN.iter().find(|known| (known.n_layer, known.n_embd) == (n_layer, n_embd));
        let Some(known) = known else {
            return Err(Error::config(
                checkpoint.path(),
                format!(
                    "has {n_layer} blocks of width {n_embd}, and no known model has: its number of \
                     heads cannot be told from the weights. Put a config.json with `n_head` beside it"
                ),
            ));
        };
        // One of the two sizes of c_fc is n_embd, transposed or not.
        let [rows, cols] = checkpoint.matrix_shape("h.0.mlp.c_fc.weight")?;
        let inner = if rows == n_embd { cols } else { rows };
        Ok(Self {
            vocab_size,
            block_size,
            n_layer,
            n_head: known.n_head,
            n_embd,
            n_inner: (inner != 4 * n_embd).then_some(inner),
            ..Self::GPT2
        })
    }

    /// What [`Config::from_shapes`] has assumed, in one line.
    pub fn assumed(&self) -> String {
        format!(
            "no config.json beside the weights: {} heads, {}, scores divided by √head_size alone and ε = {:e} \
             are assumed, as in OpenAI's models of this size",
            self.n_head, self.activation_function, self.layer_norm_epsilon
        )
    }
}

impl ConfigFile {
    /// Reads `config.json` in Hugging Face's form.
    ///
    /// # Errors
    /// If the file cannot be read, is not a JSON object, lacks a size, or asks for a model that this
    /// crate does not compute (another architecture or activation function).
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&files::read_text(path)?, path)
    }

    /// Reads the text of a `config.json`; `path` is only for messages.
    ///
    /// # Errors
    /// As [`ConfigFile::read`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, Error> {
        let fields = Fields {
            json: serde_json::from_str(text)
                .map_err(|e| Error::config(path, format!("not a JSON object: {e}")))?,
            path,
        };
        let config = match fields.get("model_type").map(|value| value.as_str().unwrap_or_default()) {
            None | Some("gpt2") => fields.gpt2()?,
            Some("gpt_neo") => fields.gpt_neo()?,
            Some("opt") => fields.opt()?,
            Some(_) => {
                let found = &fields.json["model_type"];
                let known = "only gpt2, gpt_neo and opt are computed here";
                return Err(fields.fail(format!("`model_type` is {found}; {known}")));
            }
        };
        if !config.n_embd.is_multiple_of(config.n_head) {
            return Err(fields.fail(format!(
                "`n_embd` {} is not a multiple of `n_head` {}",
                config.n_embd, config.n_head
            )));
        }
        Ok(Self {
            bos_token_id: fields.token("bos_token_id", &config)?,
            eos_token_id: fields.token("eos_token_id", &config)?,
            config,
        })
    }
}

/// The fields of a `config.json`. A null counts as missing.
struct Fields<'a> {
    json: Map<String, Value>,
    path: &'a Path,
}

impl Fields<'_> {
    /// A GPT-2; other values of what is fixed mean a computation that this crate does not do.
    fn gpt2(&self) -> Result<Config, Error> {
        self.fixed("add_cross_attention", false.into())?;
        Ok(Config {
            vocab_size: self.size(&["vocab_size"])?,
            block_size: self.size(&["n_positions", "max_position_embeddings", "n_ctx"])?,
            n_layer: self.size(&["n_layer", "num_hidden_layers"])?,
            n_head: self.size(&["n_head", "num_attention_heads"])?,
            n_embd: self.size(&["n_embd", "hidden_size"])?,
            layer_norm_epsilon: self.epsilon()?,
            n_inner: self.inner("n_inner")?,
            activation_function: self.activation("gelu_new")?,
            scale_attn_weights: self.flag("scale_attn_weights")?.unwrap_or(true),
            scale_attn_by_inverse_layer_idx: self.flag("scale_attn_by_inverse_layer_idx")?.unwrap_or(false),
            local_attention: None,
            tie_word_embeddings: self.flag("tie_word_embeddings")?,
        })
    }

    /// A GPT-Neo: scores are not scaled, and some layers see a window only.
    fn gpt_neo(&self) -> Result<Config, Error> {
        let n_layer = self.size(&["num_layers", "num_hidden_layers"])?;
        Ok(Config {
            vocab_size: self.size(&["vocab_size"])?,
            block_size: self.size(&["max_position_embeddings"])?,
            n_layer,
            n_head: self.size(&["num_heads", "num_attention_heads"])?,
            n_embd: self.size(&["hidden_size"])?,
            layer_norm_epsilon: self.epsilon()?,
            n_inner: self.inner("intermediate_size")?,
            activation_function: self.activation("gelu_new")?,
            scale_attn_weights: false,
            local_attention: self.local_attention(n_layer)?,
            tie_word_embeddings: self.flag("tie_word_embeddings")?,
            ..Config::GPT2
        })
    }

    /// An OPT whose layer norms stand in front of what they are for (all but OPT-350m).
    fn opt(&self) -> Result<Config, Error> {
        for (name, expected) in [
            ("do_layer_norm_before", true),
            ("enable_bias", true),
            ("layer_norm_elementwise_affine", true),
            ("_remove_final_layer_norm", false),
        ] {
            self.fixed(name, expected.into())?;
        }
        let n_embd = self.size(&["hidden_size"])?;
        self.fixed("word_embed_proj_dim", n_embd.into())?;
        Ok(Config {
            vocab_size: self.size(&["vocab_size"])?,
            block_size: self.size(&["max_position_embeddings"])?,
            n_layer: self.size(&["num_hidden_layers"])?,
            n_head: self.size(&["num_attention_heads"])?,
            n_embd,
            n_inner: self.inner("ffn_dim")?,
            activation_function: self.activation("relu")?,
            tie_word_embeddings: self.flag("tie_word_embeddings")?,
            ..Config::GPT2
        })
    }

    /// The width of the hidden layer, if it is given.
    fn inner(&self, name: &str) -> Result<Option<usize>, Error> {
        self.get(name).map(|_| self.size(&[name])).transpose()
    }

    /// Which layers see a window: GPT-Neo's `attention_types`, such as `[[["global", "local"], 6]]`, or the kinds of all
    /// layers in `attention_layers`.
    fn local_attention(&self, n_layer: usize) -> Result<Option<LocalAttention>, Error> {
        const NAME: &str = "attention_types";
        let strange =
            |value: &Value| self.fail(format!("`{NAME}` is {value}, not lists of global and local"));
        let kinds = |value: &Value, list: &Value| -> Result<Vec<bool>, Error> {
            let kind = |kind: &Value| match kind.as_str() {
                Some("global") => Ok(false),
                Some("local") => Ok(true),
                _ => Err(strange(value)),
            };
            list.as_array().ok_or_else(|| strange(value))?.iter().map(kind).collect()
        };
        let mut layers: Vec<bool> = Vec::new();
        match (self.get(NAME), self.get("attention_layers")) {
            (Some(value), _) => {
                for part in value.as_array().ok_or_else(|| strange(value))? {
                    let (list, count) = match part.as_array().map(Vec::as_slice) {
                        Some([list, count]) => {
                            (kinds(value, list)?, count.as_u64().ok_or_else(|| strange(value))?)
                        }
                        _ => return Err(strange(value)),
                    };
                    let count = (count as usize).min(n_layer);
                    layers.extend(list.iter().copied().cycle().take(list.len() * count));
                }
            }
            (None, Some(value)) => layers = kinds(value, value)?,
            (None, None) => layers.extend((0..n_layer).map(|layer| layer % 2 == 1)),
        }
        if layers.len() != n_layer {
            return Err(
                self.fail(format!("`{NAME}` is about {} layers, and there are {n_layer}", layers.len()))
            );
        }
        let local: Vec<usize> = (0..n_layer).filter(|layer| layers[*layer]).collect();
        match local.last() {
            None => Ok(None),
            Some(last) if *last >= LocalAttention::MOST_LAYERS => {
                Err(self
                    .fail(format!("layer {last} sees a window; that is computed in the first 128 layers")))
            }
            Some(_) => {
                let window = self.get("window_size").map_or(Ok(256), |_| self.size(&["window_size"]))?;
                Ok(Some(LocalAttention::new(window, local)))
            }
        }
    }

    fn fail(&self, reason: String) -> Error {
        Error::config(self.path, reason)
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.json.get(name).filter(|value| !value.is_null())
    }

    /// A size that has several names, the first of which is GPT-2's own. All that are given must agree.
    fn size(&self, names: &[&str]) -> Result<usize, Error> {
        let mut found: Option<(&str, usize)> = None;
        for &name in names {
            let Some(value) = self.get(name) else {
                continue;
            };
            // Bounded, so that no product of two sizes can overflow.
            let size = match value.as_u64() {
                Some(n) if (1..=1 << 24).contains(&n) => n as usize,
                _ => {
                    return Err(self.fail(format!("`{name}` is {value}, not a whole number from 1 to 2^24")));
                }
            };
            match found {
                Some((other, n)) if n != size && name != "n_ctx" => {
                    return Err(self.fail(format!("`{other}` is {n} and `{name}` {size}: they are the same")));
                }
                Some(_) => {}
                None => found = Some((name, size)),
            }
        }
        let (_, size) = found.ok_or_else(|| self.fail(format!("`{}` is missing", names[0])))?;
        Ok(size)
    }

    fn fixed(&self, name: &str, expected: Value) -> Result<(), Error> {
        match self.get(name) {
            Some(found) if *found != expected => {
                Err(self.fail(format!("`{name}` is {found}; only {expected} is computed here")))
            }
            _ => Ok(()),
        }
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.fail(format!("`{name}` is {other}, not true or false"))),
        }
    }

    fn epsilon(&self) -> Result<f32, Error> {
        let Some(value) = self.get("layer_norm_epsilon") else {
            return Ok(Config::GPT2.layer_norm_epsilon);
        };
        // As `f32`, because 1e-300 is a number between 0 and 1, and 0 as an f32.
        match value.as_f64().map(|epsilon| epsilon as f32) {
            Some(epsilon) if epsilon > 0.0 && epsilon < 1.0 => Ok(epsilon),
            _ => Err(self.fail(format!("`layer_norm_epsilon` is {value}, not a number between 0 and 1"))),
        }
    }

    /// The activation function; `default` is what the family has if the file names none.
    fn activation(&self, default: &str) -> Result<Activation, Error> {
        let name = match self.get("activation_function") {
            None => default,
            Some(value) => value
                .as_str()
                .ok_or_else(|| self.fail(format!("`activation_function` is {value}, not a name")))?,
        };
        name.parse().map_err(|error| self.fail(format!("`activation_function` is \"{name}\": {error}")))
    }

    /// A token by its id. Where there are several (`eos_token_id` may be a list), it is the first. An id
    /// that the model does not have is passed over: some programs write −1 for none.
    fn token(&self, name: &str, config: &Config) -> Result<Option<u32>, Error> {
        let value = match self.get(name) {
            Some(Value::Array(several)) => several.first(),
            value => value,
        };
        let Some(value) = value else {
            return Ok(None);
        };
        if !value.is_i64() && !value.is_u64() {
            return Err(self.fail(format!("`{name}` is {value}, not a token id")));
        }
        let id = value.as_u64().filter(|id| *id < config.vocab_size as u64);
        Ok(id.map(|id| id as u32))
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
        assert_eq!((config.n_layer, config.n_head, config.n_embd, config.head_size()), (12, 4, 64, 16));
        assert_eq!((config.vocab_size, config.block_size), (50257, 128));
    }

    #[test]
    fn what_we_do_not_compute_is_refused_by_name() {
        for (from, to, message) in [
            (
                "\"gelu_new\"",
                "\"prelu\"",
                "`activation_function` is \"prelu\": there is no activation function \"prelu\"; computed",
            ),
            ("\"gpt2\"", "\"llama\"", "`model_type` is \"llama\"; only gpt2, gpt_neo and opt"),
            ("\"n_head\": 4", "\"n_head\": 5", "`n_embd` 64 is not a multiple of `n_head` 5"),
            ("\"n_head\": 4", "\"n_head\": -4", "`n_head` is -4, not a whole number"),
            ("\"n_head\": 4", "\"n_head\": 1e30", "`n_head` is 1e+30"),
            ("\"n_layer\": 12,", "", "`n_layer` is missing"),
            ("\"n_layer\": 12", "\"n_layer\": 12, \"n_inner\": 0", "`n_inner` is 0, not a whole number"),
            (
                "\"n_layer\": 12",
                "\"n_layer\": 12, \"num_hidden_layers\": 11",
                "`n_layer` is 12 and `num_hidden_layers` 11: they are the same",
            ),
            (
                "\"n_layer\": 12",
                "\"n_layer\": 12, \"scale_attn_weights\": \"no\"",
                "`scale_attn_weights` is \"no\", not true or false",
            ),
            ("\"bos_token_id\": 50256", "\"bos_token_id\": \"x\"", "`bos_token_id` is \"x\", not a token id"),
            ("1e-05", "\"x\"", "`layer_norm_epsilon` is \"x\""),
            ("1e-05", "1e-300", "`layer_norm_epsilon` is 1e-300, not a number"),
            ("{", "[", "not a JSON object"),
        ] {
            let error = read(&gpt2_tiny::CONFIG.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
    #[test]
    fn what_differs_from_openais_gpt2_is_read() {
        let more = "\"n_inner\": 100, \"scale_attn_weights\": false, \
                    \"scale_attn_by_inverse_layer_idx\": true, \"tie_word_embeddings\": false, \
                    \"reorder_and_upcast_attn\": true, \"eos_token_id\": [7, 8]";
        let text = gpt2_tiny::CONFIG
            .replacen("\"eos_token_id\": 50256", more, 1)
            .replacen("\"tie_word_embeddings\": true", "\"x\": 0", 1)
            .replacen("gelu_new", "quick_gelu", 1);
        let file = ConfigFile::parse(&text, Path::new("config.json")).unwrap();
        let config = file.config;
        assert_eq!(config.inner_size(), 100);
        assert_eq!(config.activation_function, Activation::QuickGelu);
        assert_eq!([config.score_scale(0), config.score_scale(3)], [1.0, 0.25]);
        assert_eq!(config.tie_word_embeddings, Some(false));
        assert_eq!(file.eos_token_id, Some(7));
        assert_eq!(Config::GPT2.score_scale(5), 0.125);
    }

    #[test]
    fn a_token_that_is_not_there_is_none() {
        for id in ["-1", "null", "50257", "[]"] {
            let text = format!("\"bos_token_id\": {id}");
            let text = gpt2_tiny::CONFIG.replacen("\"bos_token_id\": 50256", &text, 1);
            let file = ConfigFile::parse(&text, Path::new("config.json")).unwrap();
            assert_eq!(file.bos_token_id, None, "{id}");
        }
    }
}
