//! NumPy's `.npy` format, versions 1 to 3: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! This is our own code, because the format is a magic string, a length and a line of Python, and the
//! libraries for it bring parsers of Python or arrays of their own.

use std::borrow::Cow;

use half::f16;

use crate::{Error, Grid};

/// What every file begins with, and the version of those that we write.
pub(crate) const MAGIC: &[u8] = b"\x93NUMPY";
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
    let padding = (before + header.len() + 1).next_multiple_of(ALIGNMENT) - before - header.len() - 1;
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    // So few axes always fit into the 65,535 bytes that a header may have.
    let length = header.len() as u16;
    let mut bytes = [MAGIC, &VERSION, &length.to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// The shape and the numbers of an array, in C order: floats, integers and truth values (1 and 0) of either
/// byte order, as `numpy.save` writes them.
///
/// # Errors
/// What is wrong with the file, or what of it is not supported.
pub(crate) fn decode(bytes: &[u8]) -> Result<(Vec<usize>, Vec<f32>), String> {
    let (header, data) = parts(bytes)?;
    let number = Number::of(entry(&header, "descr")?)?;
    let shape = shape_of(&header)?;
    let count = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
    let bytes_expected = count.and_then(|count| count.checked_mul(number.size()));
    if bytes_expected != Some(data.len()) {
        return Err(format!(
            "its header says {shape:?}, and it holds {} numbers",
            data.len() / number.size()
        ));
    }
    let values: Vec<f32> =
        (data.chunks_exact(number.size())).map(|chunk| number.read(chunk)).collect::<Result<_, _>>()?;
    if python_bool(entry(&header, "fortran_order")?)? {
        Ok((shape.clone(), in_c_order(&shape, &values)))
    } else {
        Ok((shape, values))
    }
}

/// The header, which is the text of a Python dictionary, and what follows it.
fn parts(bytes: &[u8]) -> Result<(Cow<'_, str>, &[u8]), String> {
    let cut_off = || "the file is cut off".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or("it does not begin as an .npy file does")?;
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
    Ok((String::from_utf8_lossy(header), data))
}

fn shape_of(header: &str) -> Result<Vec<usize>, String> {
    entry(header, "shape")?
        .strip_prefix('(')
        .and_then(|shape| shape.split_once(')'))
        .map(|(lengths, _)| lengths.split(',').map(str::trim))
        .ok_or("its header has no shape")?
        .filter(|length| !length.is_empty())
        .map(|length| length.parse().map_err(|_| format!("{length:?} is not a length")))
        .collect()
}

fn python_bool(text: &str) -> Result<bool, String> {
    match (text.starts_with("True"), text.starts_with("False")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err("its header says neither True nor False of \"fortran_order\"".to_owned()),
    }
}

/// The numbers of an array whose first axis is the fastest, with the last one the fastest.
fn in_c_order(shape: &[usize], values: &[f32]) -> Vec<f32> {
    let mut index = vec![0; shape.len()];
    let mut place = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in values {
        ordered.push(values[place]);
        // One step along the last axis; at the end of an axis, back to its start and one step along the next.
        let mut stride = values.len();
        for axis in (0..shape.len()).rev() {
            stride /= shape[axis];
            index[axis] += 1;
            place += stride;
            if index[axis] < shape[axis] {
                break;
            }
            place -= stride * shape[axis];
            index[axis] = 0;
        }
    }
    ordered
}

/// How one number is written.
#[derive(Clone, Copy)]
struct Number {
    kind: Kind,
    big_endian: bool,
}

/// The types of numbers that are read, by their sizes in bytes.
#[derive(Clone, Copy)]
enum Kind {
    Float(Float),
    Signed(usize),
    Unsigned(usize),
    Bool,
}

#[derive(Clone, Copy)]
enum Float {
    F16,
    F32,
    F64,
}

impl Number {
    /// The type that an array's header describes, such as `'<f4'`.
    ///
    /// # Errors
    /// What numbers they are, and what to save instead.
    fn of(description: &str) -> Result<Self, String> {
        let quoted = description.strip_prefix(['\'', '"']).and_then(|text| text.split_once(['\'', '"']));
        let Some((kind, _)) = quoted else {
            return Err("it holds records of several fields: save one field".to_owned());
        };
        let (order, name) = match kind.split_at_checked(1) {
            Some((order @ ("<" | ">" | "|" | "="), name)) => (order, name),
            _ => ("=", kind),
        };
        let kind = match name {
            "f2" => Kind::Float(Float::F16),
            "f4" => Kind::Float(Float::F32),
            "f8" => Kind::Float(Float::F64),
            "i1" => Kind::Signed(1),
            "i2" => Kind::Signed(2),
            "i4" => Kind::Signed(4),
            "i8" => Kind::Signed(8),
            "u1" => Kind::Unsigned(1),
            "u2" => Kind::Unsigned(2),
            "u4" => Kind::Unsigned(4),
            "u8" => Kind::Unsigned(8),
            "b1" => Kind::Bool,
            other => return Err(refusal(other)),
        };
        let big_endian = match order {
            "=" => cfg!(target_endian = "big"),
            order => order == ">",
        };
        Ok(Self { kind, big_endian })
    }

    /// How many bytes a number has.
    fn size(self) -> usize {
        match self.kind {
            Kind::Float(Float::F16) => 2,
            Kind::Float(Float::F32) => 4,
            Kind::Float(Float::F64) => 8,
            Kind::Signed(size) | Kind::Unsigned(size) => size,
            Kind::Bool => 1,
        }
    }

    /// The number in as many bytes, rounded to an `f32`.
    ///
    /// # Errors
    /// If it is finite and too large.
    fn read(self, bytes: &[u8]) -> Result<f32, String> {
        // The bits of the number, the lowest byte first, in 8 bytes.
        let mut low_first = [0; 8];
        low_first[..bytes.len()].copy_from_slice(bytes);
        if self.big_endian {
            low_first[..bytes.len()].reverse();
        }
        let bits = u64::from_le_bytes(low_first);
        Ok(match self.kind {
            Kind::Float(Float::F16) => f16::from_bits(bits as u16).to_f32(),
            Kind::Float(Float::F32) => f32::from_bits(bits as u32),
            Kind::Float(Float::F64) => {
                let value = f64::from_bits(bits);
                let rounded = value as f32;
                if rounded.is_infinite() && value.is_finite() {
                    return Err(format!("{value:e} is too large: grids hold 32-bit floats"));
                }
                rounded
            }
            Kind::Signed(size) => {
                let unused = 64 - 8 * size as u32;
                ((bits << unused) as i64 >> unused) as f32
            }
            Kind::Unsigned(_) => bits as f32,
            Kind::Bool => f32::from(u8::from(bits != 0)),
        })
    }
}

/// What an array of an unsupported type contains, by the type without its byte order.
fn refusal(name: &str) -> String {
    let what = match name.chars().next() {
        Some('O') => "Python objects",
        Some('c') => {
            return format!("it holds complex numbers ({name}): save array.real, or numpy.abs(array)");
        }
        Some('U' | 'S' | 'a') => return format!("it holds strings ({name}), not numbers"),
        Some('M' | 'm') => return format!("it holds dates or times ({name}), not numbers"),
        Some('V') => "bytes without a type",
        Some('f') => "floats of more than 64 bits",
        _ => "numbers of an unknown type",
    };
    format!("it holds {what} ({name}): save array.astype(\"float32\")")
}

/// What follows a key of the header, which is the text of a Python dictionary.
fn entry<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let missing = || format!("its header has no {key:?}");
    let quoted = [format!("'{key}'"), format!("\"{key}\"")];
    let after = quoted.iter().find_map(|quoted| header.split_once(quoted.as_str())).ok_or_else(missing)?.1;
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
            assert_eq!((bytes.len() - 4 * values.len()) % 64, 0, "the data are aligned");
            let (read, back) = decode(&bytes).unwrap();
            assert_eq!(read, shape);
            assert_eq!(back.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), values.map(f32::to_bits));
        }
        assert_eq!(decode(&encode(&[], &[2.0])), Ok((vec![], vec![2.0])));
        assert_eq!(decode(&encode(&[0, 3], &[])), Ok((vec![0, 3], vec![])));
    }

    #[test]
    fn the_header_is_what_numpy_writes() {
        let bytes = encode(&[2], &[0.0, 1.0]);
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
        assert!(bytes[10..].starts_with(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, ), }"));
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
            (with("False", "Maybe"), "neither True nor False"),
            (with("<f4", "<i8"), "it holds 2 numbers"),
            (with("'<f4'", "'|O' "), "it holds Python objects (O)"),
            (with("<f4", "<c8"), "it holds complex numbers (c8): save array.real"),
            (with("<f4", "<U4"), "it holds strings (U4)"),
            (with("<f4", "|S4"), "it holds strings (S4)"),
            (with("<f4", "<M8"), "it holds dates or times (M8)"),
            (with("'<f4'", "'<f16'"), "it holds floats of more than 64 bits (f16)"),
            (with("'<f4'", "[('a'"), "it holds records of several fields"),
            (with("shape", "shapf"), "no \"shape\""),
            (with("(2, 2)", "(2, x)"), "\"x\" is not a length"),
            (with("(2, 2), }", "(99999999999, 99999999999)"), "it holds"),
        ] {
            let error = decode(&bytes).unwrap_err();
            assert!(error.contains(message), "{error} instead of {message}");
        }
    }

    /// The bytes of a file with this description of numbers in this order.
    fn file(version: u8, description: &str, fortran: &str, data: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{description}', 'fortran_order': {fortran}, 'shape': (2, 3), }}\n");
        let length = (header.len() as u32).to_le_bytes();
        let length = &length[..if version == 1 { 2 } else { 4 }];
        [MAGIC, &[version, 0], length, header.as_bytes(), data].concat()
    }

    #[test]
    fn numbers_of_every_type_and_byte_order_are_read() {
        let values = [0.0, 1.0, -2.0, 3.0, 100.0, -100.0_f32];
        let unsigned = values.map(f32::abs);
        let both = |little: Vec<Vec<u8>>| {
            let swapped = little.iter().map(|bytes| bytes.iter().rev().copied().collect());
            let big: Vec<Vec<u8>> = swapped.collect();
            [("<", little.concat()), (">", big.concat())]
        };
        let cases = [
            ("f2", values, values.map(|x| f16::from_f32(x).to_le_bytes().to_vec()).to_vec()),
            ("f4", values, values.map(|x| x.to_le_bytes().to_vec()).to_vec()),
            ("f8", values, values.map(|x| f64::from(x).to_le_bytes().to_vec()).to_vec()),
            ("i1", values, values.map(|x| (x as i8).to_le_bytes().to_vec()).to_vec()),
            ("i2", values, values.map(|x| (x as i16).to_le_bytes().to_vec()).to_vec()),
            ("i4", values, values.map(|x| (x as i32).to_le_bytes().to_vec()).to_vec()),
            ("i8", values, values.map(|x| (x as i64).to_le_bytes().to_vec()).to_vec()),
            ("u1", unsigned, unsigned.map(|x| (x as u8).to_le_bytes().to_vec()).to_vec()),
            ("u2", unsigned, unsigned.map(|x| (x as u16).to_le_bytes().to_vec()).to_vec()),
            ("u4", unsigned, unsigned.map(|x| (x as u32).to_le_bytes().to_vec()).to_vec()),
            ("u8", unsigned, unsigned.map(|x| (x as u64).to_le_bytes().to_vec()).to_vec()),
        ];
        for (name, expected, little) in cases {
            for (order, data) in both(little) {
                for version in 1..=3 {
                    let bytes = file(version, &format!("{order}{name}"), "False", &data);
                    let read = decode(&bytes);
                    assert_eq!(read, Ok((vec![2, 3], expected.to_vec())), "{order}{name}");
                }
            }
        }
        let truth = file(1, "|b1", "False", &[0, 1, 1, 0, 0, 1]);
        assert_eq!(decode(&truth).unwrap().1, [0.0, 1.0, 1.0, 0.0, 0.0, 1.0]);
        let large: Vec<u8> = [1e300_f64; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
        let error = decode(&file(1, "<f8", "False", &large)).unwrap_err();
        assert!(error.contains("1e300 is too large"), "{error}");
    }

    #[test]
    fn fortran_order_is_turned_into_c_order() {
        // numpy.asfortranarray([[0, 1, 2], [3, 4, 5]]): columns stand together.
        let data = [0.0_f32, 3.0, 1.0, 4.0, 2.0, 5.0].map(f32::to_le_bytes);
        let bytes = file(1, "<f4", "True", &data.concat());
        assert_eq!(decode(&bytes).unwrap().1, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let shape = [2, 3, 4];
        let place = |i: usize, j: usize, k: usize| (i + 2 * j + 6 * k) as f32;
        let values: Vec<f32> = (0..24).map(|place| place as f32).collect();
        let ordered = in_c_order(&shape, &values);
        for (at, value) in ordered.into_iter().enumerate() {
            assert_eq!(value, place(at / 12, at / 4 % 3, at % 4));
        }
        assert_eq!(in_c_order(&[0, 3], &[]), [0.0_f32; 0]);
        assert_eq!(in_c_order(&[], &[7.0]), [7.0]);
    }
}
