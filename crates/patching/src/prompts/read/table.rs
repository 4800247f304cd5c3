//! Tables: a header with the names of the columns, and a record on every line (RFC 4180, with any
//! separator). Nothing is kept of a field but where it stands.

use std::borrow::Cow;

use super::cells::Cell;
use super::columns::is_known;
use super::{Flaw, Reader, Row, shown};

/// The most columns that a table may have.
const MAX_COLUMNS: usize = 1000;

/// The separators that are tried, the most common first.
const SEPARATORS: [u8; 4] = [b',', b'\t', b';', b'|'];

/// Reads a table. `preferred` separates the columns if the header does not show which separator it has.
pub fn read(text: &str, preferred: u8, reader: &mut Reader) -> Result<(), Flaw> {
    let mut rows = match after_separator_line(text)? {
        Some((separator, at)) => Rows { at, line: 2, ..Rows::new(text, separator) },
        None => Rows::new(text, separator_of(text, preferred)),
    };
    let mut fields = Vec::new();
    let Some(header) = rows.next(&mut fields)? else {
        return Ok(());
    };
    if header.n_fields > MAX_COLUMNS {
        let reason = format!("the header: it has more than {MAX_COLUMNS} columns");
        return Err((header.line, reason));
    }
    let names: Vec<String> = fields.iter().map(|field| field.text().into_owned()).collect();
    let layout = reader.layout(&names).map_err(|reason| (header.line, format!("the header: {reason}")))?;
    while let Some(row) = rows.next(&mut fields)? {
        if row.n_fields != names.len() {
            let reason = format!(
                "it has {} fields where the header has {}; a text with {} or a line break must stand in \
                 quotes",
                row.n_fields,
                names.len(),
                separator_in_words(rows.separator)
            );
            return Err((row.line, reason));
        }
        let cell = |place: usize| Ok(Cell::of_table(fields[place].text()));
        let row_of_names = Row { number: row.line, names: &names, layout: &layout, cell: &cell };
        reader.add(&row_of_names).map_err(|reason| (row.line, reason))?;
    }
    Ok(())
}

/// Excel's first line that names the separator (`sep=;`): that, and the place after the line.
fn after_separator_line(text: &str) -> Result<Option<(u8, usize)>, Flaw> {
    let (line, _) = text.split_once(['\r', '\n']).unwrap_or((text, ""));
    let Some(separator) = line.trim_matches('"').strip_prefix("sep=") else {
        return Ok(None);
    };
    match separator.as_bytes() {
        [separator] if !matches!(separator, b'"' | 0..=8 | 10..=31) => {
            Ok(Some((*separator, line_end(text, line.len()))))
        }
        _ => Err((1, format!("\"{}\" names no separator: sep= and one character", shown(line)))),
    }
}

/// The place after the line end at `at`, if there is one.
fn line_end(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    let length = if rest.starts_with("\r\n") { 2 } else { rest.len().min(1) };
    at + length
}

/// The separator that makes the most names known in the header.
fn separator_of(text: &str, preferred: u8) -> u8 {
    let n_known = |separator: u8| {
        let mut fields = Vec::new();
        let header = Rows::new(text, separator).next(&mut fields);
        match header {
            Ok(Some(_)) => fields.iter().filter(|field| is_known(&field.text())).count(),
            _ => 0,
        }
    };
    let mut best = (preferred, n_known(preferred));
    for separator in SEPARATORS {
        let n = n_known(separator);
        if n > best.1 {
            best = (separator, n);
        }
    }
    best.0
}

fn separator_in_words(separator: u8) -> String {
    match separator {
        b',' => "a comma".to_owned(),
        b'\t' => "a tab".to_owned(),
        b';' => "a semicolon".to_owned(),
        other => format!("\"{}\"", char::from(other)),
    }
}

/// A field as it stands in the file, without the quotes around it.
#[derive(Clone, Copy, Debug)]
struct RawField<'a> {
    raw: &'a str,
    quoted: bool,
}

impl<'a> RawField<'a> {
    /// Its text: within quotes, a doubled quote stands for one.
    fn text(self) -> Cow<'a, str> {
        if self.quoted && self.raw.contains('"') {
            Cow::Owned(self.raw.replace("\"\"", "\""))
        } else {
            Cow::Borrowed(self.raw)
        }
    }
}

/// A record of a table.
struct RawRow {
    /// The line on which it begins, from 1.
    line: usize,
    /// How many fields it has, of which at most [`MAX_COLUMNS`] are kept.
    n_fields: usize,
}

/// The records of a table, one after the other. A line ends with `\n`, `\r\n` or `\r`.
struct Rows<'a> {
    text: &'a str,
    separator: u8,
    at: usize,
    /// The line of the byte at `at`, from 1.
    line: usize,
}

impl<'a> Rows<'a> {
    fn new(text: &'a str, separator: u8) -> Self {
        Self { text, separator, at: 0, line: 1 }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next record that is not blank, with its fields.
    fn next(&mut self, fields: &mut Vec<RawField<'a>>) -> Result<Option<RawRow>, Flaw> {
        loop {
            fields.clear();
            if self.byte().is_none() {
                return Ok(None);
            }
            let mut row = RawRow { line: self.line, n_fields: 0 };
            let mut blank = true;
            loop {
                let field = self.field()?;
                blank &= field.raw.trim().is_empty() && !field.quoted;
                row.n_fields += 1;
                if fields.len() < MAX_COLUMNS {
                    fields.push(field);
                }
                if self.byte() != Some(self.separator) {
                    break;
                }
                self.at += 1;
            }
            if self.byte().is_some() {
                self.at = line_end(self.text, self.at);
                self.line += 1;
            }
            if !blank {
                return Ok(Some(row));
            }
        }
    }

    /// The field that begins here; what follows is a separator, a line end or the end.
    fn field(&mut self) -> Result<RawField<'a>, Flaw> {
        if self.byte() == Some(b'"') {
            return self.quoted_field();
        }
        let rest = &self.text.as_bytes()[self.at..];
        let ends = |byte: &u8| *byte == self.separator || matches!(byte, b'\r' | b'\n');
        let length = rest.iter().position(ends).unwrap_or(rest.len());
        let raw = &self.text[self.at..self.at + length];
        self.at += length;
        Ok(RawField { raw, quoted: false })
    }

    fn quoted_field(&mut self) -> Result<RawField<'a>, Flaw> {
        let (start, first_line) = (self.at + 1, self.line);
        let bytes = self.text.as_bytes();
        self.at = start;
        loop {
            match bytes.get(self.at) {
                None => {
                    return Err((first_line, "a quote is opened here and never closed".to_owned()));
                }
                Some(b'"') if bytes.get(self.at + 1) == Some(&b'"') => self.at += 1,
                Some(b'"') => break,
                Some(b'\n') => self.line += 1,
                Some(b'\r') if bytes.get(self.at + 1) != Some(&b'\n') => self.line += 1,
                Some(_) => {}
            }
            self.at += 1;
        }
        let raw = &self.text[start..self.at];
        self.at += 1;
        match self.byte() {
            Some(byte) if byte != self.separator && !matches!(byte, b'\r' | b'\n') => Err((
                self.line,
                "text after a closing quote; a quote within a quoted text is written twice".to_owned(),
            )),
            _ => Ok(RawField { raw, quoted: true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str, separator: u8) -> Result<Vec<(usize, Vec<String>)>, Flaw> {
        let mut rows = Rows::new(text, separator);
        let mut fields = Vec::new();
        let mut all = Vec::new();
        while let Some(row) = rows.next(&mut fields)? {
            assert_eq!(row.n_fields, fields.len());
            all.push((row.line, fields.iter().map(|field| field.text().into_owned()).collect()));
        }
        Ok(all)
    }

    #[test]
    fn the_separator_is_the_one_that_makes_names_known() {
        for (header, separator) in [
            ("clean,corrupted,a,b", b','),
            ("clean\tcorrupted", b'\t'),
            ("\"clean\";\"corrupted\";\"note, long\"", b';'),
            ("id|clean|corrupted", b'|'),
            ("clean", b','),
            ("\"a", b','),
            ("x;y", b','),
        ] {
            assert_eq!(separator_of(header, b','), separator, "{header}");
        }
        assert_eq!(separator_of("clean", b'\t'), b'\t');
    }

    #[test]
    fn a_line_of_sixty_million_commas_is_counted_and_not_kept() {
        let text = ",".repeat(1 << 20) + "x";
        let mut fields = Vec::new();
        let row = Rows::new(&text, b',').next(&mut fields).unwrap().unwrap();
        assert_eq!((row.n_fields, fields.len()), ((1 << 20) + 1, MAX_COLUMNS));
        assert!(fields.capacity() < 4 * MAX_COLUMNS);
    }

    proptest! {
        /// The csv crate reads what is refused nowhere as these rows do.
        #[test]
        fn rows_are_those_of_the_csv_crate(
            text in "([a\u{e9}]|,|;|\"|\"\"|\r|\n|\r\n| ){0,40}",
            separator in prop::sample::select(vec![b',', b';']),
        ) {
            let Ok(ours) = rows(&text, separator) else {
                return Ok(());
            };
            let mut theirs = csv::ReaderBuilder::new()
                .has_headers(false)
                .flexible(true)
                .delimiter(separator)
                .from_reader(text.as_bytes());
            let theirs: Vec<Vec<String>> = theirs
                .records()
                .map(|record| record.unwrap().iter().map(str::to_owned).collect())
                .collect();
            // Of records that are all blank, we keep only those in quotes.
            let is_blank = |fields: &[String]| fields.iter().all(|field: &String| field.trim().is_empty());
            let ours: Vec<Vec<String>> = ours.into_iter().map(|(_, fields)| fields).collect();
            let not_blank = |rows: Vec<Vec<String>>| -> Vec<Vec<String>> {
                rows.into_iter().filter(|fields| !is_blank(fields)).collect()
            };
            prop_assert_eq!(not_blank(ours), not_blank(theirs));
        }
    }
}
