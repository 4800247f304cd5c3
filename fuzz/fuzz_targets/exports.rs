//! The input is an export, as `plot` reads it: one byte for its format, for two of the formats the length
//! (two bytes, little-endian) and the bytes of the words that stand beside it, then the file.

#![no_main]

use grids::{
    Error, Study, read_csv, read_json, read_npy, read_safetensors, read_words, write_csv, write_npy,
    write_safetensors,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((form, file)) = bytes.split_first() else {
        return;
    };
    let Ok(study) = read(form % 6, file) else {
        return;
    };
    // Whatever was read can be used.
    study.check().unwrap();
    for grid in &study.grids {
        let last = grid.index_of(grid.values.len() - 1);
        for (axis, &index) in grid.axes.iter().zip(&last) {
            assert_eq!(index, axis.labels.len() - 1);
            axis.full_label(index);
        }
        if let (Some(axis), Some(&index)) = (grid.axes.first(), last.first()) {
            let part = grid.select(&axis.name, index).unwrap();
            assert_eq!(part.values.last().unwrap().to_bits(), grid.values.last().unwrap().to_bits());
        }
    }
    // And written, and read again, it is the same.
    let words = || read_words(study.words().unwrap().as_bytes()).unwrap();
    let json = serde_json::to_vec(&study).unwrap();
    assert_same(&read_json(&json).unwrap(), &study, Kept::Finite);
    match write_csv(&study) {
        Ok(table) => {
            assert_same(&read_csv(&table, Some(words())).unwrap(), &study, Kept::Number);
            // Without words there are the same numbers, though perhaps under axes in another order.
            let bare = read_csv(&table, None).unwrap();
            let lengths = |study: &Study| -> Vec<usize> {
                study.grids.iter().map(|grid| grid.values.len()).collect()
            };
            assert_eq!(lengths(&bare), lengths(&study));
        }
        // A table cannot tell two axes of one name apart.
        Err(error) => assert!(matches!(error, Error::AxisTwice { .. }), "{error}"),
    }
    if let [grid] = study.grids.as_slice() {
        let array = write_npy(grid).unwrap();
        assert_same(&read_npy(&array, Some(words())).unwrap(), &study, Kept::Bit);
    }
    match write_safetensors(&study) {
        Ok(bytes) => assert_same(&read_safetensors(&bytes).unwrap(), &study, Kept::Bit),
        // One name is the format's own.
        Err(error) => assert!(matches!(error, Error::Unwritable { .. }), "{error}"),
    }
});

fn read(form: u8, file: &[u8]) -> Result<Study, Error> {
    match form {
        0 => read_json(file),
        1 => read_csv(file, None),
        2 => read_npy(file, None),
        3 => read_safetensors(file),
        _ => {
            let (length, rest) = file.split_first_chunk().unwrap_or((&[0, 0], file));
            let (words, file) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
            let words = read_words(words)?;
            match form {
                4 => read_csv(file, Some(words)),
                _ => read_npy(file, Some(words)),
            }
        }
    }
}

/// What a format keeps of a number.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    /// Every bit.
    Bit,
    /// Its value: one NaN is as good as another.
    Number,
    /// Its value if it is finite; everything else becomes NaN.
    Finite,
}

fn assert_same(a: &Study, b: &Study, kept: Kept) {
    // (Where numbers are lost, so is their checksum.)
    let words = |study: &Study| {
        let words = read_words(study.words().unwrap().as_bytes()).unwrap();
        Study { numbers_sha256: words.numbers_sha256.filter(|_| kept != Kept::Finite), ..words }
    };
    assert_eq!(words(a), words(b));
    let bits = |value: &f32| match kept {
        Kept::Finite if !value.is_finite() => f32::NAN.to_bits(),
        Kept::Number if value.is_nan() => f32::NAN.to_bits(),
        _ => value.to_bits(),
    };
    for (a, b) in a.grids.iter().zip(&b.grids) {
        assert!(a.values.iter().map(bits).eq(b.values.iter().map(bits)));
    }
}
