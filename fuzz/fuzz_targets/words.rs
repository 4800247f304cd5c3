//! The input is a file of numbers with the words beside it: how many numbers there are (a byte), the numbers
//! (four bytes each), and the words. Words that name their numbers by checksum are believed of these alone.

#![no_main]

use grids::{AxisLabels, Grid, Study, read_csv, read_npy, read_words, write_csv, write_npy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&count, rest)) = bytes.split_first() else {
        return;
    };
    let (numbers, words) = rest.split_at((4 * usize::from(count)).min(rest.len()));
    let values: Vec<f32> =
        numbers.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    if values.is_empty() {
        return;
    }
    let axes = vec![AxisLabels::indices("x", values.len())];
    let study = Study {
        grids: vec![Grid { name: "a".to_owned(), axes, values, ..Grid::default() }],
        ..Study::default()
    };
    let Ok(words) = read_words(words) else {
        return;
    };
    for read in [
        read_csv(&write_csv(&study).unwrap(), Some(words.clone())),
        read_npy(&write_npy(&study.grids[0]).unwrap(), Some(words.clone())),
    ] {
        let Ok(read) = read else {
            continue;
        };
        read.check().unwrap();
        assert_eq!(read.grids[0].axes, words.grids[0].axes);
        assert_eq!(read.numbers_sha256, None);
        if let Some(checksum) = &words.numbers_sha256 {
            assert_eq!(*checksum, read.checksum());
        }
    }
});
