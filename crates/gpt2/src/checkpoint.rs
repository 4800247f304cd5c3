//! Parameters out of a safetensors file, or of several with an index.
//!
//! The file is mapped into memory, and F32 data is used where it lies: the operating system reads
//! it when it is first touched, and caches it for the next run. Data that is not 4-byte aligned (as
//! in gpt2's own file), F64, F16, BF16 and transposed matrices are copied.
//!
//! Headers and indices are untrusted: their length is bounded, every tensor is checked to lie in
//! its file, and those that the model takes for their name, type, shape and finite numbers. No file
//! makes this module panic, or allocate more than a small multiple of the file's own size.
//!
//! # If a file changes while it is mapped
//!
//! Weights are written once and then only read, and `download-weights` replaces files by renaming,
//! which leaves an open map intact. Another program may still write into a mapped file, and nothing can
//! prevent it. What happens then:
//!
//! - **During loading**, a file whose length or modification time has changed is an error of
//!   [`Checkpoint::finish`], so no model is made of it.
//! - **Shrinking**: a page beyond the new end is never read as something else. On Unix, touching it
//!   ends the process with SIGBUS; on Windows, a mapped file cannot be made shorter. Numbers that are
//!   copied are an error if they are gone.
//! - **Overwriting** after loading changes the weights that are mapped, and so the results.
//!   In Rust's terms that is undefined behaviour, which no check here can rule out.
//!
//! If the folder is not trusted, read the file into memory and use [`Checkpoint::from_bytes`], which maps
//! nothing.

mod adapt;
mod families;
mod file;
mod index;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::Dtype;
use tensor::Tensor;

use self::adapt::Layout;
use self::file::{DataFile, Entry};
use crate::{Error, files};

/// Open safetensors files whose tensors are taken one by one, under GPT-2's names.
///
/// A tensor goes by its name in GPT-2's own files, whatever the program that saved it put in front
/// (`transformer.`, `module.`, `_orig_mod.`). `h.N.attn.bias` and `h.N.attn.masked_bias` are buffers (the
/// causal mask), not parameters: they are passed over.
pub struct Checkpoint {
    /// The file, or the index of several.
    path: PathBuf,
    files: Vec<Arc<DataFile>>,
    /// The tensors that have not been taken yet, and which file each is in.
    tensors: BTreeMap<String, (Arc<DataFile>, Entry)>,
    /// How the layout of the file differs from that of GPT-2's own.
    layout: Layout,
}

/// F32 numbers that stay in the mapped file.
struct InPlace {
    file: Arc<DataFile>,
    range: Range<usize>,
}

impl AsRef<[f32]> for InPlace {
    fn as_ref(&self) -> &[f32] {
        // Checked when the tensor was taken: aligned, and whole numbers.
        bytemuck::cast_slice(&self.file.bytes()[self.range.clone()])
    }
}

impl Checkpoint {
    /// Maps a safetensors file and reads its header, or all files of an index
    /// (`model.safetensors.index.json`), which stand beside it.
    ///
    /// # Errors
    /// If a file cannot be opened, its header does not describe its bytes exactly, or the files do
    /// not hold exactly the tensors that the index says.
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.extension().is_some_and(|extension| extension == "json") {
            let index = files::read_text(path)?;
            return Self::from_files(path, &index, &mut |file| DataFile::map(&path.with_file_name(file)));
        }
        Self::from_file(path, DataFile::map(path)?)
    }

    /// Reads the bytes of a safetensors file; `path` is only for messages.
    ///
    /// # Errors
    /// If the header does not describe the bytes exactly.
    pub fn from_bytes(path: &Path, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, Error> {
        Self::from_file(path, DataFile::memory(path, bytes.into()))
    }

    /// Reads the text of an index and the bytes of its files, which `read` gives by name; `path` is
    /// only for messages.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_shards(
        path: &Path,
        index: &str,
        read: &mut dyn FnMut(&str) -> io::Result<Cow<'static, [u8]>>,
    ) -> Result<Self, Error> {
        Self::from_files(path, index, &mut |file| {
            let path = path.with_file_name(file);
            match read(file) {
                Ok(bytes) => Ok(DataFile::memory(&path, bytes)),
                Err(error) => Err(Error::io(&path, error)),
            }
        })
    }

    fn from_file(path: &Path, file: DataFile) -> Result<Self, Error> {
        let file = Arc::new(file);
        let entries = file.entries()?;
        let in_file = |(name, entry)| (name, (file.clone(), entry));
        Ok(Self {
            path: path.to_owned(),
            tensors: entries.into_iter().map(in_file).collect(),
            files: vec![file],
            layout: Layout::default(),
        })
    }

    fn from_files(
        path: &Path,
        index: &str,
        open: &mut dyn FnMut(&str) -> Result<DataFile, Error>,
    ) -> Result<Self, Error> {
        let mut checkpoint = Self {
            path: path.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            layout: Layout::default(),
        };
        let index = index::read(path, index)?;
        let count = index.len();
        for (file_name, mut expected) in index {
            let file = Arc::new(open(&file_name).map_err(|error| match error {
                Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    let reason =
                        format!("`{file_name}` is not beside it; fetch all {count} files of the checkpoint");
                    Error::index(path, reason)
                }
                error => error,
            })?);
            for (name, entry) in file.entries()? {
                if !expected.remove(&name) {
                    let reason = "is in this file, and the index does not say so";
                    return Err(Error::tensor(&file.path, &name, reason));
                }
                let in_file = (file.clone(), entry);
                if checkpoint.tensors.insert(name.clone(), in_file).is_some() {
                    let reason = "stands in another file of the index as well";
                    return Err(Error::tensor(&file.path, &name, reason));
                }
            }
            if let Some(name) = expected.first() {
                let reason = "is missing; the index says that it is in this file";
                return Err(Error::tensor(&file.path, name, reason));
            }
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    /// The file or the index, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a tensor of this name is left to take.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many blocks `h.0`, `h.1`, … there are without a gap.
    pub fn count_blocks(&self) -> usize {
        (0..).take_while(|i| self.contains(&format!("h.{i}.ln_1.weight"))).count()
    }

    /// The shape of a tensor that must be a matrix.
    ///
    /// # Errors
    /// If it is missing or has another number of axes.
    pub fn matrix_shape(&self, name: &str) -> Result<[usize; 2], Error> {
        let (file, entry) = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        <[usize; 2]>::try_from(entry.shape.as_slice()).map_err(|_| {
            Error::tensor(&file.path, name, format!("has shape {:?}; two axes are expected", entry.shape))
        })
    }

    /// Takes a tensor out of the checkpoint.
    ///
    /// # Errors
    /// If it is missing, has another shape or a type other than F64, F32, F16 and BF16, or holds a NaN
    /// or an infinity.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let (file, entry) = self.tensors.remove(name).ok_or_else(|| self.missing(name))?;
        let fail = |reason: String| Error::tensor(&file.path, name, reason);
        if entry.shape != shape {
            return Err(fail(format!("has shape {:?}; {shape:?} is expected", entry.shape)));
        }
        let range = entry.range.clone();
        let numbers = match entry.dtype {
            Dtype::F32 if is_usable_in_place(&file.bytes()[range.clone()]) => None,
            Dtype::F32 => Some(read(&file, range, f32::from_le_bytes)?),
            Dtype::F64 => Some(read(&file, range, |b| f64::from_le_bytes(b) as f32)?),
            Dtype::F16 => Some(read(&file, range, |b| half::f16::from_le_bytes(b).to_f32())?),
            Dtype::BF16 => Some(read(&file, range, |b| half::bf16::from_le_bytes(b).to_f32())?),
            other => {
                return Err(fail(format!("has type {other:?}; F64, F32, F16 or BF16 is expected")));
            }
        };
        let tensor = match numbers {
            Some(numbers) => Tensor::new(shape, numbers),
            None => {
                let in_place = InPlace { file: file.clone(), range: entry.range };
                Tensor::shared(shape, Arc::new(in_place))
            }
        };
        match first_not_finite(tensor.data()) {
            None => Ok(tensor),
            Some(i) => Err(fail(format!(
                "number {i} of {} is {}; all must be finite",
                tensor.data().len(),
                tensor.data()[i]
            ))),
        }
    }

    /// Checks that no tensor is left over and that the files have not changed since they were opened.
    ///
    /// # Errors
    /// If a file holds a tensor that has not been taken, or was changed since it was opened.
    pub fn finish(self) -> Result<(), Error> {
        let Some((name, (file, entry))) = self.tensors.first_key_value() else {
            return self.files.iter().try_for_each(|file| file.check_unchanged());
        };
        let more = match self.tensors.len() - 1 {
            0 => String::new(),
            n => format!(" ({n} more like it)"),
        };
        let reason = format!(
            "is not part of a GPT-2 of these sizes: {:?} of shape {:?} is left over{more}",
            entry.dtype, entry.shape
        );
        Err(Error::tensor(&file.path, name, reason))
    }

    fn missing(&self, name: &str) -> Error {
        let reason = match self.tensors.len() {
            0 => "is missing; the file holds no tensors".to_owned(),
            n => {
                let some: Vec<&str> = self.tensors.keys().take(3).map(String::as_str).collect();
                format!("is missing; the file has {n} others ({}, …)", some.join(", "))
            }
        };
        Error::tensor(&self.path, name, reason)
    }
}

/// Whether these bytes can be used in place as F32 numbers.
fn is_usable_in_place(bytes: &[u8]) -> bool {
    bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok() && cfg!(target_endian = "little")
}

/// Copies numbers of `N` bytes each. They are read from the file and not through the map, because pages of
/// the map would count as this process's memory afterwards.
fn read<const N: usize>(
    file: &DataFile,
    range: Range<usize>,
    number: impl Fn([u8; N]) -> f32 + Sync,
) -> Result<Vec<f32>, Error> {
    /// A multiple of every `N`, and small enough to stay in a processor's cache.
    const CHUNK: usize = 1 << 18;
    let mut numbers = Vec::with_capacity(range.len() / N);
    let mut buffer = vec![0; CHUNK.min(range.len())];
    for start in range.clone().step_by(CHUNK) {
        let part = &mut buffer[..CHUNK.min(range.end - start)];
        file.read_at(start, part)?;
        let (chunks, rest) = part.as_chunks::<N>();
        debug_assert!(rest.is_empty(), "the header was checked for that");
        numbers.par_extend(chunks.par_iter().with_min_len(1 << 14).map(|&b| number(b)));
    }
    Ok(numbers)
}

fn first_not_finite(data: &[f32]) -> Option<usize> {
    /// The exponent of NaN and infinity.
    const NOT_FINITE: u32 = 0x7f80_0000;
    const CHUNK: usize = 1 << 16;
    let chunk = data.par_chunks(CHUNK).position_first(|chunk| {
        // No early exit inside a chunk, so that the compiler can use vectors.
        chunk.iter().fold(false, |bad, x| bad | (x.to_bits() & NOT_FINITE == NOT_FINITE))
    })?;
    let start = chunk * CHUNK;
    data[start..].iter().position(|x| !x.is_finite()).map(|i| start + i)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;
    use serde_json::Value;

    use super::*;
    use crate::{Config, Gpt2, no_hook};

    const SIZES: Config =
        Config { vocab_size: 7, block_size: 5, n_layer: 2, n_head: 2, n_embd: 4, ..Config::GPT2 };

    /// The tensors of a whole small model by name.
    type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

    fn whole_model() -> Tensors {
        let c = SIZES.n_embd;
        let mut shapes = vec![
            ("wte.weight".to_owned(), vec![SIZES.vocab_size, c]),
            ("wpe.weight".to_owned(), vec![SIZES.block_size, c]),
            ("ln_f.weight".to_owned(), vec![c]),
            ("ln_f.bias".to_owned(), vec![c]),
        ];
        for layer in 0..SIZES.n_layer {
            for (name, shape) in [
                ("ln_1", vec![c]),
                ("ln_2", vec![c]),
                ("attn.c_attn", vec![c, 3 * c]),
                ("attn.c_proj", vec![c, c]),
                ("mlp.c_fc", vec![c, 4 * c]),
                ("mlp.c_proj", vec![4 * c, c]),
            ] {
                shapes.push((format!("h.{layer}.{name}.bias"), vec![shape[shape.len() - 1]]));
                shapes.push((format!("h.{layer}.{name}.weight"), shape));
            }
        }
        let mut state = 1_u32;
        let number = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Multiples of 1/128 below 1 are the same numbers in F32, F16 and BF16.
            ((state >> 24) as f32 - 128.0) / 128.0
        };
        let mut number = number;
        shapes
            .into_iter()
            .map(|(name, shape)| {
                let n = shape.iter().product();
                let numbers: Vec<f32> = (0..n).map(&mut number).collect();
                let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                (name, (Dtype::F32, shape, bytes))
            })
            .collect()
    }

    fn file(tensors: &Tensors) -> Vec<u8> {
        let views: HashMap<&str, TensorView<'_>> = tensors
            .iter()
            .map(|(name, (dtype, shape, bytes))| {
                (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    }

    fn load(bytes: Vec<u8>) -> Result<Gpt2, Error> {
        Gpt2::from_checkpoint(SIZES, Checkpoint::from_bytes(Path::new("x.safetensors"), bytes)?)
    }

    fn logits(bytes: Vec<u8>) -> Tensor {
        load(bytes).unwrap().forward(&[1, 2, 3], &mut no_hook)
    }

    /// Spaces at the end of the header shift the data, and change nothing else.
    fn shift_data(bytes: &[u8], by: u64) -> Vec<u8> {
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        let (header, data) = bytes[8..].split_at(header_len as usize);
        let padding = vec![b' '; by as usize];
        [&(header_len + by).to_le_bytes(), header, &padding, data].concat()
    }

    #[test]
    fn aligned_and_misaligned_files_give_the_same_bits() {
        let bytes = file(&whole_model());
        let folder = tempfile::tempdir().unwrap();
        let expected = logits(bytes.clone());
        for by in 0..4 {
            let path = folder.path().join("model.safetensors");
            std::fs::write(&path, shift_data(&bytes, by)).unwrap();
            let model = Gpt2::from_checkpoint(SIZES, Checkpoint::open(&path).unwrap()).unwrap();
            assert_eq!(model.forward(&[1, 2, 3], &mut no_hook), expected, "shifted by {by}");
        }
    }

    #[test]
    fn half_precision_is_converted() {
        let tensors = whole_model();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let mut narrow = tensors.clone();
            for (kind, _, bytes) in narrow.values_mut() {
                let numbers = bytes.as_chunks::<4>().0.iter();
                *bytes = numbers
                    .map(|number| f32::from_le_bytes(*number))
                    .flat_map(|x| match dtype {
                        Dtype::F16 => half::f16::from_f32(x).to_le_bytes(),
                        _ => half::bf16::from_f32(x).to_le_bytes(),
                    })
                    .collect();
                *kind = dtype;
            }
            assert_eq!(logits(file(&narrow)), logits(file(&tensors)), "{dtype:?}");
        }
    }

    #[test]
    fn what_programs_put_around_names_changes_nothing() {
        let tensors = whole_model();
        for prefix in [
            "transformer.",
            "_orig_mod.",
            "module.transformer.",
            "_orig_mod.module.transformer.",
            "model._fsdp_wrapped_module.transformer._orig_mod.",
        ] {
            let mut other: Tensors =
                tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
            other.insert(format!("{prefix}h.0.attn.bias"), (Dtype::BOOL, vec![1, 1, 2, 2], vec![1; 4]));
            other.insert(format!("{prefix}h.1.attn.masked_bias"), (Dtype::F32, vec![], vec![0; 4]));
            assert_eq!(logits(file(&other)), logits(file(&tensors)), "{prefix}");
        }
    }

    /// What [`Checkpoint::adapt`] says of these tensors.
    fn notes(tensors: &Tensors, config: Config) -> Result<Vec<String>, String> {
        let checkpoint = Checkpoint::from_bytes(Path::new("x"), file(tensors));
        let notes = checkpoint.unwrap().adapt(&config);
        notes.map_err(|error| error.to_string())
    }

    /// The numbers of a matrix the other way round.
    fn transpose((_, shape, bytes): &mut (Dtype, Vec<usize>, Vec<u8>)) {
        let (rows, cols) = (shape[0], shape[1]);
        let numbers = bytes.as_chunks::<4>().0;
        let column = |j: usize| (0..rows).map(move |i| numbers[i * cols + j]);
        *bytes = (0..cols).flat_map(column).flatten().collect();
        *shape = vec![cols, rows];
    }

    #[test]
    fn weights_that_lie_as_in_nanogpt_are_transposed() {
        let mut tensors = whole_model();
        let expected = logits(file(&tensors));
        for (name, tensor) in &mut tensors {
            let is_linear = name.contains("attn.c_") || name.contains("mlp.c_");
            if is_linear && name.ends_with(".weight") {
                transpose(tensor);
            }
        }
        assert_eq!(logits(file(&tensors)), expected);
        // One of them the other way round is a flaw, not a second layout.
        transpose(tensors.get_mut("h.1.mlp.c_fc.weight").unwrap());
        let error = load(file(&tensors)).unwrap_err().to_string();
        assert!(error.contains("h.1.mlp.c_fc.weight`: has shape [4, 16]; [16, 4]"), "{error}");
    }

    #[test]
    fn weights_without_any_bias_have_zeros_and_say_so() {
        let mut tensors = whole_model();
        for (name, (_, _, bytes)) in &mut tensors {
            if name.ends_with(".bias") {
                bytes.fill(0);
            }
        }
        let expected = logits(file(&tensors));
        tensors.retain(|name, _| !name.ends_with(".bias"));
        assert_eq!(logits(file(&tensors)), expected);
        assert!(notes(&tensors, SIZES).unwrap()[0].contains("no biases"));
    }

    #[test]
    fn double_precision_is_rounded_and_must_fit() {
        let tensors = whole_model();
        let mut wide = tensors.clone();
        for (kind, _, bytes) in wide.values_mut() {
            let numbers = bytes.as_chunks::<4>().0.iter();
            *bytes =
                numbers.flat_map(|number| f64::from(f32::from_le_bytes(*number)).to_le_bytes()).collect();
            *kind = Dtype::F64;
        }
        assert_eq!(logits(file(&wide)), logits(file(&tensors)));
        wide.get_mut("ln_f.bias").unwrap().2[..8].copy_from_slice(&1e300_f64.to_le_bytes());
        let error = load(file(&wide)).unwrap_err().to_string();
        assert!(error.contains("number 0 of 4 is inf"), "{error}");
    }

    #[test]
    fn heads_for_other_tasks_are_passed_over_and_named() {
        let mut tensors = whole_model();
        let expected = logits(file(&tensors));
        for name in ["multiple_choice_head.summary.weight", "v_head.summary.bias"] {
            tensors.insert(name.to_owned(), (Dtype::F32, vec![1], vec![0; 4]));
        }
        assert_eq!(logits(file(&tensors)), expected);
        let notes = notes(&tensors, SIZES).unwrap();
        assert!(notes[0].contains("multiple_choice_head.summary.weight, v_head"));
    }

    #[test]
    fn a_tied_head_that_was_saved_once_is_both() {
        let mut tensors = whole_model();
        let expected = logits(file(&tensors));
        let tied = |tied| Config { tie_word_embeddings: tied, ..SIZES };
        let wte = tensors.remove("wte.weight").unwrap();
        tensors.insert("lm_head.weight".into(), wte.clone());
        assert_eq!(logits(file(&tensors)), expected);
        assert!(notes(&tensors, SIZES).unwrap()[0].contains("wte.weight is missing"));
        assert!(notes(&tensors, tied(Some(true))).unwrap().is_empty());
        // Where the config says that they are two, one of them is lost.
        let untied = Gpt2::from_checkpoint(
            tied(Some(false)),
            Checkpoint::from_bytes(Path::new("x"), file(&tensors)).unwrap(),
        );
        let error = untied.unwrap_err().to_string();
        assert!(error.contains("`wte.weight`: is missing"), "{error}");
        tensors.remove("lm_head.weight");
        tensors.insert("wte.weight".into(), wte.clone());
        let error = notes(&tensors, tied(Some(false))).unwrap_err();
        assert!(error.contains("`lm_head.weight`: is missing; the config says"));
        // Two that differ are an error only where the config says that they do not.
        let mut other = wte;
        other.2[0] ^= 1;
        tensors.insert("lm_head.weight".into(), other);
        assert!(notes(&tensors, tied(Some(false))).unwrap().is_empty());
        assert!(notes(&tensors, SIZES).unwrap()[0].contains("made with lm_head.weight"));
        let error = notes(&tensors, tied(Some(true))).unwrap_err();
        assert!(error.contains("is not the same as wte.weight"), "{error}");
    }

    #[test]
    fn what_save_model_leaves_out_is_found_by_the_metadata() {
        let mut tensors = whole_model();
        // Two parameters that are one, as when layers are shared.
        let shared = tensors["h.0.ln_1.weight"].clone();
        tensors.insert("h.1.ln_1.weight".into(), shared);
        let expected = logits(file(&tensors));
        tensors.remove("h.1.ln_1.weight");
        let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (format!("transformer.{name}"), view)
        });
        let [left_out, saved] =
            ["h.1.ln_1.weight", "h.0.ln_1.weight"].map(|name| format!("transformer.{name}"));
        let metadata = HashMap::from([(left_out, saved)]);
        let bytes = safetensors::serialize(views, Some(metadata)).unwrap();
        assert_eq!(logits(bytes), expected);
    }

    #[test]
    fn a_separate_lm_head_is_used() {
        let mut tensors = whole_model();
        let tied = logits(file(&tensors));
        let wte = tensors["wte.weight"].clone();
        tensors.insert("lm_head.weight".into(), wte);
        assert_eq!(logits(file(&tensors)), tied);
        if let Some((_, _, bytes)) = tensors.get_mut("lm_head.weight") {
            bytes.fill(0);
        }
        assert!(logits(file(&tensors)).data().iter().all(|x| *x == 0.0));
    }

    #[test]
    fn every_flaw_of_a_tensor_is_an_error_that_names_it() {
        let flaw = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors = whole_model();
            change(&mut tensors);
            load(file(&tensors)).unwrap_err().to_string()
        };
        let name = "h.1.mlp.c_fc.weight";
        for (message, error) in [
            ("tensor `h.1.mlp.c_fc.weight`: is missing; the file has", flaw(&|t| drop(t.remove(name)))),
            (
                "tensor `h.1.mlp.c_fc.weight`: has shape [16, 4]; [4, 16] is expected",
                flaw(&|t| t.get_mut(name).unwrap().1 = vec![16, 4]),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: has type I32; F64, F32, F16 or BF16 is expected",
                flaw(&|t| t.get_mut(name).unwrap().0 = Dtype::I32),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: number 3 of 64 is NaN; all must be finite",
                flaw(&|t| t.get_mut(name).unwrap().2[12..16].copy_from_slice(&f32::NAN.to_le_bytes())),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: number 63 of 64 is -inf; all must be finite",
                flaw(&|t| {
                    t.get_mut(name).unwrap().2[252..].copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
                }),
            ),
            (
                "tensor `extra.weight`: is not part of a GPT-2 of these sizes: F32 of shape [4] is left over",
                flaw(&|t| drop(t.insert("extra.weight".into(), (Dtype::F32, vec![4], vec![0; 16])))),
            ),
            (
                "tensor `wte.weight`: stands in the file twice",
                flaw(&|t| drop(t.insert("transformer.wte.weight".into(), t["wte.weight"].clone()))),
            ),
        ] {
            assert!(error.contains(message), "{error}\n    instead of\n{message}");
        }
    }

    fn lengths_beyond_all_files() -> String {
        const LENGTH: u64 = (1 << 61) - 1;
        let tensor = |i: u64, start: u64, end: u64| {
            let length = end - start;
            format!(r#""{i}":{{"dtype":"U8","shape":[{length}],"data_offsets":[{start},{end}]}}"#)
        };
        let mut tensors: Vec<String> = (0..8).map(|i| tensor(i, i * LENGTH, (i + 1) * LENGTH)).collect();
        tensors.push(tensor(8, 8 * LENGTH, u64::MAX));
        format!("{{{}}}", tensors.join(","))
    }

    #[test]
    fn every_flaw_of_a_file_is_an_error_that_says_where() {
        let whole = file(&whole_model());
        let with_header = |header: &str, data: usize| {
            let length = (header.len() as u64).to_le_bytes();
            [&length[..], header.as_bytes(), &vec![0; data]].concat()
        };
        let cut = |n: usize| whole[..whole.len() - n].to_vec();
        for (message, bytes) in [
            ("it has 0 bytes; even the length of its header takes 8", vec![]),
            ("it has 3 bytes", vec![1, 2, 3]),
            ("it is a zip archive", b"PK\x03\x04 and so on".to_vec()),
            ("it is a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1".to_vec()),
            (
                "its header has 4194305 bytes; at most 4194304 are read",
                with_header(&" ".repeat((4 << 20) + 1), 0),
            ),
            // Nine tensors whose lengths are fine one by one, and add up to 2^64 − 1 bytes.
            (
                "tensor `0` lies at bytes 0 to 2305843009213693951 of the data, and the file has only 4",
                with_header(&lengths_beyond_all_files(), 4),
            ),
            ("announce a header of 18446744073709551615 bytes, and only 4 follow", vec![255; 12]),
            ("of the data, and the file has only", cut(8)),
            ("it is cut off", cut(1)),
            ("and 3 bytes follow them", [&whole[..], &[0, 0, 0]].concat()),
            ("its header cannot be read", with_header("{\"a\":", 0)),
            (
                "tensor `a` has no valid data_offsets",
                with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#, 4),
            ),
            (
                "tensor `a` has no valid data_offsets",
                with_header(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-1,4]}}"#, 4),
            ),
            (
                "tensor `a` of shape [2] lies at bytes 0 to 4 of the data, which is 4 bytes where its shape takes 8",
                with_header(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#, 4),
            ),
            (
                "where its shape takes more than any file has",
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9],"data_offsets":[0,4]}}"#,
                    4,
                ),
            ),
            (
                "tensor `b` starts at byte 8 of the data, where 4 is expected",
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}"#,
                    12,
                ),
            ),
        ] {
            let error = load(bytes).unwrap_err().to_string();
            assert!(error.contains(message), "{error}\n    instead of\n{message}");
            assert!(error.starts_with("x.safetensors: not a whole safetensors file: "), "{error}");
        }
    }

    #[test]
    fn an_empty_file_and_a_folder_are_refused_by_their_path() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.safetensors");
        std::fs::write(&empty, []).unwrap();
        for path in [folder.path(), &empty, &folder.path().join("none")] {
            let error = Checkpoint::open(path).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }

    /// The tensors of a whole model in two files, and their index.
    fn two_files() -> (Tensors, Tensors, Value) {
        let mut first = whole_model();
        let second = first.split_off("h.1.");
        let file = |name: &&String| {
            if first.contains_key(*name) { "first.safetensors" } else { "second.safetensors" }
        };
        let whole = whole_model();
        let map: BTreeMap<&String, &str> = whole.keys().map(|name| (name, file(&name))).collect();
        let index = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map});
        (first, second, index)
    }

    /// Writes the two files and their index, and loads them.
    fn load_two_files(first: &Tensors, second: &Tensors, index: &Value) -> Result<Gpt2, Error> {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in [
            ("first.safetensors", file(first)),
            ("second.safetensors", file(second)),
            ("x.index.json", index.to_string().into_bytes()),
        ] {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        let checkpoint = Checkpoint::open(&folder.path().join("x.index.json"))?;
        Gpt2::from_checkpoint(SIZES, checkpoint)
    }

    #[test]
    fn several_files_give_the_same_bits_as_one() {
        let (first, second, index) = two_files();
        let model = load_two_files(&first, &second, &index).unwrap();
        assert_eq!(model.forward(&[1, 2, 3], &mut no_hook), logits(file(&whole_model())));
    }

    #[test]
    fn files_that_do_not_hold_what_the_index_says_are_refused() {
        type Change<'a> = &'a dyn Fn(&mut Tensors, &mut Tensors, &mut Value);
        let flaw = |change: Change<'_>| {
            let (mut first, mut second, mut index) = two_files();
            change(&mut first, &mut second, &mut index);
            load_two_files(&first, &second, &index).unwrap_err().to_string()
        };
        let small = || (Dtype::F32, vec![1], vec![0; 4]);
        for (message, error) in [
            (
                "second.safetensors: tensor `wpe.weight`: is missing; the index says that it is in",
                flaw(&|_, second, _| drop(second.remove("wpe.weight"))),
            ),
            (
                "first.safetensors: tensor `extra`: is in this file, and the index does not say so",
                flaw(&|first, _, _| drop(first.insert("extra".into(), small()))),
            ),
            (
                "second.safetensors: tensor `extra`: stands in another file of the index as well",
                flaw(&|first, second, index| {
                    first.insert("extra".into(), small());
                    second.insert("transformer.extra".into(), small());
                    index["weight_map"]["extra"] = "first.safetensors".into();
                    index["weight_map"]["transformer.extra"] = "second.safetensors".into();
                }),
            ),
            (
                "x.index.json: `third` is not beside it; fetch all 3 files of the checkpoint",
                flaw(&|_, _, index| index["weight_map"]["extra"] = "third".into()),
            ),
            (
                "x.index.json: the file of tensor `extra` is \"../third\"",
                flaw(&|_, _, index| index["weight_map"]["extra"] = "../third".into()),
            ),
            (
                "second.safetensors: tensor `ln_f.bias`: number 0 of 4 is NaN",
                flaw(&|_, second, _| {
                    second.get_mut("ln_f.bias").unwrap().2[..4].copy_from_slice(&f32::NAN.to_le_bytes());
                }),
            ),
        ] {
            assert!(error.contains(message), "{error}\n    instead of\n{message}");
        }
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_gives_no_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let bytes = file(&whole_model());
        std::fs::write(&path, &bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        // Longer, so that reading on is safe; a change of the same length shows by its time.
        std::fs::write(&path, [&bytes[..], b"more"].concat()).unwrap();
        let error = Gpt2::from_checkpoint(SIZES, checkpoint).unwrap_err().to_string();
        let lengths = format!("it had {} bytes and has {} now", bytes.len(), bytes.len() + 4);
        assert!(error.contains("it was changed while it was read"), "{error}");
        assert!(error.contains(&lengths), "{error}");
    }

    #[test]
    fn a_file_that_shrinks_before_its_numbers_are_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        // Shifted by one byte, so that nothing is used in the map.
        let bytes = shift_data(&file(&whole_model()), 1);
        std::fs::write(&path, &bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(bytes.len() as u64 / 2).unwrap();
        let error = Gpt2::from_checkpoint(SIZES, checkpoint).unwrap_err().to_string();
        assert!(error.contains("it became shorter while it was read"), "{error}");
    }

    #[test]
    fn a_file_that_is_replaced_by_renaming_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let bytes = file(&whole_model());
        std::fs::write(&path, &bytes).unwrap();
        let checkpoint = Checkpoint::open(&path).unwrap();
        std::fs::write(folder.path().join("new"), "").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        let model = Gpt2::from_checkpoint(SIZES, checkpoint).unwrap();
        assert_eq!(model.forward(&[1, 2, 3], &mut no_hook), logits(bytes));
    }
}
