//! A model as Hugging Face's files: `model.safetensors` and `config.json`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use files::Part;
use gpt2::{Config, Gpt2};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tensor::Tensor;

/// Why a model was not written.
#[derive(Debug)]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// The reason.
    pub error: io::Error,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.error.kind() {
            io::ErrorKind::AlreadyExists => {
                write!(f, "{path} exists, and checkpoints replace no file; give an empty folder")
            }
            _ => write!(f, "{path} cannot be written: {}", self.error),
        }
    }
}

impl std::error::Error for Error {}

/// Writes `model.safetensors` and `config.json` into a folder, which is made if it is missing: both or none.
///
/// # Errors
/// If one of them exists, or cannot be written.
pub fn save(model: &Gpt2, folder: &Path) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error { path, error }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    let [weights, config] = ["model.safetensors", "config.json"].map(|name| folder.join(name));
    let bytes = to_safetensors(model).map_err(failed(&weights))?;
    let text = format!("{:#}\n", to_json(model));
    let parts = [(&weights, bytes.as_slice()), (&config, text.as_bytes())];
    let parts = parts.map(|(path, bytes)| Part::with_bytes(path, bytes).map_err(failed(path)));
    let parts = parts.into_iter().collect::<Result<Vec<Part>, Error>>()?;
    files::publish_all(parts, |_| Ok(false)).map_err(|(path, error)| Error { path, error })
}

/// The parameters under their names, as F32.
fn to_safetensors(model: &Gpt2) -> io::Result<Vec<u8>> {
    // The numbers of the file are little-endian.
    let bytes = |x: &Tensor| x.data().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let parameters: Vec<(String, &[usize], Vec<u8>)> =
        model.parameters().into_iter().map(|(name, x)| (name, x.shape(), bytes(x))).collect();
    let views = parameters.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata)).map_err(io::Error::other)
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
    json!({
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
    })
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
            let mut model = Gpt2::random(sizes.of_kin(seed), seed);
            if seed & 1 == 1 {
                model.lm_head = Some(Gpt2::random(sizes, seed + 1).wte);
            }
            let folder = tempfile::tempdir().unwrap();
            let folder = folder.path().join("new");
            save(&model, &folder).unwrap();
            let config = Config::from_file(&folder.join("config.json")).unwrap();
            assert_eq!(Config { tie_word_embeddings: None, ..config }, model.config);
            let read = Checkpoint::open(&folder.join("model.safetensors")).unwrap();
            let read = Gpt2::from_checkpoint(config, read).unwrap();
            assert_eq!(read.parameters(), model.parameters());

            let error = save(&model, &folder).unwrap_err().to_string();
            assert!(error.contains("replace no file"), "{error}");
        }
    }
}
