//! One safetensors file: its bytes, mapped or in memory, and its header.
//!
//! The header is untrusted. Its length is bounded, safetensors checks that types, shapes and places
//! of the tensors agree and that the tensors follow each other without a gap, and [`DataFile::entries`]
//! checks that they end where the file ends: so every place lies in the file.

#![allow(unsafe_code, reason = "a file is mapped into memory")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::Error;
use crate::files::{self, MAX_TEXT_BYTES};
use visible::visible_line;

/// A safetensors file.
pub(super) struct DataFile {
    /// For messages.
    pub(super) path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Mapped { map: Mmap, file: File, state: State },
    Memory(Cow<'static, [u8]>),
}

/// Its length in bytes and when it was last written, which show whether a file was changed.
type State = (u64, Option<SystemTime>);

/// A tensor of a file.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Where its data lies in the file.
    pub(super) range: Range<usize>,
}

impl DataFile {
    /// Maps a file into memory.
    pub(super) fn map(path: &Path) -> Result<Self, Error> {
        let file = files::open(path)?;
        let fail = |error| Error::io(path, error);
        let state = state(&file).map_err(fail)?;
        // SAFETY: the map is only read. Other programs may change the file meanwhile: the documentation of
        // `checkpoint` says what happens then.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        Ok(Self { path: path.to_owned(), bytes: Bytes::Mapped { map, file, state } })
    }

    /// Bytes that were read from somewhere else; `path` is only for messages.
    pub(super) fn memory(path: &Path, bytes: Cow<'static, [u8]>) -> Self {
        Self { path: path.to_owned(), bytes: Bytes::Memory(bytes) }
    }

    /// All bytes of the file.
    pub(super) fn bytes(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::Memory(bytes) => bytes,
        }
    }

    /// Reads bytes of the file from a place on, without touching the map.
    pub(super) fn read_at(&self, start: usize, into: &mut [u8]) -> Result<(), Error> {
        match &self.bytes {
            Bytes::Mapped { file, .. } => {
                let mut file: &File = file;
                file.seek(SeekFrom::Start(start as u64)).and_then(|_| file.read_exact(into)).map_err(
                    |error| match error.kind() {
                        io::ErrorKind::UnexpectedEof => {
                            let reason = "it became shorter while it was read";
                            Error::format(&self.path, reason)
                        }
                        _ => Error::io(&self.path, error),
                    },
                )
            }
            Bytes::Memory(bytes) => {
                into.copy_from_slice(&bytes[start..start + into.len()]);
                Ok(())
            }
        }
    }

    /// Whether the file is still as it was when it was mapped.
    pub(super) fn check_unchanged(&self) -> Result<(), Error> {
        let Bytes::Mapped { file, state: before, .. } = &self.bytes else {
            return Ok(());
        };
        let now = state(file).map_err(|error| Error::io(&self.path, error))?;
        if now == *before {
            return Ok(());
        }
        let reason = format!(
            "it was changed while it was read (it had {} bytes and has {} now): run this again when \
             nothing writes to it",
            before.0, now.0
        );
        Err(Error::format(&self.path, reason))
    }

    /// Every tensor of the file but the buffers, under its name in GPT-2's own files. If several tensors
    /// share one copy, it is listed under all of their names (safetensors' `save_model` writes them into
    /// the metadata).
    pub(super) fn entries(&self) -> Result<BTreeMap<String, Entry>, Error> {
        let (data_start, header) =
            read_header(self.bytes()).map_err(|reason| Error::format(&self.path, reason))?;
        let mut entries = BTreeMap::new();
        for (name, info) in header.tensors() {
            let short = short_name(&name);
            if is_buffer(&short) {
                continue;
            }
            let (start, end) = info.data_offsets;
            let entry = Entry {
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: data_start + start..data_start + end,
            };
            if entries.insert(short.clone(), entry).is_some() {
                let reason = "stands in the file twice, under names that mean the same";
                return Err(Error::tensor(&self.path, &short, reason));
            }
        }
        for (left_out, saved) in header.metadata().iter().flatten() {
            let left_out = short_name(left_out);
            if let Some(entry) = entries.get(&short_name(saved)).cloned()
                && !is_buffer(&left_out)
            {
                entries.entry(left_out).or_insert(entry);
            }
        }
        Ok(entries)
    }
}

fn state(file: &File) -> io::Result<State> {
    let found = file.metadata()?;
    Ok((found.len(), found.modified().ok()))
}

/// A tensor's name without prefixes and without the wrappers of `torch.compile` and of data-parallel
/// training.
pub(super) fn short_name(name: &str) -> String {
    const WRAPPERS: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];
    const PREFIXES: [&str; 3] = ["module.", "model.", "transformer."];
    let mut name = name.to_owned();
    for wrapper in WRAPPERS {
        name = name.replace(wrapper, "");
    }
    let mut short = name.as_str();
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| short.strip_prefix(prefix)) {
        short = rest;
    }
    short.to_owned()
}

/// `h.N.attn.bias` and `h.N.attn.masked_bias`: the causal mask, which some files store.
pub(super) fn is_buffer(name: &str) -> bool {
    let mut parts = name.split('.');
    parts.next() == Some("h")
        && parts.next().is_some_and(|n| n.parse::<usize>().is_ok())
        && parts.next() == Some("attn")
        && matches!(parts.next(), Some("bias" | "masked_bias"))
        && parts.next().is_none()
}

/// The header of a safetensors file, and where the data begins; or what is wrong with it.
///
/// `SafeTensors::read_metadata` does the same but for the bound on the length, and adds up the
/// lengths of hostile tensors without looking for an overflow.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(format!("it has {} bytes; even the length of its header takes 8", bytes.len()));
    };
    let header_len = u64::from_le_bytes(*length);
    if header_len > rest.len() as u64 {
        return Err(format!(
            "its first 8 bytes announce a header of {header_len} bytes, and only {} follow: {}",
            rest.len(),
            guess_kind(bytes)
        ));
    }
    if header_len > MAX_TEXT_BYTES {
        return Err(format!("its header has {header_len} bytes; at most {MAX_TEXT_BYTES} are read"));
    }
    let (header, data) = rest.split_at(header_len as usize);
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| explain(&error, header, data))?;
    // The tensors follow each other from 0 on, so the last one's end bounds them all.
    if metadata.data_len() != data.len() {
        return Err(explain(&"its tensors do not end where it ends", header, data));
    }
    Ok((8 + header.len(), metadata))
}

/// What a file is that cannot be a safetensors file.
fn guess_kind(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(b"PK\x03\x04") {
        "it is a zip archive, as PyTorch's own pytorch_model.bin is; save the model as safetensors"
    } else if bytes.starts_with(b"version https://git-lfs") {
        "it is a pointer of Git LFS, and not the file; fetch that with git lfs pull"
    } else {
        "it is cut off, or another kind of file"
    }
}

/// What is wrong with a header that safetensors refuses, in numbers.
fn explain(error: &dyn std::fmt::Display, header: &[u8], data: &[u8]) -> String {
    let Ok(header) = serde_json::from_slice::<BTreeMap<String, Value>>(header) else {
        return format!("its header cannot be read ({error})");
    };
    let flaw = find_flaw(&header, data.len() as u64).unwrap_or_else(|| error.to_string());
    // The names of tensors in it may be anything.
    visible_line(&flaw)
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
            let size = shape.iter().try_fold(bytes, |size: u64, n| size.checked_mul(*n));
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
        format!("its tensors take {expected} bytes of data, and {} bytes follow them", data_len - expected)
    })
}
