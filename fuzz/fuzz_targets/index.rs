//! The input is an index and its files: each a length in two bytes, the lower one first, and so many
//! bytes. The files are given out in the order in which they are asked for.

#![no_main]

mod load;

use std::borrow::Cow;
use std::io;
use std::path::Path;

use gpt2::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    let Some(index) = next_part(&mut rest).and_then(|part| std::str::from_utf8(part).ok()) else {
        return;
    };
    let path = Path::new("folder/model.safetensors.index.json");
    let checkpoint = Checkpoint::from_shards(path, index, &mut |file| {
        // Nothing but a file of this folder may be asked for.
        assert_eq!(path.with_file_name(file).parent(), path.parent());
        assert!(!file.contains(['/', '\\', ':']));
        let part = next_part(&mut rest).ok_or(io::ErrorKind::NotFound)?;
        Ok(Cow::Owned(part.to_vec()))
    });
    if let Err(error) = load::load(checkpoint) {
        assert!(!error.to_string().is_empty());
    }
});

fn next_part<'input>(rest: &mut &'input [u8]) -> Option<&'input [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
    let (part, after) = after.split_at(length);
    *rest = after;
    Some(part)
}
