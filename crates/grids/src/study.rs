//! Grids that belong together, and what made them.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Error, Grid};

/// What made a file: enough to make it again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// `patch-cli`. It comes first, so that we recognise our own files.
    pub software: String,
    /// The version of the program.
    pub version: String,
    /// The model as the user called it.
    pub model: String,
    /// The SHA-256 of each file of weights, by the file's name: of all files in exports and JSON; in a
    /// picture alone of those that are on record. If there are none, files have no such key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub model_checksum: BTreeMap<String, String>,
    /// What was done to the weights before they were run, by TransformerLens's names; nothing, if they
    /// were run as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processing: Vec<String>,
    /// The arguments as they were typed.
    pub command: Vec<String>,
    /// The prompts by what they are: `clean`, `corrupted`, `prompt`…
    pub prompts: Vec<NamedText>,
    /// Everything that determines the numbers, by name: the weights, the tokens, the metric and so on.
    /// Where it is written for people, a value is a word; what is long is a checksum.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub computation: BTreeMap<String, String>,
    /// The SHA-256 of `computation`: equal fingerprints mean equal computations.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fingerprint: String,
}

impl Provenance {
    /// The same of numbers that are determined by `computation`.
    pub fn of_computation(self, computation: BTreeMap<String, String>) -> Self {
        // The lengths separate neighbours that could be confused if they were joined.
        let parts = computation.iter().flat_map(|(name, value)| [name, value]);
        let fingerprint = sha256(parts.flat_map(|part| [part.len().to_string(), part.clone()]));
        Self { computation, fingerprint, ..self }
    }
}

/// The SHA-256 of these parts, one after the other, in hexadecimal digits.
pub fn sha256(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    parts.into_iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A prompt with its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedText {
    /// What it is, for example `clean`.
    pub name: String,
    /// The text.
    pub text: String,
}

/// What a subcommand computed, and what made it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Study {
    /// What made it.
    #[serde(default)]
    pub provenance: Provenance,
    /// The heading.
    #[serde(default)]
    pub title: String,
    /// Short lines under the heading: the prompts, the model.
    #[serde(default)]
    pub subtitle: Vec<String>,
    /// If the words are in a file of their own, the checksum of the numbers ([`Study::checksum`]), which
    /// shows whether the numbers beside them are those of the same run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers_sha256: Option<String>,
    /// The numbers. Their names differ.
    pub grids: Vec<Grid>,
}

impl Study {
    /// Everything but the numbers, as JSON: what stands beside or inside a file of numbers.
    ///
    /// # Errors
    /// If JSON cannot represent it, which is not known to happen.
    pub fn words(&self) -> Result<String, Error> {
        let blank = |grid: &Grid| Grid {
            name: grid.name.clone(),
            title: grid.title.clone(),
            form: grid.form,
            axes: grid.axes.clone(),
            values: Vec::new(),
            texts: grid.texts.clone(),
            value_label: grid.value_label.clone(),
            center: grid.center,
            highlight: grid.highlight.clone(),
            legend: grid.legend.clone(),
        };
        let words = Self {
            provenance: self.provenance.clone(),
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            numbers_sha256: Some(self.checksum()),
            grids: self.grids.iter().map(blank).collect(),
        };
        serde_json::to_string(&words)
            .map_err(|error| Error::Unwritable { format: "JSON", reason: error.to_string() })
    }

    /// The SHA-256 of all numbers, grid by grid: of each its name and then its values as little-endian f32,
    /// where every NaN counts as the same.
    pub fn checksum(&self) -> String {
        let bytes = |value: &f32| if value.is_nan() { f32::NAN } else { *value }.to_le_bytes();
        let of_grid = |grid: &Grid| -> Vec<u8> {
            let name = [&(grid.name.len() as u64).to_le_bytes()[..], grid.name.as_bytes()].concat();
            name.into_iter().chain(grid.values.iter().flat_map(bytes)).collect()
        };
        sha256(self.grids.iter().map(of_grid))
    }

    /// The names of all grids, with commas.
    pub fn names(&self) -> String {
        let names: Vec<&str> = self.grids.iter().map(|grid| grid.name.as_str()).collect();
        names.join(", ")
    }

    /// The grid of this name.
    pub fn grid(&self, name: &str) -> Option<&Grid> {
        self.grids.iter().find(|grid| grid.name == name)
    }

    /// The same study with only the grids of these names, in its order.
    pub fn only(&self, names: &[String]) -> Self {
        let named = self.grids.iter().filter(|grid| names.contains(&grid.name));
        Self {
            grids: named.cloned().collect(),
            provenance: self.provenance.clone(),
            title: self.title.clone(),
            subtitle: self.subtitle.clone(),
            numbers_sha256: None,
        }
    }

    /// Every grid must be whole, and its name its own.
    ///
    /// # Errors
    /// As [`Grid::check`], and if two grids have one name.
    pub fn check(&self) -> Result<(), Error> {
        self.grids.iter().try_for_each(Grid::check)?;
        self.check_names()
    }

    /// [`check`](Self::check) without the numbers, which may be elsewhere.
    pub(crate) fn check_words(&self) -> Result<(), Error> {
        self.grids.iter().try_for_each(Grid::check_words)?;
        self.check_names()
    }

    fn check_names(&self) -> Result<(), Error> {
        let mut names = HashSet::new();
        match self.grids.iter().find(|grid| !names.insert(&grid.name)) {
            Some(grid) => Err(Error::GridTwice { grid: grid.name.clone() }),
            None => Ok(()),
        }
    }
}
