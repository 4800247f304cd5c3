//! `synth-weights`: a seeded random GPT-2 checkpoint in Hugging Face's layout.
//!
//! The files are what `GPT2LMHeadModel.save_pretrained` would write, and the same on every
//! machine for a seed: each value is a sum of random integers, scaled once.
//!
//! GPT-2's own initialisation is made for training: attention is uniform, and a patch moves
//! nothing. The standard deviations here (see [`tensors`]) give a model that behaves more like a
//! trained one, at any width: logits of standard deviation 4, a residual stream that grows with
//! the layers, attention that chooses a few tokens, and no bias or gain that has no effect.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use files::Part;
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::disk::{self, FolderLock};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;
use crate::screen;

const VOCABULARY: u64 = 50257;
const CONTEXT: u64 = 1024;

/// Marks the files of this command, which it may replace later.
const MAKER: &str = "cargo xtask synth-weights";

/// [`MAKER`] stands within this many bytes from the start of each file.
const MAKER_WITHIN: u64 = 1024;

/// How many values are in memory at once (4 MiB): a checkpoint may be larger than memory.
const CHUNK: u64 = 1 << 20;

/// The options of `synth-weights`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// gpt2, gpt2-medium, gpt2-large, gpt2-xl, or LxHxD: layers, heads, width
    #[arg(default_value = "gpt2")]
    size: Size,
    /// The same seed gives the same weights on every machine
    #[arg(long, value_name = "N")]
    seed: u64,
    /// The folder to write model.safetensors and config.json to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace files in DIR that synth-weights did not make
    #[arg(long)]
    force: bool,
}

impl Arguments {
    /// A checkpoint of GPT-2 small's size.
    pub fn gpt2_small(seed: u64, out: PathBuf) -> Self {
        let size = Size { layers: 12, heads: 12, width: 768 };
        Self { size, seed, out, force: false }
    }
}

/// Writes the checkpoint.
pub fn run(arguments: &Arguments) -> Outcome {
    let Arguments { size, seed, out, force } = arguments;
    let _lock = FolderLock::take(out)?;
    let model = out.join("model.safetensors");
    let config = out.join("config.json");
    if !force {
        require_replaceable(&model)?;
        require_replaceable(&config)?;
    }
    let tensors = tensors(size);
    let header = header(size, *seed, &tensors);
    let length = header.len() as u64 + 4 * tensors.iter().map(Tensor::count).sum::<u64>();
    disk::require_space(out, length)?;

    let mut progress = Progress::begin("model.safetensors", length, 0);
    let written = Part::create(&model).and_then(|mut part| {
        part.write_all(&header)?;
        for (index, tensor) in (0..).zip(&tensors) {
            write_tensor(&mut part, tensor, stream_key(*seed, index), &mut progress)?;
        }
        part.publish(|_| Ok(true))
    });
    written.map_err(|error| disk::write_failure(&model, &error))?;
    disk::write_atomically(&config, format!("{:#}\n", config_json(size)).as_bytes())?;
    screen::say(&format!(
        "{}: random weights of {size} (layers x heads x width), seed {seed}, {}",
        out.display(),
        disk::bytes(length)
    ));
    Ok(())
}

/// The size of a model: layers, heads and width.
#[derive(Clone, Copy, Debug)]
struct Size {
    layers: u64,
    heads: u64,
    width: u64,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (layers, heads, width) = match text {
            "gpt2" => (12, 12, 768),
            "gpt2-medium" => (24, 16, 1024),
            "gpt2-large" => (36, 20, 1280),
            "gpt2-xl" => (48, 25, 1600),
            _ => three_numbers(text).ok_or(
                "give gpt2, gpt2-medium, gpt2-large, gpt2-xl, or three numbers: 12x12x768 has 12 \
                 layers, 12 heads and a width of 768",
            )?,
        };
        if !(1..=1000).contains(&layers) {
            return Err(format!("{layers} layers: give 1 to 1000"));
        }
        if !(1..=65536).contains(&width) {
            return Err(format!("a width of {width}: give 1 to 65536"));
        }
        if heads == 0 {
            return Err("0 heads: give at least 1".into());
        }
        if width % heads != 0 {
            return Err(format!(
                "{heads} heads do not divide a width of {width}: give a width that is a multiple \
                 of the heads, such as {layers}x12x768"
            ));
        }
        Ok(Self { layers, heads, width })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}x{}x{}", self.layers, self.heads, self.width)
    }
}

fn three_numbers(text: &str) -> Option<(u64, u64, u64)> {
    let mut parts = text.split('x').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(numbers)
}

/// One parameter of the model: its values are spread around `mean` by `deviation`.
struct Tensor {
    name: String,
    shape: Vec<u64>,
    mean: f32,
    deviation: f64,
}

impl Tensor {
    fn count(&self) -> u64 {
        self.shape.iter().product()
    }
}

/// Every parameter of a model, with the spread of its values.
///
/// A layer norm gives its reader values of about 1, so a weight of deviation s / sqrt(inputs)
/// gives outputs of deviation s, whatever the width.
fn tensors(size: &Size) -> Vec<Tensor> {
    let width = size.width;
    let spread = |outputs: f64, inputs: u64| outputs / (inputs as f64).sqrt();
    let tensor = |name: &str, shape: &[u64], mean, deviation| Tensor {
        name: format!("transformer.{name}"),
        shape: shape.to_vec(),
        mean,
        deviation,
    };
    // The token embedding is the unembedding too: its deviation is that of the logits.
    let mut all = vec![
        tensor("wte.weight", &[VOCABULARY, width], 0.0, spread(4.0, width)),
        tensor("wpe.weight", &[CONTEXT, width], 0.0, spread(2.0, width)),
    ];
    for layer in 0..size.layers {
        let tensor = |name, shape: &[u64], mean, deviation| {
            tensor(&format!("h.{layer}.{name}"), shape, mean, deviation)
        };
        all.extend([
            tensor("ln_1.weight", &[width], 1.0, 0.1),
            tensor("ln_1.bias", &[width], 0.0, 0.1),
            // Queries and keys of deviation 2: attention scores of deviation 4 at most.
            tensor("attn.c_attn.weight", &[width, 3 * width], 0.0, spread(2.0, width)),
            tensor("attn.c_attn.bias", &[3 * width], 0.0, 0.1),
            tensor("attn.c_proj.weight", &[width, width], 0.0, spread(0.5, width)),
            tensor("attn.c_proj.bias", &[width], 0.0, 0.05),
            tensor("ln_2.weight", &[width], 1.0, 0.1),
            tensor("ln_2.bias", &[width], 0.0, 0.1),
            tensor("mlp.c_fc.weight", &[width, 4 * width], 0.0, spread(1.5, width)),
            tensor("mlp.c_fc.bias", &[4 * width], 0.0, 0.1),
            tensor("mlp.c_proj.weight", &[4 * width, width], 0.0, spread(0.6, 4 * width)),
            tensor("mlp.c_proj.bias", &[width], 0.0, 0.05),
        ]);
    }
    all.push(tensor("ln_f.weight", &[width], 1.0, 0.1));
    all.push(tensor("ln_f.bias", &[width], 0.0, 0.1));
    all
}

/// The start of the file: the length of the JSON, and the JSON that says where each tensor is.
fn header(size: &Size, seed: u64, tensors: &[Tensor]) -> Vec<u8> {
    // Sorted by name, so the metadata comes first.
    let mut entries = Map::new();
    entries.insert(
        "__metadata__".into(),
        json!({ "format": "pt", "made_by": MAKER, "size": size.to_string(), "seed": seed.to_string() }),
    );
    let mut start = 0;
    for tensor in tensors {
        let end = start + 4 * tensor.count();
        let entry = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(tensor.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(entries).to_string().into_bytes();
    // Spaces up to a multiple of 8, so that the values can be read in place as floats.
    text.resize(text.len().next_multiple_of(8), b' ');
    [&(text.len() as u64).to_le_bytes(), text.as_slice()].concat()
}

fn config_json(size: &Size) -> Value {
    json!({
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": 0.1,
        "bos_token_id": VOCABULARY - 1,
        "embd_pdrop": 0.1,
        "eos_token_id": VOCABULARY - 1,
        "initializer_range": 0.02,
        "layer_norm_epsilon": 1e-5,
        "made_by": MAKER,
        "model_type": "gpt2",
        "n_ctx": CONTEXT,
        "n_embd": size.width,
        "n_head": size.heads,
        "n_inner": null,
        "n_layer": size.layers,
        "n_positions": CONTEXT,
        "resid_pdrop": 0.1,
        "tie_word_embeddings": true,
        "vocab_size": VOCABULARY,
    })
}

/// Writes the values of a tensor. Each depends on its number alone, so that any thread can make it.
fn write_tensor(file: &mut Part, tensor: &Tensor, key: u64, progress: &mut Progress) -> io::Result<()> {
    let scale = (tensor.deviation / bell_deviation()) as f32;
    let value = |index| (tensor.mean + bell(key, index) as f32 * scale).to_le_bytes();
    for first in (0..tensor.count()).step_by(CHUNK as usize) {
        let chunk: Vec<[u8; 4]> =
            (first..tensor.count().min(first + CHUNK)).into_par_iter().map(value).collect();
        file.write_all(chunk.as_flattened())?;
        progress.add(chunk.as_flattened().len() as u64);
    }
    Ok(())
}

/// A random integer of a nearly normal distribution around 0: the sum of eight uniform ones.
fn bell(key: u64, index: u64) -> i32 {
    let sum: u64 = [2 * index, 2 * index + 1]
        .into_iter()
        .map(|counter| random(key, counter))
        .map(|word| (word & 0xffff) + (word >> 16 & 0xffff) + (word >> 32 & 0xffff) + (word >> 48))
        .sum();
    sum as i32 - 8 * 0xffff / 2
}

/// The standard deviation of [`bell`]: a uniform integer below n has a variance of (n² - 1) / 12.
fn bell_deviation() -> f64 {
    let values = 65536.0_f64;
    (8.0 * (values * values - 1.0) / 12.0).sqrt()
}

/// Word number `counter` of the random stream `key` (SplitMix64).
fn random(key: u64, counter: u64) -> u64 {
    let mut word = key.wrapping_add(counter.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Every tensor of every seed has a stream of its own.
fn stream_key(seed: u64, tensor: u64) -> u64 {
    random(random(seed, 1), tensor)
}

/// Refuses to touch a file that this command did not make.
fn require_replaceable(path: &Path) -> Outcome {
    let exists = path.try_exists().map_err(|error| disk::read_failure(path, &error))?;
    let mut start = Vec::new();
    let read = files::open(path).and_then(|file| file.take(MAKER_WITHIN).read_to_end(&mut start));
    let is_ours = read.is_ok() && start.windows(MAKER.len()).any(|bytes| bytes == MAKER.as_bytes());
    if exists && !is_ours {
        return Err(Failure::input(format!(
            "{} is there and was not made by synth-weights: choose another folder with --out, or replace it \
             with --force",
            path.display()
        )));
    }
    Ok(())
}
