//! What a study computed, in a form that other programs read and that `plot` draws again.
//!
//! Numbers, their words and their files are the crate [`grids`]; here is what this program does with
//! them. Every subcommand that computes grids
//!
//! - prints them with `--json` as `"grids": [...]` beside `"provenance": {...}`;
//! - writes them, with [`ExportArgs`], as CSV, NPY or safetensors;
//! - draws them: [`figures::Draw`];
//! - says what made them: [`MadeHere`].

mod checksum;

use std::path::{Path, PathBuf};

use gpt2::Pretrained;
use grids::{Format, words_beside, write_csv, write_npy, write_safetensors};
use visible::visible;

use crate::failure::Failure;
use crate::output::{Output, SOFTWARE, write_together};

pub use self::checksum::Checksums;
pub use grids::{AxisLabels, Form, Grid, Highlight, NamedText, Provenance, Study};

/// The study in a file: [`grids::read_study`].
///
/// # Errors
/// [`Failure::Input`] with the path and what is wrong with the file.
pub fn read_study(path: &Path) -> Result<Study, Failure> {
    Ok(grids::read_study(path)?)
}

/// Where the value at `place` among a grid's values stands, in words: `layer 3, pos 1 ␣Jones`.
pub fn place_in_words(grid: &Grid, place: usize) -> String {
    let words = grid.axes.iter().zip(grid.index_of(place));
    let words = words.map(|(axis, index)| {
        let label = match axis.is_numbered() {
            true => String::new(),
            false => format!(" {}", visible(&axis.labels[index])),
        };
        format!("{} {}{label}", axis.name, axis.place(index))
    });
    words.collect::<Vec<String>>().join(", ")
}

/// Texts with what they are, given as pairs of name and text.
pub fn named(prompts: &[(&str, &str)]) -> Vec<NamedText> {
    let named = |&(name, text): &(&str, &str)| NamedText { name: name.to_owned(), text: text.to_owned() };
    prompts.iter().map(named).collect()
}

/// What this process makes.
pub trait MadeHere: Sized {
    /// The provenance of what this process computes with a model and prompts, without the checksums of
    /// the weights.
    fn new(model: &Pretrained, prompts: Vec<NamedText>) -> Self;

    /// The provenance of what needs no model: of a figure or a file made from other files.
    fn without_model() -> Self;
}

impl MadeHere for Provenance {
    fn new(model: &Pretrained, prompts: Vec<NamedText>) -> Self {
        Self { model: model.name.clone(), prompts, ..Self::without_model() }
    }

    fn without_model() -> Self {
        let typed = std::env::args_os().skip(1);
        Self {
            software: SOFTWARE.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: typed.map(|arg| arg.to_string_lossy().into_owned()).collect(),
            ..Self::default()
        }
    }
}

/// The heading of these options in the help.
const HEADING: &str = "Export";

/// Options of every subcommand that computes grids.
#[derive(clap::Args)]
pub struct ExportArgs {
    /// Write all numbers as CSV, one row each, with FILE.json beside it
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Write the grid for numpy.load, with FILE.json beside it
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub npy: Option<PathBuf>,

    /// Write all grids by name as safetensors
    #[arg(long, help_heading = HEADING, value_name = "FILE")]
    pub safetensors: Option<PathBuf>,
}

/// Files that can be written and wait for a study.
pub struct Exports {
    /// Words, and numbers.
    csv: Option<[Output; 2]>,
    npy: Option<[Output; 2]>,
    safetensors: Option<Output>,
}

impl ExportArgs {
    /// Whether any file is asked for; it holds the checksums of all weights.
    pub fn is_wanted(&self) -> bool {
        self.csv.is_some() || self.npy.is_some() || self.safetensors.is_some()
    }

    /// Checks, before any work is done, that a study of so many grids can be written there.
    ///
    /// # Errors
    /// [`Failure::Input`] if the name does not end as the format's do, or several grids are to go into
    /// one NPY file; [`Failure::Other`] if a file cannot be put there.
    pub fn prepare(&self, grids: usize) -> Result<Exports, Failure> {
        if let Some(path) = &self.npy
            && grids != 1
        {
            return Err(Failure::Input(format!(
                "{}: an .npy file holds one array, and there will be {grids}; use --safetensors FILE, \
                 or ask for one grid",
                path.display()
            )));
        }
        for (flag, path, extension, format) in [
            ("--csv", &self.csv, "csv", Format::Csv),
            ("--npy", &self.npy, "npy", Format::Npy),
            ("--safetensors", &self.safetensors, "safetensors", Format::Safetensors),
        ] {
            if let Some(path) = path
                && Format::of(path) != Some(format)
            {
                return Err(Failure::Input(format!(
                    "{flag} {}: give a name that ends in .{extension}, by which plot and diff know \
                     the format",
                    path.display()
                )));
            }
        }
        let with_words = |path: &PathBuf| {
            let words = words_beside(path);
            let numbers = Output::prepare_beside(path, &words)?;
            Ok::<_, Failure>([Output::prepare(&words)?, numbers])
        };
        Ok(Exports {
            csv: self.csv.as_ref().map(with_words).transpose()?,
            npy: self.npy.as_ref().map(with_words).transpose()?,
            safetensors: self.safetensors.as_deref().map(Output::prepare).transpose()?,
        })
    }
}

impl Exports {
    /// Writes all files that were asked for: all of them or, if one cannot be written, none.
    ///
    /// # Errors
    /// [`Failure::Other`] with the path and the reason.
    pub fn write(&self, study: &Study) -> Result<(), Failure> {
        study.check()?;
        let words = study.words()?;
        let mut files: Vec<(&Output, Vec<u8>)> = Vec::new();
        // The words come first: they name their numbers by checksum, so that those of an earlier run
        // cannot be taken for these, whenever the program may be killed.
        if let Some([sidecar, table]) = &self.csv {
            files.extend([(sidecar, words.clone().into_bytes()), (table, write_csv(study)?)]);
        }
        if let (Some([sidecar, array]), [grid]) = (&self.npy, study.grids.as_slice()) {
            files.extend([(sidecar, words.into_bytes()), (array, write_npy(grid)?)]);
        }
        if let Some(file) = &self.safetensors {
            files.push((file, write_safetensors(study)?));
        }
        let files: Vec<(&Output, &[u8])> = files.iter().map(|(output, bytes)| (*output, &**bytes)).collect();
        write_together(&files)
    }

    /// The files that are written, for the words at the end of a run.
    pub fn paths(&self) -> Vec<&Path> {
        [
            self.csv.as_ref().map(|[_, file]| file.path()),
            self.npy.as_ref().map(|[_, file]| file.path()),
            self.safetensors.as_ref().map(Output::path),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use figures::Draw;

    fn tokens(name: &str, tokens: &[&str]) -> AxisLabels {
        AxisLabels::new(name, tokens.iter().map(|&token| token.to_owned()))
    }

    /// Two grids of different axes, with everything that is hard to write: quotes, commas, line
    /// breaks, NaN, the largest and the smallest numbers.
    fn study() -> Study {
        let pos = tokens("pos", &[" \"Jones\"", ",", "\n", "NA", " 日本"]);
        Study {
            provenance: Provenance {
                model: "tiny".to_owned(),
                prompts: vec![NamedText { name: "clean".to_owned(), text: "a\n\"b\"".to_owned() }],
                ..Provenance::without_model()
            },
            title: "A title".to_owned(),
            subtitle: vec!["clean: a".to_owned()],
            numbers_sha256: None,
            grids: vec![
                Grid {
                    name: "resid_post".to_owned(),
                    axes: vec![AxisLabels::indices("layer", 2), pos.clone()],
                    values: vec![
                        0.1,
                        -0.0,
                        f32::NAN,
                        1e-45,
                        f32::MAX,
                        f32::NEG_INFINITY,
                        1.0 / 3.0,
                        2.0,
                        3.0,
                        -4.5,
                    ],
                    value_label: "logit(a) − logit(b)".to_owned(),
                    center: Some(0.0),
                    highlight: Some(Highlight {
                        axis: "pos".to_owned(),
                        indices: vec![1],
                        label: "the prompts differ here".to_owned(),
                    }),
                    legend: vec!["Blue: a.".to_owned()],
                    ..Grid::default()
                },
                Grid {
                    name: "heads".to_owned(),
                    axes: vec![pos, AxisLabels::indices("head", 2)],
                    values: (0..10).map(|value| value as f32).collect(),
                    form: Form::Lines,
                    ..Grid::default()
                },
            ],
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_damaged_export_is_refused_or_is_another_export(
            form in 0..4_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
            with_words: bool,
        ) {
            let study = study();
            let grid = &study.grids[0];
            let (name, mut bytes) = match form {
                0 => ("a.json", serde_json::to_vec(&study).unwrap()),
                1 => ("a.csv", write_csv(&study).unwrap()),
                2 => ("a.npy", write_npy(grid).unwrap()),
                _ => ("a.safetensors", write_safetensors(&study).unwrap()),
            };
            for (at, byte, change) in changes {
                let at = at.index(bytes.len());
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            if with_words {
                fs::write(words_beside(&path), study.words().unwrap()).unwrap();
            }
            match read_study(&path) {
                Ok(study) => {
                    prop_assert!(study.grids.iter().all(|grid| grid.check().is_ok()));
                    // What is read can be drawn, or it is said why not.
                    let figures = study.grids.iter().map(Draw::figure).chain([study.figure()]);
                    for undrawable in figures.filter_map(Result::err) {
                        prop_assert!(!undrawable.0.is_empty());
                    }
                }
                Err(failure) => {
                    let message = message(Err::<(), _>(failure));
                    prop_assert!(message.contains(name), "{message}");
                }
            }
        }
    }

    fn write(study: &Study, folder: &Path) {
        let args = ExportArgs {
            csv: Some(folder.join("a.csv")),
            npy: None,
            safetensors: Some(folder.join("a.safetensors")),
        };
        args.prepare(study.grids.len()).unwrap().write(study).unwrap();
    }

    fn message<T>(result: Result<T, Failure>) -> String {
        match result {
            Err(Failure::Input(message) | Failure::Other(message)) => message,
            Err(other) => panic!("{other:?}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_place_is_told_in_words() {
        assert_eq!(place_in_words(&study().grids[1], 3), "pos 1 ,, head 1");
    }

    #[test]
    fn one_array_goes_into_an_npy_file_and_each_format_has_its_ending() {
        let folder = tempfile::tempdir().unwrap();
        let args = |csv: Option<&str>, npy: Option<&str>| ExportArgs {
            csv: csv.map(|name| folder.path().join(name)),
            npy: npy.map(|name| folder.path().join(name)),
            safetensors: None,
        };
        assert!(message(args(None, Some("a.npy")).prepare(5)).contains("there will be 5"));
        assert!(message(args(Some("a.txt"), None).prepare(1)).contains("ends in .csv"));
        assert!(args(None, Some("a.NPY")).prepare(1).is_ok());
    }

    #[test]
    fn our_own_exports_are_replaced_and_those_of_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        write(&study(), folder.path());
        write(&study(), folder.path());
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a.csv", "a.csv.json", "a.safetensors"]);
        fs::remove_file(folder.path().join("a.csv.json")).unwrap();
        let args = ExportArgs { csv: Some(folder.path().join("a.csv")), npy: None, safetensors: None };
        assert!(message(args.prepare(1)).contains("is not a file that patch-cli made"));
    }

    #[test]
    fn the_weights_checksum_is_that_of_the_file() {
        let on_record = |model: &Pretrained| Checksums::on_record(model).by_name().unwrap();
        let of_all = |model: &Pretrained| Checksums::of_all(model).unwrap().by_name().unwrap();
        let model = Pretrained::tiny().unwrap();
        let built_in = on_record(&model);
        assert_eq!(of_all(&model), built_in);
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), gpt2_tiny::CONFIG).unwrap();
        let weights = folder.path().join("model.safetensors");
        fs::write(&weights, gpt2_tiny::WEIGHTS).unwrap();
        let model = Pretrained::from_path("mine", folder.path()).unwrap();
        let hashed = of_all(&model);
        assert_eq!(hashed, built_in);
        assert_eq!(hashed["model.safetensors"].len(), 64);

        // What is on record is taken, as long as the file looks as it did.
        let found = fs::metadata(&weights).unwrap();
        let modified = found.modified().unwrap();
        let modified = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        let record = |size: u64| {
            serde_json::json!({"model": "mine", "files": {"model.safetensors": {
                "size": size, "sha256": "on record", "modified_ns": modified.as_nanos() as u64,
            }}})
        };
        let path = folder.path().join("provenance.json");
        fs::write(&path, record(found.len()).to_string()).unwrap();
        for checksums in [on_record(&model), of_all(&model)] {
            assert_eq!(checksums["model.safetensors"], "on record");
        }
        fs::write(&path, record(found.len() + 1).to_string()).unwrap();
        assert_eq!(of_all(&model), hashed);
        assert!(on_record(&model).is_empty());

        // Weights that have gone are an error, and no thread waits for them.
        fs::remove_file(&weights).unwrap();
        let error = message(Checksums::of_all(&model).unwrap().by_name());
        assert!(error.contains("model.safetensors again: "), "{error}");
    }
}
