//! SHA-256 checksums, as the 64 hexadecimal digits that other tools print.

use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest as _, Sha256};

/// How much is read at a time.
pub const BUFFER: usize = 1 << 17;

/// The checksum of bytes that arrive one after another.
#[derive(Clone, Debug, Default)]
pub struct Checksum(Sha256);

impl Checksum {
    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds everything that is left in `reader`, and counts it.
    pub fn add_all(&mut self, reader: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; BUFFER];
        let mut count = 0;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(count),
                Ok(length) => {
                    self.add(&buffer[..length]);
                    count += length as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The checksum of all bytes so far, in lower case.
    pub fn hex(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The checksum of a file on the disk.
pub fn of_file(path: &Path) -> io::Result<String> {
    let mut checksum = Checksum::default();
    checksum.add_all(&mut files::open(path)?)?;
    Ok(checksum.hex())
}

/// Reads a checksum as a user or a server writes it.
pub fn parse(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("a SHA-256 has 64 hexadecimal digits".into())
    }
}
