//! What a study came to, and how it is said: one [`Report`], from which JSON, text, exports and pictures follow.
//!
//! A study fills a report with facts (for JSON), text (for people), its grids, and which of them make a picture.
//! Each is entered once, where it is known. Whoever prints decides between [`Report::json`] and the
//! [`Block`]s of text; nothing here writes to a file or a terminal.

mod candidate;
mod circuit;
mod grid;
pub mod metric;
mod prompt;
mod words;

use std::collections::BTreeMap;

use figures::{Draw as _, Figure, Undrawable};
use grids::Study;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use self::candidate::{Candidate, candidate, top, top_tables};
pub use self::circuit::circuit_figure;
pub use self::grid::{axis_labels, grid_of_heads, missing_in_words, unpatched_in_words};
pub use self::prompt::Prompt;
pub use self::words::{aligned, highest_heads, largest_heads, pad, pad_left, quoted, signed, write_columns};

/// What a study came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What JSON says beside the grids, by its keys.
    facts: Vec<(String, Box<RawValue>)>,
    /// The grids with the words around them, if the study has any.
    pub study: Option<Study>,
    /// What people read, from top to bottom.
    pub text: Vec<Block>,
    drawings: Vec<Drawing>,
}

/// A piece of the text.
#[derive(Clone, Debug, PartialEq)]
pub enum Block {
    /// Whole lines.
    Text(String),
    /// Labelled rows of cells, as many columns beside each other as the terminal is wide ([`write_columns`]).
    Columns(Vec<(String, Vec<String>)>),
    /// The drawing of this name.
    Drawing(String),
}

/// A picture by its name.
#[derive(Debug)]
struct Drawing {
    name: String,
    of: Drawn,
}

/// What a picture shows.
#[derive(Debug)]
enum Drawn {
    /// Some grids of the study, by their names; all of them if there are none.
    Grids(Vec<String>),
    /// What is no grid.
    Figure(Box<Figure>),
}

impl Report {
    /// A report that says nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fact for JSON.
    ///
    /// # Errors
    /// If the value cannot be written as JSON.
    pub fn fact(&mut self, key: &str, value: impl Serialize) -> serde_json::Result<()> {
        self.facts.push((key.to_owned(), serde_json::value::to_raw_value(&value)?));
        Ok(())
    }

    /// Adds every field of a value that JSON writes as an object.
    ///
    /// # Errors
    /// As [`Report::fact`].
    pub fn flatten(&mut self, value: impl Serialize) -> serde_json::Result<()> {
        let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(&serde_json::to_string(&value)?)?;
        self.facts.extend(fields);
        Ok(())
    }

    /// Adds what JSON says of a prompt: its text, ids and tokens.
    ///
    /// # Errors
    /// As [`Report::fact`].
    pub fn prompt(&mut self, prompt: &Prompt) -> serde_json::Result<()> {
        self.fact("text", &prompt.text)?;
        self.fact("ids", &prompt.ids)?;
        self.fact("tokens", &prompt.tokens)
    }

    /// Adds a line of text, or several.
    pub fn line(&mut self, text: impl AsRef<str>) {
        let line = format!("{}\n", text.as_ref());
        match self.text.last_mut() {
            Some(Block::Text(before)) => before.push_str(&line),
            _ => self.text.push(Block::Text(line)),
        }
    }

    /// Adds labelled rows of cells to the text.
    pub fn columns(&mut self, rows: Vec<(String, Vec<String>)>) {
        self.text.push(Block::Columns(rows));
    }

    /// Says that there is a picture of this name, of these grids of the study, or of all of them if none are named.
    pub fn draw(&mut self, name: &str, grids: &[&str]) {
        let grids = grids.iter().map(|grid| (*grid).to_owned()).collect();
        self.drawings.push(Drawing { name: name.to_owned(), of: Drawn::Grids(grids) });
    }

    /// Says that there is a picture of this name, of something else than grids.
    pub fn draw_figure(&mut self, name: &str, figure: impl Into<Figure>) {
        self.drawings.push(Drawing { name: name.to_owned(), of: Drawn::Figure(Box::new(figure.into())) });
    }

    /// Adds a picture to the text.
    pub fn show(&mut self, name: &str) {
        self.text.push(Block::Drawing(name.to_owned()));
    }

    /// The picture of this name; none if the report has no such picture.
    ///
    /// # Errors
    /// [`Undrawable`] if its grids cannot be drawn.
    pub fn figure(&self, name: &str) -> Result<Option<Figure>, Undrawable> {
        let drawing = self.drawings.iter().find(|drawing| drawing.name == name);
        let (Some(study), Some(drawing)) = (&self.study, drawing) else {
            return Ok(None);
        };
        match &drawing.of {
            Drawn::Grids(grids) if grids.is_empty() => study.figure().map(Some),
            Drawn::Grids(grids) => study.only(grids).figure().map(Some),
            Drawn::Figure(figure) => Ok(Some((**figure).clone())),
        }
    }

    /// The JSON object: the facts, and beside them the study's grids with what made them.
    pub fn json(&self) -> impl Serialize + '_ {
        Json { facts: Facts(&self.facts), study: &self.study }
    }
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    facts: Facts<'a>,
    #[serde(flatten)]
    study: &'a Option<Study>,
}

struct Facts<'a>(&'a [(String, Box<RawValue>)]);

impl Serialize for Facts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use grids::{AxisLabels, Grid};

    use super::*;

    fn report() -> Report {
        let grid = |name: &str| Grid {
            name: name.to_owned(),
            axes: vec![AxisLabels::indices("layer", 1), AxisLabels::indices("head", 2)],
            values: vec![0.1, f32::NAN],
            ..Grid::default()
        };
        let study = Study { grids: vec![grid("a"), grid("b")], ..Study::default() };
        Report { study: Some(study), ..Report::new() }
    }

    #[test]
    fn json_has_the_facts_beside_the_grids_and_no_digit_more() {
        let mut report = report();
        report.fact("model", "tiny").unwrap();
        report.fact("share", 0.1_f32).unwrap();
        let json = serde_json::to_string(&report.json()).unwrap();
        assert!(json.starts_with(r#"{"model":"tiny","share":0.1,"#), "{json}");
        report.flatten(BTreeMap::from([("of_two", 0.2_f32)])).unwrap();
        assert!(serde_json::to_string(&report.json()).unwrap().contains(r#""of_two":0.2,"#));
        assert!(json.contains(r#""values":[0.1,null]"#), "{json}");
        assert_eq!(serde_json::to_string(&Report::new().json()).unwrap(), "{}");
    }

    #[test]
    fn a_picture_is_found_by_its_name_and_has_the_grids_it_names() {
        let mut report = report();
        report.draw("all", &[]);
        report.draw("one", &["b"]);
        report.draw_figure("points", figures::Scatter::default());
        assert!(matches!(report.figure("points"), Ok(Some(Figure::Scatter(_)))));
        assert!(matches!(report.figure("all"), Ok(Some(Figure::Sheet(sheet))) if sheet.panels.len() == 2));
        assert!(matches!(report.figure("one"), Ok(Some(Figure::Heatmap(_)))));
        assert_eq!(report.figure("none"), Ok(None));
    }

    #[test]
    fn lines_follow_each_other_in_one_block() {
        let mut report = Report::new();
        report.line("a");
        report.line(String::from("b"));
        report.show("one");
        report.line("c");
        assert_eq!(report.text.len(), 3);
        assert_eq!(report.text[0], Block::Text("a\nb\n".to_owned()));
    }
}
