//! A model as Hugging Face's files, `model.safetensors` and `config.json`; and a training that is to go on, as one file.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use files::Part;
use gpt2::tokenizer::{END_OF_TEXT, N_TOKENS};
use gpt2::{Config, Gpt2};
use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tensor::Tensor;

use crate::Trainer;

/// Why a file was not written or not read.
#[derive(Debug)]
pub enum Error {
    /// It could not be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: io::Error,
    },
    /// It is not what it should be.
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { path, error } if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = path.display();
                write!(f, "{path} exists, and checkpoints replace no file; give an empty folder")
            }
            Self::Write { path, error } => write!(f, "{} cannot be written: {error}", path.display()),
            Self::Read { path, reason } => {
                write!(f, "{} is not the state of a training: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {}

/// How the numbers of a file are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbers {
    /// As they are.
    #[default]
    F32,
    /// Rounded to half precision, in half of the space.
    F16,
}

/// Writes `model.safetensors` and `config.json` into a folder, which is made if it is missing; and, of a model that
/// was trained on some tokens only, these as `known_tokens.json`: all or none.
///
/// # Errors
/// If one of them exists, or cannot be written; or if attention is local, which a GPT-2's config cannot say.
pub fn save(model: &Gpt2, numbers: Numbers, known: Option<&[u32]>, folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Write { path, error }
    };
    if model.config.local_attention.is_some() {
        let reason = "the config of a GPT-2 has no words for local attention";
        return Err(failed(folder)(io::Error::new(io::ErrorKind::InvalidInput, reason)));
    }
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let weights = folder.join("model.safetensors");
    let parameters = model.parameters().into_iter().map(|(name, x)| (name, x.shape(), to_bytes(x, numbers)));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let bytes = to_safetensors(parameters.collect(), numbers, metadata).map_err(failed(&weights))?;
    let mut files = vec![(weights, bytes)];
    files.push((folder.join("config.json"), format!("{:#}\n", to_json(model)).into_bytes()));
    if let Some(known) = known {
        files.push((folder.join("known_tokens.json"), json!(known).to_string().into_bytes()));
    }
    let parts = files.iter().map(|(path, bytes)| Part::with_bytes(path, bytes).map_err(failed(path)));
    let parts = parts.collect::<Result<Vec<Part>, Error>>()?;
    files::publish_all(parts, |_| Ok(false)).map_err(|(path, error)| Error::Write { path, error })
}

/// The numbers of a file are little-endian.
fn to_bytes(x: &Tensor, numbers: Numbers) -> Vec<u8> {
    match numbers {
        Numbers::F32 => x.data().iter().flat_map(|x| x.to_le_bytes()).collect(),
        Numbers::F16 => x.data().iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
    }
}

/// Tensors under their names, with their shapes and bytes.
type Named<'a> = Vec<(String, &'a [usize], Vec<u8>)>;

fn to_safetensors(
    tensors: Named<'_>,
    numbers: Numbers,
    metadata: HashMap<String, String>,
) -> io::Result<Vec<u8>> {
    let dtype = match numbers {
        Numbers::F32 => Dtype::F32,
        Numbers::F16 => Dtype::F16,
    };
    let views = tensors.iter().map(|(name, shape, bytes)| {
        TensorView::new(dtype, shape.to_vec(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)
}

/// The parts of a trainer that are tensors: the model, and the two moments of AdamW.
const MODELS: [&str; 3] = ["model", "m", "v"];
/// The losses of all steps.
const LOSSES: &str = "losses";

/// Writes a training that is to go on: parameters, moments, the number of steps, the losses, and words that say which
/// training it is. A file of this name is replaced.
///
/// # Errors
/// If the file cannot be written.
pub fn save_training(
    trainer: &Trainer,
    losses: &[f32],
    mut words: HashMap<String, String>,
    path: &Path,
) -> Result<(), Error> {
    let models = MODELS.into_iter().zip([&trainer.model, &trainer.moments[0], &trainer.moments[1]]);
    let mut tensors: Named<'_> = Vec::new();
    for (prefix, model) in models {
        let parameters = model.parameters().into_iter();
        tensors.extend(
            parameters.map(|(name, x)| (format!("{prefix}.{name}"), x.shape(), to_bytes(x, Numbers::F32))),
        );
    }
    let losses = Tensor::new(&[losses.len()], losses.to_vec());
    tensors.push((LOSSES.to_owned(), losses.shape(), to_bytes(&losses, Numbers::F32)));
    words.insert("steps_done".to_owned(), trainer.steps().to_string());
    let written = to_safetensors(tensors, Numbers::F32, words)
        .and_then(|bytes| Part::with_bytes(path, &bytes))
        .and_then(|part| part.publish(|_| Ok(true)));
    written.map_err(|error| Error::Write { path: path.to_owned(), error })
}

/// A file of [`save_training`].
pub struct SavedTraining {
    path: PathBuf,
    bytes: Vec<u8>,
    words: HashMap<String, String>,
}

impl SavedTraining {
    /// A larger file is not one of a training of today.
    const MOST_BYTES: u64 = 1 << 30;

    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read, or is not a safetensors file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let failed = |reason: String| Error::Read { path: path.to_owned(), reason };
        let bytes = files::read(path, Self::MOST_BYTES).map_err(|error| failed(error.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|error| failed(error.to_string()))?;
        let words = header.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.to_owned(), bytes, words })
    }

    /// A whole number among the words.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn number(&self, name: &str) -> Result<u64, Error> {
        let number = self.words.get(name).and_then(|number| number.parse().ok());
        number.ok_or_else(|| self.failed(format!("it does not say \"{name}\"")))
    }

    /// Puts parameters, moments and the number of steps into a trainer of the same sizes, and gives the losses.
    ///
    /// # Errors
    /// If the file has not exactly the tensors of the trainer.
    pub fn restore(&self, trainer: &mut Trainer) -> Result<Vec<f32>, Error> {
        let tensors =
            SafeTensors::deserialize(&self.bytes).map_err(|error| self.failed(error.to_string()))?;
        let step = self.number("steps_done")? as usize;
        let [m, v] = &mut trainer.moments;
        let mut expected = 1;
        for (prefix, model) in MODELS.into_iter().zip([&mut trainer.model, m, v]) {
            for (name, x) in model.parameters_mut() {
                *x = self.take(&tensors, &format!("{prefix}.{name}"), x.shape())?;
                expected += 1;
            }
        }
        if tensors.len() != expected {
            return Err(self.failed(format!("it has {} tensors, not {expected}", tensors.len())));
        }
        trainer.step = step;
        Ok(self.take(&tensors, LOSSES, &[step])?.into_data())
    }

    fn take(&self, tensors: &SafeTensors<'_>, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let view = tensors.tensor(name).map_err(|error| self.failed(error.to_string()))?;
        if view.dtype() != Dtype::F32 || view.shape() != shape {
            let found = format!("{:?} of shape {:?}", view.dtype(), view.shape());
            return Err(self.failed(format!("{name} is {found}, not F32 of shape {shape:?}")));
        }
        let (numbers, _) = view.data().as_chunks::<4>();
        let numbers: Vec<f32> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !tensor::all_finite(&numbers) {
            return Err(self.failed(format!("{name} has numbers that are not finite")));
        }
        Ok(Tensor::new(shape, numbers))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Read { path: self.path.clone(), reason }
    }
}

/// What transformers and this project read of a model.
fn to_json(model: &Gpt2) -> Value {
    let Config {
        vocab_size,
        block_size,
        n_layer,
        n_head,
        n_embd,
        layer_norm_epsilon,
        n_inner,
        activation_function,
        scale_attn_weights,
        scale_attn_by_inverse_layer_idx,
        ..
    } = model.config;
    let mut config = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": vocab_size,
        "n_positions": block_size,
        "n_layer": n_layer,
        "n_head": n_head,
        "n_embd": n_embd,
        "n_inner": n_inner,
        // Printed as f32 first: 1e-5 is not 0.000009999999747378752.
        "layer_norm_epsilon": layer_norm_epsilon.to_string().parse::<f64>().unwrap_or(f64::from(layer_norm_epsilon)),
        "activation_function": activation_function.to_string(),
        "scale_attn_weights": scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": scale_attn_by_inverse_layer_idx,
        "tie_word_embeddings": model.lm_head.is_none(),
    });
    if vocab_size == N_TOKENS {
        config["bos_token_id"] = json!(END_OF_TEXT);
        config["eos_token_id"] = json!(END_OF_TEXT);
    }
    config
}

#[cfg(test)]
mod tests {
    use gpt2::Checkpoint;

    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for seed in 0..8 {
            let sizes = Config {
                vocab_size: 7,
                block_size: 5,
                n_layer: 2,
                n_head: 2,
                n_embd: 8,
                ..Config::default()
            };
            let config = Config { local_attention: None, ..sizes.of_kin(seed) };
            let mut model = Gpt2::random(config, seed);
            if seed & 1 == 1 {
                model.lm_head = Some(Gpt2::random(sizes, seed + 1).wte);
            }
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("new");
            save(&model, Numbers::F32, None, &folder).unwrap();
            let config = Config::from_file(&folder.join("config.json")).unwrap();
            assert_eq!(Config { tie_word_embeddings: None, ..config }, model.config);
            let read = Checkpoint::open(&folder.join("model.safetensors")).unwrap();
            let read = Gpt2::from_checkpoint(config, read).unwrap();
            assert_eq!(read.parameters(), model.parameters());

            let error = save(&model, Numbers::F32, None, &folder).unwrap_err().to_string();
            assert!(error.contains("replace no file"), "{error}");
        }
    }

    #[test]
    fn every_number_of_half_precision_is_read_as_it_was_written() {
        let all = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32());
        let numbers: Vec<f32> = all.filter(|x| x.is_finite()).collect();
        assert_eq!(numbers.len(), 2 * 31 * 1024);
        let sizes = Config {
            vocab_size: 31 * 1024,
            block_size: 2,
            n_layer: 1,
            n_head: 1,
            n_embd: 2,
            ..Config::default()
        };
        let mut model = Gpt2::random(sizes, 1);
        model.wte = Tensor::new(model.wte.shape(), numbers);
        let folder = tempfile::tempdir().unwrap();
        save(&model, Numbers::F16, Some(&[3, 4]), folder.path()).unwrap();
        let mut read = Checkpoint::open(&folder.path().join("model.safetensors")).unwrap();
        let wte = read.take("wte.weight", model.wte.shape()).unwrap();
        let bits = |x: &Tensor| x.data().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        assert_eq!(bits(&wte), bits(&model.wte));
        // Other numbers are rounded to the nearest of these.
        let wpe = read.take("wpe.weight", model.wpe.shape()).unwrap();
        for (read, written) in wpe.data().iter().zip(model.wpe.data()) {
            assert!((read - written).abs() <= written.abs() / 2048.0, "{read} {written}");
        }
        assert_eq!(std::fs::read_to_string(folder.path().join("known_tokens.json")).unwrap(), "[3,4]");
    }

    #[test]
    fn a_training_goes_on_from_its_file_and_from_no_other() {
        let sizes =
            Config { vocab_size: 7, block_size: 5, n_layer: 1, n_head: 2, n_embd: 8, ..Config::default() };
        let fresh = || Trainer::new(Gpt2::random(sizes, 1), crate::TrainerConfig::default());
        let batch = [vec![1, 2, 3, 4].into(), vec![4, 5, 6].into()];
        let mut trainer = fresh();
        let losses = [trainer.step(&batch).loss, trainer.step(&batch).loss];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("training.safetensors");
        for _ in 0..2 {
            let words = HashMap::from([("seed".to_owned(), "17".to_owned())]);
            save_training(&trainer, &losses, words, &path).unwrap();
        }
        let file = SavedTraining::open(&path).unwrap();
        assert_eq!(file.number("seed").unwrap(), 17);
        let mut resumed = fresh();
        assert_eq!(file.restore(&mut resumed).unwrap(), losses);
        assert_eq!(resumed.step(&batch), trainer.step(&batch));
        assert_eq!(resumed.model.parameters(), trainer.model.parameters());

        let fails = |result: Result<Vec<f32>, Error>, words: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        };
        let wider = Gpt2::random(Config { vocab_size: 8, ..sizes }, 1);
        let mut wider = Trainer::new(wider, crate::TrainerConfig::default());
        fails(file.restore(&mut wider), "model.wte.weight is F32 of shape [7, 8], not F32 of shape [8, 8]");
        let shorter = Gpt2::random(Config { n_layer: 0, ..sizes }, 1);
        let mut shorter = Trainer::new(shorter, crate::TrainerConfig::default());
        fails(file.restore(&mut shorter), "it has 49 tensors, not 13");
        std::fs::write(&path, "nothing").unwrap();
        let error = SavedTraining::open(&path).err().unwrap().to_string();
        assert!(error.contains("is not the state of a training"), "{error}");
    }
}
