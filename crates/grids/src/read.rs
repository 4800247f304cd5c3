//! Reading studies back, from bytes and from files.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use files::encoding::{SAVE_AS_UTF8, other_encoding, without_mark};

use crate::grid::unknown_axis;
use crate::{AxisLabels, Error, Grid, MAX_AXES, Study, csv_form, npy, tensors};

/// The longest file that is read whole, in bytes: many times what a sweep of GPT-2 xl exports.
pub const MAX_BYTES: u64 = 1 << 30;

/// How a file of grids is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One object with all words and all numbers.
    Json,
    /// A table with a row for each number, and a file of words beside it.
    Csv,
    /// The numbers of one grid, and a file of words beside it.
    Npy,
    /// The numbers of all grids with all words.
    Safetensors,
}

impl Format {
    /// The format that a file's name ends in, in upper or lower case.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "npy" => Some(Self::Npy),
            "safetensors" => Some(Self::Safetensors),
            _ => None,
        }
    }
}

/// The file beside a file of numbers that holds the words: `a.csv.json` beside `a.csv`.
pub fn words_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".json");
    path.with_file_name(name)
}

/// The study in a file: JSON, CSV or NPY (with the words from the file beside it, if that is there), or
/// safetensors; the name's end says which. No file has more than [`MAX_BYTES`].
///
/// # Errors
/// With the path and what is wrong with the file.
pub fn read_study(path: &Path) -> Result<Study, Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        |error: Error| Error::File { path, error: Box::new(error) }
    };
    let Some(format) = Format::of(path) else {
        return Err(Error::Ending { path: path.to_owned() });
    };
    let bytes = read_file(path, MAX_BYTES)?;
    let words = || -> Result<Option<Study>, Error> {
        let beside = words_beside(path);
        if !beside.exists() {
            return Ok(None);
        }
        let bytes = read_file(&beside, MAX_BYTES)?;
        read_words(&bytes).map(Some).map_err(at(&beside))
    };
    match format {
        Format::Json => read_json(&bytes),
        Format::Csv => read_csv(&bytes, words()?),
        Format::Npy => read_npy(&bytes, words()?),
        Format::Safetensors => read_safetensors(&bytes),
    }
    .map_err(at(path))
}

/// The study in a JSON object.
///
/// # Errors
/// With the line and what is wrong there; and as [`Study::check`].
pub fn read_json(bytes: &[u8]) -> Result<Study, Error> {
    checked(Study { numbers_sha256: None, ..read_words(bytes)? })
}

/// The words of a study: the JSON of [`Study::words`], or of a whole study. The numbers may be missing.
///
/// # Errors
/// With the line and what is wrong there.
pub fn read_words(bytes: &[u8]) -> Result<Study, Error> {
    let bytes = utf8(bytes).map_err(Error::Format)?;
    let expected = |found: &dyn std::fmt::Display| {
        Error::Format(format!("a JSON object with \"grids\" is expected, as --json prints it: {found}"))
    };
    // serde's derived form as an array would be accepted too, but no program writes it.
    match bytes.trim_ascii_start().first() {
        None => Err(expected(&"the file is empty")),
        Some(b'{') => serde_json::from_slice(bytes).map_err(|error| expected(&error)),
        Some(b'[') => Err(expected(&"the file begins with an array")),
        Some(_) => Err(expected(&"the file does not begin with {")),
    }
}

/// The study in a table, with the words that stand beside it. Without words, axes and labels are those
/// of the table's columns.
///
/// # Errors
/// With the row and what is wrong there; if the words are about other grids; and as [`Study::check`].
pub fn read_csv(bytes: &[u8], words: Option<Study>) -> Result<Study, Error> {
    let grids = utf8(bytes).and_then(csv_form::decode);
    let grids = grids.map_err(Error::Format)?;
    checked(filled(words, grids)?)
}

/// The study of one array, with the words that stand beside it. Without words, the grid is called
/// `values`, and its axes `axis0`, `axis1` and so on.
///
/// # Errors
/// If the bytes are not an array of numbers as `numpy.save` writes it, or the words are about another one;
/// and as [`Study::check`].
pub fn read_npy(bytes: &[u8], words: Option<Study>) -> Result<Study, Error> {
    let array = npy::decode(bytes).map_err(|reason| match kind_of_no_text(bytes) {
        Some(kind) if !bytes.starts_with(npy::MAGIC) => format!("{reason}: it is {kind}"),
        _ => reason,
    });
    let (shape, values) = array.map_err(Error::Format)?;
    checked(filled(words, vec![bare("values", &shape, values)?])?)
}

/// The study in the bytes of a safetensors file. Without words in its metadata, each tensor is a grid
/// with the axes `axis0`, `axis1` and so on.
///
/// # Errors
/// If the bytes are not a whole file of F32 tensors, or its words are about others; and as
/// [`Study::check`].
pub fn read_safetensors(bytes: &[u8]) -> Result<Study, Error> {
    let (tensors, words) = tensors::decode(bytes).map_err(Error::Format)?;
    let grids = tensors.into_iter();
    let grids = grids.map(|(name, shape, values)| bare(&name, &shape, values));
    checked(filled(words, grids.collect::<Result<_, _>>()?)?)
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// [`Error::Unreadable`] with the path and the reason.
pub fn read_file(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let unreadable =
        |error: io::Error| Error::Unreadable { path: path.to_owned(), reason: error.to_string() };
    files::read(path, most).map_err(unreadable)
}

/// The bytes of a text without the byte order mark of UTF-8.
///
/// # Errors
/// If they are UTF-16, UTF-32 or not text.
fn utf8(bytes: &[u8]) -> Result<&[u8], String> {
    match other_encoding(bytes) {
        Some(reason) => Err(reason),
        None => only_utf8(without_mark(bytes)),
    }
}

fn only_utf8(bytes: &[u8]) -> Result<&[u8], String> {
    if let Some(kind) = kind_of_no_text(bytes) {
        return Err(format!("it is {kind}, whatever its name says"));
    }
    let Err(error) = std::str::from_utf8(bytes) else {
        return Ok(bytes);
    };
    let before = &bytes[..error.valid_up_to()];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    Err(format!("line {line} is not UTF-8; {SAVE_AS_UTF8}"))
}

/// The kind of a file that is not text, by its first bytes.
fn kind_of_no_text(bytes: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], &str); 6] = [
        (b"\x93NUMPY", "an .npy file"),
        (b"PK\x03\x04", "a zip file, such as .npz, .xlsx or .pt"),
        (b"\x89PNG", "a PNG picture"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x1f\x8b", "a gzip file"),
        (b"PAR1", "a Parquet file"),
    ];
    let found = kinds.iter().find(|(magic, _)| bytes.starts_with(magic));
    found.map(|(_, kind)| *kind)
}

fn checked(study: Study) -> Result<Study, Error> {
    if study.grids.is_empty() { Err(Error::NoGrid) } else { study.check().map(|()| study) }
}

/// Numbers without words: the axes are numbered.
fn bare(name: &str, shape: &[usize], values: Vec<f32>) -> Result<Grid, Error> {
    // Beside a length of 0 the others may be anything.
    if values.is_empty() {
        return Err(Error::Empty { grid: name.to_owned(), shape: shape.to_vec() });
    }
    if shape.len() > MAX_AXES {
        return Err(Error::TooManyAxes { grid: name.to_owned(), axes: shape.len() });
    }
    let axes = shape.iter().enumerate();
    Ok(Grid {
        name: name.to_owned(),
        axes: axes.map(|(axis, &length)| AxisLabels::indices(&unknown_axis(axis), length)).collect(),
        values,
        ..Grid::default()
    })
}

/// The words of a study with the numbers of `grids`, which must be those that the words are about.
fn filled(words: Option<Study>, mut grids: Vec<Grid>) -> Result<Study, Error> {
    let Some(mut study) = words else {
        return Ok(Study { grids, ..Study::default() });
    };
    // Before any number is moved: words that name one grid a thousand times are refused.
    study.check_words()?;
    if let ([words], [numbers]) = (study.grids.as_slice(), grids.as_mut_slice()) {
        // An array has no name.
        numbers.name.clone_from(&words.name);
    }
    let mut numbers: HashMap<String, Grid> =
        grids.into_iter().map(|grid| (grid.name.clone(), grid)).collect();
    for grid in &mut study.grids {
        let found = numbers.remove(&grid.name);
        let found = found.ok_or_else(|| Error::GridMissing { grid: grid.name.clone() })?;
        // A table has one order of columns for all its grids.
        let found = found.in_order_of(&grid.axes);
        if found.shape() != grid.shape() {
            return Err(Error::OtherShape {
                grid: grid.name.clone(),
                found: found.shape(),
                described: grid.shape(),
            });
        }
        grid.values = found.values;
    }
    // Another run has written one of the two files, or the numbers were changed.
    match study.numbers_sha256.take() {
        Some(described) if described != study.checksum() => Err(Error::OtherNumbers),
        _ => Ok(study),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::{Form, Highlight, NamedText, Provenance};
    use crate::{write_csv, write_npy, write_safetensors};

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
                software: "a program".to_owned(),
                command: vec!["--csv".to_owned(), "a \"b\".csv".to_owned()],
                ..Provenance::default()
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

    fn bits(study: &Study) -> Vec<Vec<u32>> {
        let grids = study.grids.iter();
        grids.map(|grid| grid.values.iter().map(|value| value.to_bits()).collect()).collect()
    }

    fn message<T>(result: Result<T, Error>) -> String {
        match result {
            Err(error) => error.to_string(),
            Ok(_) => panic!("accepted"),
        }
    }

    /// The CSV file of a study and the safetensors file.
    fn written(study: &Study, folder: &Path) -> [PathBuf; 2] {
        let [csv, safetensors] = ["a.csv", "a.safetensors"].map(|name| folder.join(name));
        fs::write(&csv, write_csv(study).unwrap()).unwrap();
        fs::write(words_beside(&csv), study.words().unwrap()).unwrap();
        fs::write(&safetensors, write_safetensors(study).unwrap()).unwrap();
        [csv, safetensors]
    }

    #[test]
    fn every_format_gives_back_every_bit_and_every_word() {
        let folder = tempfile::tempdir().unwrap();
        let study = study();
        for path in written(&study, folder.path()) {
            let back = read_study(&path).unwrap();
            assert_eq!(bits(&back), bits(&study), "{}", path.display());
            assert_eq!(back.words().unwrap(), study.words().unwrap());
        }
        let mut one = study;
        one.grids.truncate(1);
        let path = folder.path().join("a.npy");
        fs::write(&path, write_npy(&one.grids[0]).unwrap()).unwrap();
        fs::write(words_beside(&path), one.words().unwrap()).unwrap();
        let back = read_study(&path).unwrap();
        assert_eq!(bits(&back), bits(&one));
        assert_eq!(back.words().unwrap(), one.words().unwrap());
    }

    #[test]
    fn json_gives_back_finite_numbers_exactly_and_others_as_nan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let study = study();
        fs::write(&path, serde_json::to_vec(&study).unwrap()).unwrap();
        let back = read_study(&path).unwrap();
        for (back, value) in back.grids[0].values.iter().zip(&study.grids[0].values) {
            if value.is_finite() {
                assert_eq!(back.to_bits(), value.to_bits())
            } else {
                assert!(back.is_nan())
            }
        }
    }

    #[test]
    fn numbers_without_words_have_numbered_axes() {
        let folder = tempfile::tempdir().unwrap();
        let [csv, _] = written(&study(), folder.path());
        fs::remove_file(words_beside(&csv)).unwrap();
        let back = read_study(&csv).unwrap();
        assert_eq!(back.grids[0].axes, study().grids[0].axes);
        assert_eq!(back.title, "");
        let npy = folder.path().join("foreign.npy");
        fs::write(&npy, npy::encode(&[2, 3], &[0.0; 6])).unwrap();
        let back = read_study(&npy).unwrap();
        assert_eq!(back.grids[0].axes[1], AxisLabels::indices("axis1", 3));
        assert!(!back.grids[0].has_known_axes());
        assert!(study().grids[0].has_known_axes());
    }

    #[test]
    fn words_that_belong_to_other_numbers_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let [csv, _] = written(&study(), folder.path());
        fs::write(&csv, "grid,layer,value\nresid_post,0,1.5\n").unwrap();
        assert!(message(read_study(&csv)).contains("has the shape [1], and its description [2, 5]"));
        fs::write(&csv, "grid,layer,value\nz,0,1.5\ny,0,1\n").unwrap();
        assert!(message(read_study(&csv)).contains("the grid \"resid_post\" is missing"));
        let npy = folder.path().join("a.npy");
        fs::write(&npy, npy::encode(&[3], &[0.0; 3])).unwrap();
        let mut one = study();
        one.grids.truncate(1);
        fs::write(words_beside(&npy), one.words().unwrap()).unwrap();
        assert!(message(read_study(&npy)).contains("the two do not belong together"));
    }

    #[test]
    fn broken_files_are_errors_with_the_place() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes, expected) in [
            ("a.json", "[1, 2]", "a JSON object with \"grids\" is expected"),
            ("b.json", "{\"grids\": []}", "it contains no grid"),
            ("d.json", " \n", "the file is empty"),
            ("e.json", "[1, 2]", "the file begins with an array"),
            ("f.json", "\u{89}", "the file does not begin with {"),
            ("g.json", "PK\u{3}\u{4}", "it is a zip file, such as .npz"),
            ("g.csv", "PK\u{3}\u{4}", "it is a zip file, such as .npz"),
            ("g.npy", "PK\u{3}\u{4}", "as an .npy file does: it is a zip file"),
            ("h.csv", "", "the file is empty"),
            (
                "c.json",
                r#"{"grids": [{"name": "x", "axes": [{"name": "a", "labels": ["0", "1"]}], "values": [1]}]}"#,
                "has the shape [2] and 1 values",
            ),
            ("a.csv", "x,y\n1,2\n", "the columns grid, axes, value"),
            ("b.csv", "grid,layer,value\nx,one,2\n", "row 1: \"one\" is not an index"),
            ("c.csv", "grid,layer,value\nx,0,2\nx,2,3\n", "gaps along layer"),
            ("d.csv", "grid,layer,value\nx,0,2\nx,0,3\n", "has 2 rows for a shape of [1]"),
            ("e.csv", "grid,layer,value\nx,0,much\n", "\"much\" is not a number"),
            ("f.csv", "grid,layer,value\nx,0\n", "f.csv: "),
            ("a.npy", "PK", "does not begin as an .npy file"),
            ("a.safetensors", "PK", "not a whole safetensors file"),
            ("a.txt", "", "ends in .json, .csv, .npy or .safetensors"),
        ] {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            let error = message(read_study(&path));
            assert!(error.contains(expected), "{name}: {error}");
            assert!(error.contains(name), "{error}");
        }
        let missing = message(read_study(&folder.path().join("none.csv")));
        assert!(missing.contains("cannot read") && missing.contains("none.csv"));
    }

    #[test]
    fn texts_in_other_encodings_are_named() {
        let json = serde_json::to_string(&study()).unwrap();
        let table = "grid,layer,value\nx,0,2\n";
        let read = |name: &str, bytes: &[u8]| match name {
            "a.json" => read_json(bytes),
            _ => read_csv(bytes, None),
        };
        for (name, text) in [("a.json", json.as_str()), ("a.csv", table)] {
            let units: Vec<u16> = text.encode_utf16().collect();
            let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
            let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
            for bytes in
                [[&b"\xff\xfe"[..], &little].concat(), [&b"\xfe\xff"[..], &big].concat(), little, big]
            {
                let error = message(read(name, &bytes));
                let expected = "it is written in UTF-16; save it as UTF-8";
                assert!(error.contains(expected), "{name}: {error}");
            }
            assert!(read(name, format!("\u{feff}{text}").as_bytes()).is_ok());
        }
        let latin = message(read_csv(b"grid,pos,pos_label,value\nx,0,\xe9,1\n", None));
        assert!(latin.contains("line 2 is not UTF-8; save it as UTF-8"), "{latin}");
        let array = message(read_csv(&npy::encode(&[1], &[1.0]), None));
        assert!(array.contains("it is an .npy file, whatever its name says"), "{array}");
        // A table in UTF-16 whose words are read, and the other way round.
        let words = [&b"\xff\xfe"[..], b"{\0}\0"].concat();
        assert!(message(read_words(&words)).contains("UTF-16"));
    }

    #[test]
    fn a_table_that_excel_or_pandas_wrote_is_read_or_named() {
        let plain = read_csv(b"grid,layer,value\nx,0,2\nx,1,3\n", None).unwrap();
        for table in [
            "sep=,\ngrid,layer,value\nx,0,2\nx,1,3\n",
            "sep=,\r\ngrid,layer,value\r\nx,0,2\r\nx,1,3\r\n",
            "\u{feff}\"sep=,\"\r\ngrid,layer,value\r\nx,0,2\r\nx,1,3\r\n",
            ",grid,layer,value\n0,x,0,2\n1,x,1,3\n",
            "Unnamed: 0,grid,layer,value\n0,x,0,2\n1,x,1,3\n",
        ] {
            assert_eq!(read_csv(table.as_bytes(), None).unwrap(), plain, "{table}");
        }
        for (table, part) in [
            ("sep=;\ngrid;layer;value\nx;0;2\n", "separated by \";\" (its first line says so)"),
            ("sep=\t\ngrid\tlayer\tvalue\n", "separated by tabs (its first line says so)"),
            ("sep=\n", "the columns grid, axes, value"),
            ("grid;layer;value\nx;0;2,5\n", "separated by \";\": save"),
            ("grid\tlayer\tvalue\nx\t0\t2\n", "separated by tabs: save"),
        ] {
            let error = message(read_csv(table.as_bytes(), None));
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_part_is_selected_along_an_axis() {
        let study = study();
        let grid = &study.grids[1];
        let part = grid.select("head", 1).unwrap();
        assert_eq!(part.values, [1.0, 3.0, 5.0, 7.0, 9.0]);
        assert_eq!(part.axes.len(), 1);
        assert_eq!(grid.select("pos", 3).unwrap().values, [6.0, 7.0]);
        assert!(message(grid.select("head", 2)).contains("give one from 0 to 1"));
        assert!(message(grid.select("layer", 0)).contains("it has pos, head"));
        assert_eq!(grid.index_of(3), [1, 1]);
    }

    /// A grid of these axes with its places as values.
    #[test]
    fn texts_stay_with_their_values() {
        let token = |value: f32| format!(" t{value}");
        let mut grid = counted("top_prob", &[("point", 2), ("pos", 3)]);
        grid.texts = grid.values.iter().copied().map(token).collect();
        let study = of(vec![grid.clone()]);
        let back = read_json(&serde_json::to_vec(&study).unwrap()).unwrap();
        assert_eq!(back, study);
        let words = || Some(read_words(study.words().unwrap().as_bytes()).unwrap());
        let table = write_csv(&study).unwrap();
        assert_eq!(read_csv(&table, words()).unwrap(), study);
        let array = write_npy(&grid).unwrap();
        assert_eq!(read_npy(&array, words()).unwrap(), study);
        let tensors = write_safetensors(&study).unwrap();
        assert_eq!(read_safetensors(&tensors).unwrap(), study);

        let turned = grid.clone().in_order_of(&[grid.axes[1].clone(), grid.axes[0].clone()]);
        for grid in [grid.select("pos", 1).unwrap(), turned] {
            let texts: Vec<String> = grid.values.iter().copied().map(token).collect();
            assert_eq!(grid.texts, texts);
        }
        grid.texts.pop();
        let error = grid.check().unwrap_err().to_string();
        assert!(error.contains("5 texts and 6 values"), "{error}");
    }

    fn counted(name: &str, axes: &[(&str, usize)]) -> Grid {
        let count: usize = axes.iter().map(|(_, length)| length).product();
        Grid {
            name: name.to_owned(),
            axes: axes.iter().map(|(name, length)| AxisLabels::indices(name, *length)).collect(),
            values: (0..count).map(|value| value as f32).collect(),
            ..Grid::default()
        }
    }

    fn of(grids: Vec<Grid>) -> Study {
        Study { grids, ..Study::default() }
    }

    /// Out of JSON, safetensors and, if the names of the axes differ, CSV.
    fn read_back(study: &Study) -> Vec<Study> {
        let words = || read_words(study.words().unwrap().as_bytes()).unwrap();
        let mut back = vec![
            read_json(&serde_json::to_vec(study).unwrap()).unwrap(),
            read_safetensors(&write_safetensors(study).unwrap()).unwrap(),
        ];
        match write_csv(study) {
            Ok(table) => back.push(read_csv(&table, Some(words())).unwrap()),
            Err(error) => assert!(matches!(error, Error::AxisTwice { .. })),
        }
        back
    }

    #[test]
    fn grids_with_the_same_axes_in_another_order_share_a_table() {
        let study = of(vec![
            counted("a", &[("pos", 2), ("head", 3), ("layer", 2)]),
            counted("b", &[("layer", 2), ("pos", 2), ("head", 3)]),
            counted("c", &[("head", 2), ("pos", 2)]),
        ]);
        for back in read_back(&study) {
            assert_eq!(back, study);
        }
        // Without words the columns say the order, and a number stands where its indices say.
        let bare = read_csv(&write_csv(&study).unwrap(), None).unwrap();
        let part = bare.grids[1].select("layer", 1).unwrap();
        let of_words = study.grids[1].select("layer", 1).unwrap();
        assert_eq!(part.values, of_words.values);
    }

    #[test]
    fn an_axis_named_like_the_labels_of_another_stays_an_axis() {
        let study = of(vec![counted("a", &[("x", 2), ("x_label", 2), ("", 1)])]);
        for back in read_back(&study) {
            assert_eq!(back, study);
        }
        let bare = read_csv(&write_csv(&study).unwrap(), None).unwrap();
        assert_eq!(bare.grids[0].axes, study.grids[0].axes);
    }

    #[test]
    fn words_that_a_form_could_not_keep_are_refused() {
        let twice = of(vec![counted("a", &[("x", 2), ("x", 2)])]);
        let json = serde_json::to_vec(&twice).unwrap();
        assert_eq!(read_json(&json).unwrap(), twice);
        assert!(message(write_csv(&twice)).contains("two axes of \"a\" have the name \"x\""));
        // It is not clear which of them is meant, so they stay where they are.
        let table = b"grid,x,y,value\na,0,0,1\na,0,1,2\na,1,0,3\na,1,1,4\n";
        let read = read_csv(table, Some(twice)).unwrap();
        assert_eq!(read.grids[0].values, [1.0, 2.0, 3.0, 4.0]);

        let ones = [1; MAX_AXES + 1];
        let npy = npy::encode(&ones, &[1.0]);
        assert!(message(read_npy(&npy, None)).contains("65 axes; a grid has 64 at most"));
        assert!(read_npy(&npy::encode(&ones[1..], &[1.0]), None).is_ok());
        let reserved = of(vec![counted("__metadata__", &[("x", 2)])]);
        assert!(message(write_safetensors(&reserved)).contains("no grid can have the name"));
    }

    #[test]
    fn a_center_that_no_file_could_keep_is_none() {
        let of_center = |center: &str| {
            let json = r#"{"grids": [{"name": "a", "axes": [], "values": [1], "center": C}]}"#;
            read_json(json.replace('C', center).as_bytes()).unwrap().grids[0].center
        };
        assert_eq!(of_center("1e39"), None);
        assert_eq!(of_center("null"), None);
        assert_eq!(of_center("-0.5"), Some(-0.5));
    }

    #[test]
    fn numbers_of_another_run_are_refused_beside_these_words() {
        let (one, mut other) = (of(vec![counted("a", &[("x", 2)])]), of(vec![counted("a", &[("x", 2)])]));
        other.grids[0].values[1] = -7.0;
        let words = || read_words(one.words().unwrap().as_bytes()).unwrap();
        assert_eq!(read_csv(&write_csv(&one).unwrap(), Some(words())).unwrap(), one);
        for read in [
            read_csv(&write_csv(&other).unwrap(), Some(words())),
            read_npy(&write_npy(&other.grids[0]).unwrap(), Some(words())),
        ] {
            assert!(message(read).contains("not those that its words were written for"));
        }
        // A bit that has flipped in a file of one piece is seen, too.
        let mut bytes = write_safetensors(&one).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(message(read_safetensors(&bytes)).contains("not those that its words were written for"));
    }

    #[test]
    fn words_that_name_a_grid_often_are_refused_before_copying() {
        let one = of(vec![counted("a", &[("x", 100), ("y", 100)])]);
        let mut many = one.clone();
        many.grids = vec![one.grids[0].clone(); 3];
        let error = message(read_csv(&write_csv(&one).unwrap(), Some(many)));
        assert!(error.contains("two grids have the name \"a\""), "{error}");
    }

    #[test]
    fn many_grids_are_read_in_time() {
        // Each one was looked for among all before it: minutes.
        let mut table = "grid,value\n".to_owned();
        (0..200_000).for_each(|grid| table.push_str(&format!("{grid},1\n")));
        let study = read_csv(table.as_bytes(), None).unwrap();
        assert_eq!(study.grids.len(), 200_000);
    }

    #[test]
    fn a_header_whose_lengths_overflow_64_bits_is_refused() {
        // Each length is right, and all with the header's are 2^64 and a little.
        let length = (1_u64 << 61) - 4;
        let tensor = |at: u64| {
            format!(
                r#""{at}":{{"dtype":"F32","shape":[{}],"data_offsets":[{},{}]}}"#,
                length / 4,
                at * length,
                (at + 1) * length
            )
        };
        let header = format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(","));
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let error = message(read_safetensors(&bytes));
        assert!(error.contains("its tensors have 18446744073709551584 bytes"), "{error}");
    }

    /// JSON has no other numbers than finite ones.
    fn same(a: f32, b: f32, finite: bool) -> bool {
        let kept = |x: f32| {
            if finite && !x.is_finite() { f32::NAN } else { x }
        };
        let (a, b) = (kept(a), kept(b));
        a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_read_of_a_damaged_file_is_written_and_read_again(
            form in 0..4_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..6),
            with_words: bool,
        ) {
            let mut study = study();
            if form == 2 {
                study.grids.truncate(1);
            }
            let mut bytes = match form {
                0 => serde_json::to_vec(&study).unwrap(),
                1 => write_csv(&study).unwrap(),
                2 => write_npy(&study.grids[0]).unwrap(),
                _ => write_safetensors(&study).unwrap(),
            };
            for (at, byte, change) in changes {
                let at = at.index(bytes.len());
                match change {
                    0 => bytes[at] = byte,
                    1 => bytes.insert(at, byte),
                    _ => drop(bytes.remove(at)),
                }
            }
            let words = with_words.then_some(study);
            let read = match form {
                0 => read_json(&bytes),
                1 => read_csv(&bytes, words),
                2 => read_npy(&bytes, words),
                _ => read_safetensors(&bytes),
            };
            if let Ok(study) = read {
                // (JSON loses some of the numbers, and with them their checksum.)
                let words = |study: &Study| {
                    let words = read_words(study.words().unwrap().as_bytes()).unwrap();
                    Study { numbers_sha256: None, ..words }.words().unwrap()
                };
                for (form, back) in read_back(&study).iter().enumerate() {
                    prop_assert_eq!(words(back), words(&study));
                    for (back, grid) in back.grids.iter().zip(&study.grids) {
                        let mut pairs = back.values.iter().zip(&grid.values);
                        prop_assert!(pairs.all(|(&a, &b)| same(a, b, form == 0)));
                    }
                }
            }
        }
    }
}
