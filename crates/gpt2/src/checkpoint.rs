//! Parameters out of a safetensors file.
//!
//! The file is mapped into memory, and F32 data is used where it lies: the operating system reads
//! it when it is first touched, and keeps it for the next run. Data that is not 4-byte aligned (as
//! in gpt2's own file), F16 and BF16 are copied into `f32` numbers of our own.
//!
//! The header is untrusted: safetensors checks that it describes the file's bytes exactly, and
//! every tensor that the model takes is checked for its name, type, shape and finite numbers.
//!
//! **If the file changes while it is mapped**, what the model computes is undefined: the numbers
//! change under it, and on Unix a file that shrinks ends the process with SIGBUS when a page beyond
//! its end is touched. Weights are written once and then only read; `download-weights` replaces
//! files by renaming, which leaves an open map intact.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde_json::Value;
use tensor::Tensor;

use crate::Error;

/// An open safetensors file whose tensors are taken one by one, under GPT-2's names.
///
/// A name is looked up with and without the prefix `transformer.`. `h.N.attn.bias` and
/// `h.N.attn.masked_bias` are buffers (the causal mask), not parameters: they are passed over.
pub struct Checkpoint {
    path: PathBuf,
    bytes: Arc<Bytes>,
    tensors: BTreeMap<String, Entry>,
}

/// A tensor of the file that has not been taken yet.
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its data lies in the file.
    range: Range<usize>,
}

enum Bytes {
    Mapped(Mmap),
    Memory(Cow<'static, [u8]>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

/// F32 numbers that stay where they lie in the file.
struct InPlace {
    bytes: Arc<Bytes>,
    range: Range<usize>,
}

impl AsRef<[f32]> for InPlace {
    fn as_ref(&self) -> &[f32] {
        // Checked when the tensor was taken: aligned, and whole numbers.
        bytemuck::cast_slice(&(*self.bytes).as_ref()[self.range.clone()])
    }
}

impl Checkpoint {
    /// Maps a safetensors file and reads its header.
    ///
    /// # Errors
    /// If the file cannot be opened, or its header does not describe its bytes exactly.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        if file.metadata().map_err(|e| Error::io(path, e))?.is_dir() {
            return Err(Error::format(path, "it is a folder"));
        }
        // SAFETY: the map is only read. That nobody changes the file meanwhile cannot be ensured
        // from here: the module's documentation says what happens then.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        Self::from_mapped(path, Bytes::Mapped(map))
    }

    /// Reads the bytes of a safetensors file; `path` is only for messages.
    ///
    /// # Errors
    /// If the header does not describe the bytes exactly.
    pub fn from_bytes(path: &Path, bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self, Error> {
        Self::from_mapped(path, Bytes::Memory(bytes.into()))
    }

    fn from_mapped(path: &Path, bytes: Bytes) -> Result<Self, Error> {
        let all = bytes.as_ref();
        let (header_len, header) =
            SafeTensors::read_metadata(all).map_err(|e| Error::format(path, explain(&e, all)))?;
        let data_start = 8 + header_len;
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors() {
            let short = name.strip_prefix("transformer.").unwrap_or(&name);
            if is_buffer(short) {
                continue;
            }
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            let entry = Entry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                range,
            };
            if tensors.insert(short.to_owned(), entry).is_some() {
                let reason = "stands in the file twice, with and without the prefix `transformer.`";
                return Err(Error::tensor(path, short, reason));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            bytes: Arc::new(bytes),
            tensors,
        })
    }

    /// The file, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a tensor of this name is left to take.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// How many blocks `h.0`, `h.1`, … there are without a gap.
    pub fn count_blocks(&self) -> usize {
        (0..)
            .take_while(|i| self.contains(&format!("h.{i}.ln_1.weight")))
            .count()
    }

    /// The shape of a tensor that must be a matrix.
    ///
    /// # Errors
    /// If it is missing or has another number of axes.
    pub fn matrix_shape(&self, name: &str) -> Result<[usize; 2], Error> {
        let entry = self.tensors.get(name).ok_or_else(|| self.missing(name))?;
        <[usize; 2]>::try_from(entry.shape.as_slice()).map_err(|_| {
            Error::tensor(
                &self.path,
                name,
                format!("has shape {:?}; two axes are expected", entry.shape),
            )
        })
    }

    /// Takes a tensor out of the checkpoint.
    ///
    /// # Errors
    /// If it is missing, has another shape or a type other than F32, F16 and BF16, or holds a NaN
    /// or an infinity.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Tensor, Error> {
        let fail = |reason: String| Error::tensor(&self.path, name, reason);
        let entry = self
            .tensors
            .remove(name)
            .ok_or_else(|| self.missing(name))?;
        if entry.shape != shape {
            return Err(fail(format!(
                "has shape {:?}; {shape:?} is expected",
                entry.shape
            )));
        }
        let bytes = &(*self.bytes).as_ref()[entry.range.clone()];
        let tensor = match entry.dtype {
            Dtype::F32
                if bytemuck::try_cast_slice::<u8, f32>(bytes).is_ok()
                    && cfg!(target_endian = "little") =>
            {
                let in_place = InPlace {
                    bytes: self.bytes.clone(),
                    range: entry.range,
                };
                Tensor::shared(shape, Arc::new(in_place))
            }
            Dtype::F32 => Tensor::new(shape, convert(bytes, f32::from_le_bytes)),
            Dtype::F16 => Tensor::new(
                shape,
                convert(bytes, |b| half::f16::from_le_bytes(b).to_f32()),
            ),
            Dtype::BF16 => Tensor::new(
                shape,
                convert(bytes, |b| half::bf16::from_le_bytes(b).to_f32()),
            ),
            other => {
                return Err(fail(format!(
                    "has type {other:?}; F32, F16 or BF16 is expected"
                )));
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

    /// Ends the reading: nothing may be left over.
    ///
    /// # Errors
    /// If the file holds a tensor that has not been taken.
    pub fn finish(self) -> Result<(), Error> {
        let Some((name, entry)) = self.tensors.first_key_value() else {
            return Ok(());
        };
        let more = match self.tensors.len() - 1 {
            0 => String::new(),
            n => format!(" ({n} more like it)"),
        };
        let reason = format!(
            "is no part of a GPT-2 of these sizes: {:?} of shape {:?} is left over{more}",
            entry.dtype, entry.shape
        );
        Err(Error::tensor(&self.path, name, reason))
    }

    fn missing(&self, name: &str) -> Error {
        let reason = match self.tensors.len() {
            0 => "is missing; the file holds no tensors".to_owned(),
            n => {
                let some: Vec<&str> = self.tensors.keys().take(3).map(String::as_str).collect();
                format!(
                    "is missing; the file has {n} others ({}, …)",
                    some.join(", ")
                )
            }
        };
        Error::tensor(&self.path, name, reason)
    }
}

/// `h.N.attn.bias` and `h.N.attn.masked_bias`: the causal mask, which some files store.
fn is_buffer(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.next() == Some("h")
        && parts.next().is_some_and(|n| n.parse::<usize>().is_ok())
        && parts.next() == Some("attn")
        && matches!(parts.next(), Some("bias" | "masked_bias"))
        && parts.next().is_none()
}

fn convert<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32 + Sync) -> Vec<f32> {
    let (numbers, rest) = bytes.as_chunks::<N>();
    debug_assert!(
        rest.is_empty(),
        "safetensors checks that the bytes fit the shape"
    );
    numbers
        .par_iter()
        .with_min_len(1 << 16)
        .map(|&bytes| number(bytes))
        .collect()
}

fn first_not_finite(data: &[f32]) -> Option<usize> {
    /// The exponent of NaN and infinity.
    const NOT_FINITE: u32 = 0x7f80_0000;
    const CHUNK: usize = 1 << 16;
    let chunk = data.par_chunks(CHUNK).position_first(|chunk| {
        // No early exit inside a chunk, so that the compiler can use vectors.
        chunk.iter().fold(false, |bad, x| {
            bad | (x.to_bits() & NOT_FINITE == NOT_FINITE)
        })
    })?;
    let start = chunk * CHUNK;
    data[start..]
        .iter()
        .position(|x| !x.is_finite())
        .map(|i| start + i)
}

/// What is wrong with a file that safetensors refuses, in numbers.
fn explain(error: &SafeTensorError, bytes: &[u8]) -> String {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return format!(
            "it has {} bytes; even the length of its header takes 8",
            bytes.len()
        );
    };
    let header_len = u64::from_le_bytes(*length);
    let available = rest.len() as u64;
    if header_len > available {
        return format!(
            "its first 8 bytes announce a header of {header_len} bytes, and only {available} follow: \
             it is cut off, or another kind of file"
        );
    }
    let header = serde_json::from_slice::<BTreeMap<String, Value>>(&rest[..header_len as usize]);
    let Ok(header) = header else {
        return format!("its header cannot be read ({error})");
    };
    find_flaw(&header, available - header_len).unwrap_or_else(|| error.to_string())
}

/// The first tensor, in the order of the data, whose place in the file is impossible.
fn find_flaw(header: &BTreeMap<String, Value>, data_len: u64) -> Option<String> {
    let mut tensors = Vec::new();
    for (name, info) in header.iter().filter(|(name, _)| *name != "__metadata__") {
        let offset = |i: usize| info.get("data_offsets")?.get(i)?.as_u64();
        match (offset(0), offset(1)) {
            (Some(start), Some(end)) if start <= end => tensors.push((start, end, name)),
            _ => return Some(format!("tensor `{name}` has no valid data_offsets")),
        }
    }
    tensors.sort();
    let mut expected = 0;
    for (start, end, name) in tensors {
        if end > data_len {
            return Some(format!(
                "tensor `{name}` lies at bytes {start} to {end} of the data, and the file has only \
                 {data_len} bytes of data: it is cut off"
            ));
        }
        if start != expected {
            return Some(format!(
                "tensor `{name}` starts at byte {start} of the data, where {expected} is expected: the \
                 data has a gap or an overlap"
            ));
        }
        let number_bytes = match header[name].get("dtype").and_then(Value::as_str) {
            Some("F32") => Some(4),
            Some("F16" | "BF16") => Some(2),
            _ => None,
        };
        let shape: Option<Vec<u64>> = header[name]
            .get("shape")
            .and_then(Value::as_array)
            .and_then(|shape| shape.iter().map(Value::as_u64).collect());
        if let (Some(bytes), Some(shape)) = (number_bytes, shape) {
            let size = shape
                .iter()
                .try_fold(bytes, |size: u64, n| size.checked_mul(*n));
            if size != Some(end - start) {
                return Some(format!(
                    "tensor `{name}` of shape {shape:?} lies at bytes {start} to {end} of the data, \
                     which is {} bytes where its shape takes {}",
                    end - start,
                    size.map_or("more than any file has".to_owned(), |size| size.to_string())
                ));
            }
        }
        expected = end;
    }
    (expected < data_len).then(|| {
        format!(
            "its tensors take {expected} bytes of data, and {} bytes follow them",
            data_len - expected
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use safetensors::tensor::TensorView;

    use super::*;
    use crate::{Config, Gpt2, no_hook};

    const SIZES: Config = Config {
        vocab_size: 7,
        block_size: 5,
        n_layer: 2,
        n_head: 2,
        n_embd: 4,
        layer_norm_epsilon: 1e-5,
    };

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
                shapes.push((
                    format!("h.{layer}.{name}.bias"),
                    vec![shape[shape.len() - 1]],
                ));
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
                (
                    name.as_str(),
                    TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
                )
            })
            .collect();
        safetensors::serialize(views, None).unwrap()
    }

    fn load(bytes: Vec<u8>) -> Result<Gpt2, Error> {
        Gpt2::from_checkpoint(
            SIZES,
            Checkpoint::from_bytes(Path::new("x.safetensors"), bytes)?,
        )
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
            assert_eq!(
                model.forward(&[1, 2, 3], &mut no_hook),
                expected,
                "shifted by {by}"
            );
        }
    }

    #[test]
    fn half_precision_is_converted() {
        let tensors = whole_model();
        for dtype in [Dtype::F16, Dtype::BF16] {
            let mut narrow = tensors.clone();
            for (kind, _, bytes) in narrow.values_mut() {
                let numbers = convert(bytes, f32::from_le_bytes);
                *bytes = numbers
                    .iter()
                    .flat_map(|&x| match dtype {
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
    fn a_prefix_and_buffers_change_nothing() {
        let tensors = whole_model();
        let mut other: Tensors = tensors
            .iter()
            .map(|(name, tensor)| (format!("transformer.{name}"), tensor.clone()))
            .collect();
        other.insert(
            "transformer.h.0.attn.bias".into(),
            (Dtype::BOOL, vec![1, 1, 2, 2], vec![1; 4]),
        );
        other.insert(
            "transformer.h.1.attn.masked_bias".into(),
            (Dtype::F32, vec![], vec![0; 4]),
        );
        assert_eq!(logits(file(&other)), logits(file(&tensors)));
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
            (
                "tensor `h.1.mlp.c_fc.weight`: is missing; the file has",
                flaw(&|t| drop(t.remove(name))),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: has shape [16, 4]; [4, 16] is expected",
                flaw(&|t| t.get_mut(name).unwrap().1 = vec![16, 4]),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: has type I32; F32, F16 or BF16 is expected",
                flaw(&|t| t.get_mut(name).unwrap().0 = Dtype::I32),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: number 3 of 64 is NaN; all must be finite",
                flaw(&|t| {
                    t.get_mut(name).unwrap().2[12..16].copy_from_slice(&f32::NAN.to_le_bytes())
                }),
            ),
            (
                "tensor `h.1.mlp.c_fc.weight`: number 63 of 64 is -inf; all must be finite",
                flaw(&|t| {
                    t.get_mut(name).unwrap().2[252..]
                        .copy_from_slice(&f32::NEG_INFINITY.to_le_bytes());
                }),
            ),
            (
                "tensor `score.weight`: is no part of a GPT-2 of these sizes: F32 of shape [4] is left over",
                flaw(&|t| {
                    drop(t.insert("score.weight".into(), (Dtype::F32, vec![4], vec![0; 16])))
                }),
            ),
            (
                "tensor `wte.weight`: stands in the file twice",
                flaw(&|t| drop(t.insert("transformer.wte.weight".into(), t["wte.weight"].clone()))),
            ),
        ] {
            assert!(
                error.contains(message),
                "{error}\n    instead of\n{message}"
            );
        }
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
            (
                "it has 0 bytes; even the length of its header takes 8",
                vec![],
            ),
            ("it has 3 bytes", vec![1, 2, 3]),
            (
                "announce a header of 18446744073709551615 bytes, and only 4 follow",
                vec![255; 12],
            ),
            ("of the data, and the file has only", cut(8)),
            ("it is cut off", cut(1)),
            ("and 3 bytes follow them", [&whole[..], &[0, 0, 0]].concat()),
            ("its header cannot be read", with_header("{\"a\":", 0)),
            (
                "tensor `a` has no valid data_offsets",
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
                    4,
                ),
            ),
            (
                "tensor `a` has no valid data_offsets",
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[-1,4]}}"#,
                    4,
                ),
            ),
            (
                "tensor `a` of shape [2] lies at bytes 0 to 4 of the data, which is 4 bytes where its shape takes 8",
                with_header(
                    r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
                    4,
                ),
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
            assert!(
                error.contains(message),
                "{error}\n    instead of\n{message}"
            );
            assert!(
                error.starts_with("x.safetensors: not a whole safetensors file: "),
                "{error}"
            );
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
}
