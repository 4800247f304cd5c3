//! NumPy's `.npy` format, version 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Own code, because the format is a magic string, a length and a line of Python, and the libraries for
//! it bring parsers of Python or arrays of their own.

use crate::{Error, Grid};

/// What every file begins with, and the version of those that we write.
const MAGIC: &[u8] = b"\x93NUMPY";
const VERSION: [u8; 2] = [1, 0];
/// Data begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// The numbers of a grid as the bytes of a file.
///
/// # Errors
/// As [`Grid::check`].
pub fn write_npy(grid: &Grid) -> Result<Vec<u8>, Error> {
    grid.check()?;
    Ok(encode(&grid.shape(), &grid.values))
}

/// An array of `f32` in C order, of at most [`MAX_AXES`](crate::MAX_AXES) axes, as the bytes of a file.
pub(crate) fn encode(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut lengths: String = shape.iter().map(|length| format!("{length}, ")).collect();
    if shape.len() > 1 {
        lengths.truncate(lengths.len() - 2);
    }
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({lengths}), }}");
    let before = MAGIC.len() + VERSION.len() + 2;
    let padding =
        (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before - header.len() - 1;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    // So few axes cannot fill the 65,535 bytes that a header may have.
    let length = header.len() as u16;
    let mut bytes = [MAGIC, &VERSION, &length.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The shape and the numbers of an array of floats.
///
/// # Errors
/// What is wrong with the file, or what of it is not supported.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let cut_off = || "the file is cut off".to_owned();
    let rest = bytes
        .strip_prefix(MAGIC)
        .ok_or("it does not begin as an .npy file does")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().ok_or_else(cut_off)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("version {other} of the format is not known")),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(cut_off)?;
    let header = String::from_utf8_lossy(header);
    if entry(&header, "fortran_order")?.starts_with("True") {
        return Err("it is in Fortran order: save numpy.ascontiguousarray(array)".to_owned());
    }
    let lengths = entry(&header, "shape")?
        .strip_prefix('(')
        .and_then(|shape| shape.split_once(')'))
        .map(|(lengths, _)| lengths.split(',').map(str::trim))
        .ok_or("its header has no shape")?;
    let shape: Vec<usize> = lengths
        .filter(|length| !length.is_empty())
        .map(|length| {
            length
                .parse()
                .map_err(|_| format!("{length:?} is no length"))
        })
        .collect::<Result<_, _>>()?;
    let kind = entry(&header, "descr")?;
    let kind = kind.trim_start_matches(['\'', '"']);
    let values: Vec<f32> = if kind.starts_with("<f4") {
        let chunks = data.chunks_exact(4);
        chunks
            .map(|chunk| f32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]))
            .collect()
    } else if kind.starts_with("<f8") {
        let chunks = data.chunks_exact(8);
        chunks
            .map(|chunk| f64::from_le_bytes(std::array::from_fn(|at| chunk[at])) as f32)
            .collect()
    } else {
        return Err("its numbers are not floats: save array.astype(\"<f4\")".to_owned());
    };
    let count = shape
        .iter()
        .try_fold(1_usize, |product, &length| product.checked_mul(length));
    match count == Some(values.len()) {
        true => Ok((shape, values)),
        false => Err(format!(
            "its header says {shape:?}, and it holds {} numbers",
            values.len()
        )),
    }
}

/// What follows a key of the header, which is the text of a Python dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no {key:?}");
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let after = quoted
        .iter()
        .find_map(|quoted| header.split_once(quoted.as_str()))
        .ok_or_else(missing)?
        .1;
    let value = after.trim_start().strip_prefix(':').ok_or_else(missing)?;
    Ok(value.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_every_rank_are_read_back_bit_by_bit() {
        let values = [1.5, -0.0, f32::NAN, f32::NEG_INFINITY, 1e-40, 7.0];
        for shape in [vec![6], vec![2, 3], vec![1, 6], vec![3, 1, 2]] {
            let bytes = encode(&shape, &values);
            assert_eq!(
                (bytes.len() - 4 * values.len()) % 64,
                0,
                "the data are aligned"
            );
            let (read, back) = decode(&bytes).unwrap();
            assert_eq!(read, shape);
            assert_eq!(
                back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(),
                values.map(f32::to_bits)
            );
        }
        assert_eq!(decode(&encode(&[], &[2.0])), Ok((vec![], vec![2.0])));
        assert_eq!(decode(&encode(&[0, 3], &[])), Ok((vec![0, 3], vec![])));
    }

    #[test]
    fn the_header_is_what_numpy_writes() {
        let bytes = encode(&[2], &[0.0, 1.0]);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(
            bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, ), }")
        );
        assert_eq!(bytes[127], b'\n');
    }

    #[test]
    fn broken_and_foreign_files_are_told_apart() {
        let whole = encode(&[2, 2], &[0.0; 4]);
        let with = |from: &str, to: &str| {
            let text = String::from_utf8_lossy(&whole[10..]).replace(from, to);
            [&whole[..10], text.as_bytes()].concat()
        };
        for (bytes, message) in [
            (b"PK".to_vec(), "does not begin as an .npy file"),
            (whole[..9].to_vec(), "cut off"),
            (whole[..60].to_vec(), "cut off"),
            (whole[..whole.len() - 4].to_vec(), "it holds 3 numbers"),
            (with("False", "True "), "Fortran order"),
            (with("<f4", "<i8"), "not floats"),
            (with("shape", "shapf"), "no \"shape\""),
            (with("(2, 2)", "(2, x)"), "\"x\" is no length"),
            (with("(2, 2), }", "(99999999999, 99999999999)"), "it holds"),
        ] {
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains(message), "{error} instead of {message}");
        }
    }
}
