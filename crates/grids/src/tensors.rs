//! Grids as safetensors.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, Metadata, TensorView};

use crate::{Error, Grid, Study};

/// The key of the metadata that holds the study without its numbers, as JSON.
const STUDY: &str = "study";
/// The key of the header beside those of the tensors.
const RESERVED: &str = "__metadata__";
/// The longest header that the format allows, in bytes.
const MAX_HEADER: u64 = 100_000_000;

/// All grids by name as the bytes of a file, with the study without its numbers, and the most important
/// of its words, in `__metadata__`.
///
/// # Errors
/// As [`Study::check`], if a grid has the name that the format keeps for itself, or if the words are
/// longer than the format allows.
pub fn write_safetensors(study: &Study) -> Result<Vec<u8>, Error> {
    study.check()?;
    let fail = |reason: String| Error::Unwritable { format: "safetensors", reason };
    if study.grids.iter().any(|grid| grid.name == RESERVED) {
        let reason = format!("no grid can have the name {RESERVED:?}");
        return Err(fail(reason));
    }
    let provenance = &study.provenance;
    let metadata = HashMap::from(
        [
            ("software", provenance.software.clone()),
            ("version", provenance.version.clone()),
            ("model", provenance.model.clone()),
            (STUDY, study.words()?),
        ]
        .map(|(key, text)| (key.to_owned(), text)),
    );
    let bytes = |grid: &Grid| -> Vec<u8> {
        let values = grid.values.iter();
        values.flat_map(|value| value.to_le_bytes()).collect()
    };
    let data: Vec<Vec<u8>> = study.grids.iter().map(bytes).collect();
    let fail = |error: safetensors::SafeTensorError| fail(error.to_string());
    let mut views = Vec::new();
    for (grid, data) in study.grids.iter().zip(&data) {
        let view = TensorView::new(Dtype::F32, grid.shape(), data).map_err(fail)?;
        views.push((grid.name.clone(), view));
    }
    safetensors::serialize(views, Some(metadata)).map_err(fail)
}

/// The numbers of each tensor by name with its shape, and the study that our own files hold.
///
/// # Errors
/// What is wrong with the file, or what of it is not supported.
#[allow(clippy::type_complexity, reason = "name, shape, numbers")]
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<(String, Vec<usize>, Vec<f32>)>, Option<Study>), String> {
    let (metadata, data) =
        read_header(bytes).map_err(|reason| format!("not a whole safetensors file: {reason}"))?;
    let words = metadata.metadata().as_ref().and_then(|map| map.get(STUDY));
    let study = match words {
        Some(words) => {
            Some(serde_json::from_str(words).map_err(|e| format!("its metadata are broken: {e}"))?)
        }
        None => None,
    };
    let mut tensors = Vec::new();
    for name in metadata.offset_keys() {
        let Some(info) = metadata.info(&name) else {
            continue;
        };
        if info.dtype != Dtype::F32 {
            return Err(format!(
                "tensor {name:?} is {:?}, and grids are F32: save array.astype(\"float32\")",
                info.dtype
            ));
        }
        let (start, end) = info.data_offsets;
        let numbers = data[start..end].chunks_exact(4);
        let numbers = numbers.map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
        tensors.push((name, info.shape.clone(), numbers.collect()));
    }
    Ok((tensors, study))
}

/// The header of a file, and the data behind it: safetensors checks that shapes and places agree and
/// that the tensors follow each other without a gap, and here is checked that they end where the file
/// ends, so every place lies in the data. `SafeTensors::read_metadata` does the same, but adds up the
/// lengths of hostile tensors without looking for an overflow.
fn read_header(bytes: &[u8]) -> Result<(Metadata, &[u8]), String> {
    let (length, rest) = bytes.split_first_chunk::<8>().ok_or("even the length of its header is missing")?;
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(format!("it announces a header of {length} bytes, and {MAX_HEADER} is the most"));
    }
    let (header, data) = rest.split_at_checked(length as usize).ok_or("its header is cut off")?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    let (expected, found) = (metadata.data_len(), data.len());
    if expected != found {
        return Err(format!("its tensors have {expected} bytes, and {found} follow its header"));
    }
    Ok((metadata, data))
}
