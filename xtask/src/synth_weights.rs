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

/// How many values are made in memory at once (4 MiB).
const CHUNK: u64 = 1 << 20;

/// How many values one thread makes at a time.
const THREAD_SHARE: usize = 1 << 14;

/// No header of a checkpoint is near this long.
const LONGEST_HEADER: u64 = 100_000_000;

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
    let Arguments { size, seed, out, .. } = arguments;
    let _lock = FolderLock::take(out)?;
    let model = out.join("model.safetensors");
    let config = out.join("config.json");
    if !arguments.force {
        require_replaceable(&model, checkpoint_maker)?;
        require_replaceable(&config, config_maker)?;
    }

    let tensors = tensors(size);
    let header = header(size, *seed, &tensors)?;
    let length = header.len() as u64 + 4 * tensors.iter().map(Tensor::count).sum::<u64>();
    disk::require_space(out, length)?;

    write_checkpoint(&model, &header, &tensors, *seed, length)?;
    disk::write_atomically(&config, &config_json(size)?)?;
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
    let mut all = Vec::new();
    let mut push = |name: String, shape: &[u64], mean: f32, deviation: f64| {
        all.push(Tensor { name: format!("transformer.{name}"), shape: shape.to_vec(), mean, deviation });
    };

    // The token embedding is the unembedding too: its deviation is that of the logits.
    push("wte.weight".into(), &[VOCABULARY, width], 0.0, spread(4.0, width));
    push("wpe.weight".into(), &[CONTEXT, width], 0.0, spread(2.0, width));
    for layer in 0..size.layers {
        // (name, inputs, outputs, deviation of the outputs, deviation of the biases)
        let linear = [
            // Queries and keys of deviation 2: attention scores of deviation 4 at most.
            ("attn.c_attn", width, 3 * width, 2.0, 0.1),
            ("attn.c_proj", width, width, 0.5, 0.05),
            ("mlp.c_fc", width, 4 * width, 1.5, 0.1),
            ("mlp.c_proj", 4 * width, width, 0.6, 0.05),
        ];
        for (name, inputs, outputs, deviation, bias_deviation) in linear {
            // The order of the model: a norm stands before each of its two halves.
            let norm = match name {
                "attn.c_attn" => Some("ln_1"),
                "mlp.c_fc" => Some("ln_2"),
                _ => None,
            };
            if let Some(norm) = norm {
                push(format!("h.{layer}.{norm}.weight"), &[width], 1.0, 0.1);
                push(format!("h.{layer}.{norm}.bias"), &[width], 0.0, 0.1);
            }
            push(format!("h.{layer}.{name}.weight"), &[inputs, outputs], 0.0, spread(deviation, inputs));
            push(format!("h.{layer}.{name}.bias"), &[outputs], 0.0, bias_deviation);
        }
    }
    push("ln_f.weight".into(), &[width], 1.0, 0.1);
    push("ln_f.bias".into(), &[width], 0.0, 0.1);
    all
}

/// The start of the file: the length of the JSON, and the JSON that says where each tensor is.
fn header(size: &Size, seed: u64, tensors: &[Tensor]) -> Outcome<Vec<u8>> {
    let mut entries = Map::new();
    entries.insert(
        "__metadata__".into(),
        json!({
            "format": "pt",
            "made_by": MAKER,
            "size": size.to_string(),
            "seed": seed.to_string(),
        }),
    );
    let mut start = 0;
    for tensor in tensors {
        let end = start + 4 * tensor.count();
        entries.insert(
            tensor.name.clone(),
            json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] }),
        );
        start = end;
    }
    let mut text = to_json(&Value::Object(entries), serde_json::to_vec)?;
    // Spaces up to a multiple of 8, so that the values can be read in place as floats.
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    Ok(header)
}

fn config_json(size: &Size) -> Outcome<Vec<u8>> {
    let config = json!({
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
    });
    let mut text = to_json(&config, serde_json::to_vec_pretty)?;
    text.push(b'\n');
    Ok(text)
}

fn to_json(value: &Value, print: fn(&Value) -> serde_json::Result<Vec<u8>>) -> Outcome<Vec<u8>> {
    print(value).map_err(|error| Failure::run(format!("cannot write JSON: {error}")))
}

fn write_checkpoint(path: &Path, header: &[u8], tensors: &[Tensor], seed: u64, length: u64) -> Outcome {
    let mut progress = Progress::begin("model.safetensors", length, 0);
    let mut write = || -> io::Result<()> {
        let mut part = files::Part::create(path)?;
        part.write_all(header)?;
        for (index, tensor) in (0..).zip(tensors) {
            write_tensor(&mut part, tensor, stream_key(seed, index), &mut progress)?;
        }
        part.publish(|_| Ok(true))
    };
    write().map_err(|error| disk::write_failure(path, &error))
}

fn write_tensor(
    file: &mut files::Part,
    tensor: &Tensor,
    key: u64,
    progress: &mut Progress,
) -> io::Result<()> {
    let mut chunk = Vec::new();
    let mut first = 0;
    while first < tensor.count() {
        let count = CHUNK.min(tensor.count() - first);
        chunk.resize(4 * count as usize, 0);
        fill(&mut chunk, tensor, key, first);
        file.write_all(&chunk)?;
        progress.add(chunk.len() as u64);
        first += count;
    }
    Ok(())
}

/// Makes the values from number `first` on. Each depends on its number alone, so that any thread
/// can make any of them.
fn fill(chunk: &mut [u8], tensor: &Tensor, key: u64, first: u64) {
    let scale = (tensor.deviation / bell_deviation()) as f32;
    let share = 4 * THREAD_SHARE;
    chunk.par_chunks_mut(share).enumerate().for_each(|(number, values)| {
        let first = first + (number * THREAD_SHARE) as u64;
        for (index, value) in (first..).zip(values.chunks_exact_mut(4)) {
            let deviate = bell(key, index) as f32 * scale;
            value.copy_from_slice(&(tensor.mean + deviate).to_le_bytes());
        }
    });
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
fn require_replaceable(path: &Path, maker: fn(&Path) -> Option<String>) -> Outcome {
    let exists = path
        .try_exists()
        .map_err(|error| Failure::run(format!("cannot look at {}: {error}", path.display())))?;
    if exists && maker(path).as_deref() != Some(MAKER) {
        return Err(Failure::input(format!(
            "{} is there and was not made by synth-weights: choose another folder with --out, or \
             replace it with --force",
            path.display()
        )));
    }
    Ok(())
}

fn checkpoint_maker(path: &Path) -> Option<String> {
    let mut file = files::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return None;
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text).ok()?;
    made_by(serde_json::from_slice::<Value>(&text).ok()?.get("__metadata__")?)
}

fn config_maker(path: &Path) -> Option<String> {
    made_by(&serde_json::from_slice(&files::read(path, LONGEST_HEADER).ok()?).ok()?)
}

fn made_by(value: &Value) -> Option<String> {
    Some(value.get("made_by")?.as_str()?.to_owned())
}
