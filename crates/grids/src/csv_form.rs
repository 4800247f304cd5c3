//! Grids as CSV in long form: a row for each number.

use std::collections::{BTreeMap, HashMap};
use std::io;

use csv::{ReaderBuilder, Writer};

use crate::{AxisLabels, Error, Grid, MAX_AXES, Study};

/// The ending of the column of an axis's labels, after the axis's name.
const LABEL: &str = "_label";

/// The table of all grids. Axes that a grid does not have are left empty in its rows.
///
/// # Errors
/// As [`Study::check`], and if two axes of a grid have one name.
pub fn write_csv(study: &Study) -> Result<Vec<u8>, Error> {
    study.check()?;
    study.grids.iter().try_for_each(Grid::check_axes)?;
    // The axes of all grids in the order in which they come, and whether one needs its labels.
    let mut axes: Vec<(&str, bool)> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for axis in study.grids.iter().flat_map(|grid| &grid.axes) {
        let labelled = !axis.is_numbered() || !axis.places.is_empty();
        let at = *known.entry(&axis.name).or_insert(axes.len());
        match axes.get_mut(at) {
            Some((_, any)) => *any |= labelled,
            None => axes.push((&axis.name, labelled)),
        }
    }
    // An axis `pos_label` behind `pos` would be taken for its labels, if those did not come between.
    for at in 1..axes.len() {
        axes[at - 1].1 |= axes[at].0.strip_suffix(LABEL) == Some(axes[at - 1].0);
    }
    let mut header = vec!["grid".to_owned()];
    for (name, labelled) in &axes {
        header.push((*name).to_owned());
        header.extend(labelled.then(|| format!("{name}{LABEL}")));
    }
    header.push("value".to_owned());
    let fail = |error: csv::Error| Error::Unwritable { format: "CSV", reason: error.to_string() };
    let mut writer = Writer::from_writer(Vec::new());
    writer.write_record(&header).map_err(fail)?;
    for grid in &study.grids {
        let own = |name: &str| grid.axes.iter().position(|axis| axis.name == name);
        let columns: Vec<(Option<usize>, bool)> =
            axes.iter().map(|&(name, labelled)| (own(name), labelled)).collect();
        for (place, value) in grid.values.iter().enumerate() {
            let index = grid.index_of(place);
            let mut record = vec![grid.name.clone()];
            for &(at, labelled) in &columns {
                record.push(at.map(|at| index[at].to_string()).unwrap_or_default());
                let label = || at.map(|at| grid.axes[at].full_label(index[at]));
                record.extend(labelled.then(|| label().unwrap_or_default()));
            }
            // Rust writes as many digits as the number needs to be read back as it was.
            record.push(value.to_string());
            writer.write_record(&record).map_err(fail)?;
        }
    }
    let bytes = writer.into_inner();
    bytes.map_err(|e| fail(io::Error::from(e.into_error().kind()).into()))
}

/// The grids of a table as [`write_csv`] writes it; the rows of a grid may stand in any order. Words
/// that are not in the table stay empty.
///
/// # Errors
/// The row, and what is wrong there.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<Grid>, String> {
    let mut reader = ReaderBuilder::new().from_reader(behind_separator_line(bytes)?);
    let header = reader.headers().map_err(|e| e.to_string())?.clone();
    let columns: Vec<&str> = header.iter().collect();
    // pandas puts its index in front.
    let first = usize::from(matches!(columns.first(), Some(&("" | "Unnamed: 0"))));
    let ["grid", axis_columns @ .., "value"] = &columns[first..] else {
        return Err(other_columns(&columns));
    };
    let axes = axes(axis_columns, first + 1);
    let mut scattered: Vec<Scattered<'_>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    for (row, record) in reader.records().enumerate() {
        let record = record.map_err(|e| e.to_string())?;
        let row = row + 1;
        let name = &record[first];
        let used = axes.iter().filter(|(_, at, _)| !record[*at].is_empty());
        let used: Vec<_> = used.copied().collect();
        if used.len() > MAX_AXES {
            return Err(format!("row {row}: {} axes; a grid has {MAX_AXES} at most", used.len()));
        }
        let at = match known.get(name) {
            Some(&at) => at,
            None => {
                known.insert(name.to_owned(), scattered.len());
                scattered.push(Scattered::new(name, &used));
                scattered.len() - 1
            }
        };
        let grid = &mut scattered[at];
        if !grid.labels.iter().map(|(name, _)| *name).eq(used.iter().map(|axis| axis.0)) {
            return Err(format!("row {row}: other axes than the first of {name:?}"));
        }
        for ((_, at, label), (_, labels)) in used.iter().zip(&mut grid.labels) {
            let text = &record[*at];
            let broken = |_| format!("row {row}: {text:?} is not an index");
            let index: usize = text.parse().map_err(broken)?;
            let label = label.map_or(text, |at| &record[at]);
            match labels.get_mut(&index) {
                Some(known) if known == label => {}
                Some(known) => label.clone_into(known),
                None => drop(labels.insert(index, label.to_owned())),
            }
            grid.indices.push(index);
        }
        let value = &record[record.len() - 1];
        // pandas writes nothing for NaN.
        let value = if value.is_empty() { "NaN" } else { value };
        let value: f32 = value.parse().map_err(|_| format!("row {row}: {value:?} is not a number"))?;
        grid.values.push(value);
    }
    scattered.into_iter().map(Scattered::gathered).collect()
}

/// An axis in a table: its name, the column of its indices, and that of its labels if there is one.
type AxisColumns<'a> = (&'a str, usize, Option<usize>);

/// The axes in these columns, the first of which has the number `start`.
fn axes<'a>(columns: &[&'a str], start: usize) -> Vec<AxisColumns<'a>> {
    let mut axes: Vec<AxisColumns<'a>> = Vec::new();
    for (column, &name) in (start..).zip(columns) {
        match axes.last_mut() {
            Some((axis, _, labels @ None)) if name.strip_suffix(LABEL) == Some(axis) => {
                *labels = Some(column)
            }
            _ => axes.push((name, column, None)),
        }
    }
    axes
}

/// The table behind Excel's first line that names the separator, if that is a comma.
///
/// # Errors
/// If it is another one.
fn behind_separator_line(bytes: &[u8]) -> Result<&[u8], String> {
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
    let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    let line = line.strip_prefix(b"\"").unwrap_or(line);
    let line = line.strip_suffix(b"\"").unwrap_or(line);
    match line.strip_prefix(b"sep=") {
        None | Some([]) => Ok(bytes),
        Some(b",") => Ok(rest),
        Some(separator) => Err(format!(
            "its columns are separated by {} (its first line says so): save it with commas",
            in_words(&String::from_utf8_lossy(separator))
        )),
    }
}

/// The message for a table without the columns of grids.
fn other_columns(columns: &[&str]) -> String {
    if columns.is_empty() {
        return "the file is empty".to_owned();
    }
    let separator = match columns {
        [only] => [";", "\t", "|"].into_iter().find(|separator| only.contains(separator)),
        _ => None,
    };
    match separator {
        Some(separator) => {
            format!("its columns are separated by {}: save it with commas", in_words(separator))
        }
        None => {
            format!("a table with the columns grid, axes, value is expected; it has {}", columns.join(", "))
        }
    }
}

fn in_words(separator: &str) -> String {
    match separator {
        "\t" => "tabs".to_owned(),
        other => format!("{other:?}"),
    }
}

/// A grid whose rows are being read.
struct Scattered<'a> {
    name: String,
    /// The name of each axis, and the label of each index.
    labels: Vec<(&'a str, BTreeMap<usize, String>)>,
    /// The indices of all rows, one for each axis and row.
    indices: Vec<usize>,
    /// The number of each row.
    values: Vec<f32>,
}

impl<'a> Scattered<'a> {
    fn new(name: &str, axes: &[(&'a str, usize, Option<usize>)]) -> Self {
        Self {
            name: name.to_owned(),
            labels: axes.iter().map(|(name, ..)| (*name, BTreeMap::new())).collect(),
            indices: Vec::new(),
            values: Vec::new(),
        }
    }

    fn gathered(self) -> Result<Grid, String> {
        let name = self.name;
        for (axis, labels) in &self.labels {
            if !labels.keys().copied().eq(0..labels.len()) {
                return Err(format!("the grid {name:?} has gaps along {axis}: rows are missing"));
            }
        }
        let shape: Vec<usize> = self.labels.iter().map(|(_, labels)| labels.len()).collect();
        let cells = shape.iter().try_fold(1_usize, |product, &length| product.checked_mul(length));
        let rows = self.values.len();
        let uneven = || {
            format!(
                "the grid {name:?} has {rows} rows for a shape of {shape:?}: a row for each cell \
                 is expected"
            )
        };
        if cells != Some(rows) {
            return Err(uneven());
        }
        let mut values: Vec<Option<f32>> = vec![None; rows];
        for (row, value) in self.values.into_iter().enumerate() {
            let index = &self.indices[row * shape.len()..(row + 1) * shape.len()];
            // Every index is one along its axis, because there are no gaps.
            let place = index.iter().zip(&shape).fold(0, |at, (i, n)| at * n + i);
            values[place] = Some(value);
        }
        let axes = self.labels.into_iter();
        Ok(Grid {
            // There are as many rows as cells, so if a cell has two, another has none.
            values: values.into_iter().collect::<Option<_>>().ok_or_else(uneven)?,
            axes: axes.map(|(axis, labels)| AxisLabels::new(axis, labels.into_values())).collect(),
            name,
            ..Grid::default()
        })
    }
}
