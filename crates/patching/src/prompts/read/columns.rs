//! Which column of a file plays which role.

use super::shown;

/// What a column holds of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Clean,
    Corrupted,
    A,
    B,
}

/// What a reader needs of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Both prompts, and the answers that are there.
    Pairs,
    /// The clean prompt alone.
    Clean,
}

impl Role {
    const ALL: [Self; 4] = [Self::Clean, Self::Corrupted, Self::A, Self::B];

    /// The names of its columns, the own one first. Upper and lower case are the same, and so are
    /// blanks, hyphens and underscores.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Clean => &[
                "clean",
                "clean_prompt",
                "clean_text",
                "clean_input",
                "clean_prefix",
                "clean_sentence",
                "prompt",
                "text",
            ],
            Self::Corrupted => &[
                "corrupted",
                "corrupt",
                "corrupted_prompt",
                "corrupt_prompt",
                "corrupted_text",
                "corrupt_text",
                "corrupted_input",
                "corrupt_input",
                "corrupted_prefix",
                "corrupt_prefix",
                "corrupted_sentence",
                "patch_prefix",
                "counterfactual",
                "counterfactual_prompt",
            ],
            Self::A => &[
                "a",
                "answer",
                "answers",
                "correct",
                "correct_answer",
                "correct_answers",
                "correct_token",
                "correct_tokens",
                "clean_answer",
                "clean_answers",
                "right_answer",
                "right_answers",
            ],
            Self::B => &[
                "b",
                "wrong",
                "wrong_answer",
                "wrong_answers",
                "wrong_token",
                "wrong_tokens",
                "incorrect",
                "incorrect_answer",
                "incorrect_answers",
                "incorrect_token",
                "incorrect_tokens",
                "corrupted_answer",
                "corrupted_answers",
                "corrupt_answer",
                "corrupt_answers",
                "patch_answer",
                "patch_answers",
                "counterfactual_answer",
                "counterfactual_answers",
            ],
        }
    }

    /// Names that count only with an ending for ids: EAP-IG's country_idx holds an answer, and its
    /// country a name without the space.
    fn names_of_ids(self) -> &'static [&'static str] {
        match self {
            Self::A => &["country"],
            Self::B => &["corrupted_country"],
            Self::Clean | Self::Corrupted => &[],
        }
    }

    /// The endings that say that a column holds token ids. A `prompt_id` or `clean_idx` is the number of a
    /// record, not a prompt.
    fn id_endings(self) -> &'static [&'static str] {
        match self {
            Self::Clean | Self::Corrupted => &["_token_ids", "_input_ids", "_ids"],
            Self::A | Self::B => &["_token_ids", "_token_id", "_idxs", "_idx", "_ids", "_id"],
        }
    }
}

/// A name that plays a role.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    role: Role,
    /// Whether the name says that the column holds token ids.
    ids: bool,
    /// The name without that ending and without a plural's s.
    base: String,
}

impl Known {
    fn of(name: &str) -> Option<Self> {
        let name = normal(name);
        let singular = |name: &str| name.strip_suffix('s').unwrap_or(name).to_owned();
        Role::ALL.into_iter().find_map(|role| {
            if role.names().contains(&name.as_str()) {
                let base = singular(&name);
                return Some(Self { role, ids: false, base });
            }
            let endings = role.id_endings().iter();
            let base = endings.filter_map(|ending| name.strip_suffix(ending));
            let mut known =
                base.filter(|base| role.names().contains(base) || role.names_of_ids().contains(base));
            known.next().map(|base| Self { role, ids: true, base: singular(base) })
        })
    }
}

/// Whether a column of this name plays a role.
pub fn is_known(name: &str) -> bool {
    Known::of(name).is_some()
}

/// Whether a column of this name holds prompts.
pub fn is_prompt(name: &str) -> bool {
    Known::of(name).is_some_and(|known| matches!(known.role, Role::Clean | Role::Corrupted))
}

/// A name as names are compared.
pub fn normal(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '-'], "_")
}

/// A column that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its place among the record's columns.
    pub place: usize,
    /// Whether its name says that it holds token ids.
    pub ids: bool,
    /// Of answers as ids: the column beside it that holds the same answers as texts.
    pub text: Option<usize>,
}

/// A column that may hold years, of which the answers are made (see [`super::years`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YearColumn {
    pub place: usize,
    /// Whether it is a column of answers, so that its number is a token id if it is not a year.
    pub is_answer: bool,
}

/// Where everything stands in a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub clean: Column,
    pub corrupted: Option<Column>,
    pub a: Option<Column>,
    pub b: Option<Column>,
    pub years: Option<YearColumn>,
    /// A column with possible answers: then a number may be a place in it.
    pub choices: Option<usize>,
    /// The columns that are not read.
    pub passed_over: Vec<usize>,
}

impl Layout {
    /// The layout of a record with columns of these names.
    pub fn of(names: &[impl AsRef<str>], wanted: Wanted) -> Result<Self, String> {
        let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
        let known: Vec<Option<Known>> = names.iter().map(|name| Known::of(name)).collect();
        for (i, name) in names.iter().enumerate() {
            let same = |other: &&str| normal(other) == normal(name);
            if known[i].is_some() && names[..i].iter().any(same) {
                return Err(format!("column \"{}\" is there twice", shown(name)));
            }
        }
        let find = |name: &str| names.iter().position(|other| normal(other) == name);
        let column = |role: Role| column(role, &names, &known);
        let needed = |role: Role| column(role)?.ok_or_else(|| missing(role, &names));
        let clean = needed(Role::Clean)?;
        if wanted == Wanted::Clean {
            let others = (0..names.len()).filter(|place| *place != clean.place);
            return Ok(Self {
                clean,
                corrupted: None,
                a: None,
                b: None,
                years: None,
                choices: None,
                passed_over: others.filter(|&place| known[place].is_none()).collect(),
            });
        }
        let (a, b) = (column(Role::A)?, column(Role::B)?);
        let years = match (a, b) {
            (Some(a), None) if a.text.is_none() && normal(names[a.place]) == "correct_idx" => {
                Some((a.place, true))
            }
            (None, None) => find("year").or(find("label")).map(|place| (place, false)),
            _ => None,
        };
        let choices = ["choices", "options", "answer_choices", "candidates"];
        let read = [a, b].into_iter().flatten().filter_map(|column| column.text);
        let read: Vec<usize> = read.chain(years.map(|(place, _)| place)).collect();
        Ok(Self {
            clean,
            corrupted: Some(needed(Role::Corrupted)?),
            a,
            b,
            years: years.map(|(place, is_answer)| YearColumn { place, is_answer }),
            choices: choices.into_iter().find_map(find),
            passed_over: (0..names.len())
                .filter(|place| known[*place].is_none() && !read.contains(place))
                .collect(),
        })
    }
}

/// The column of a role. Answers may stand there twice, as ids and as texts.
fn column(role: Role, names: &[&str], known: &[Option<Known>]) -> Result<Option<Column>, String> {
    let places = known.iter().enumerate();
    let of_role = places.filter_map(|(i, known)| Some((i, known.as_ref()?)));
    let found: Vec<(usize, &Known)> = of_role.filter(|(_, known)| known.role == role).collect();
    let with_text = |place: usize, text: Option<usize>| Column {
        place,
        ids: known[place].as_ref().is_some_and(|known| known.ids),
        text,
    };
    match found[..] {
        [] => Ok(None),
        [(place, one)] => {
            let is_text = |name: &&str| one.ids && Known::of(name).is_none() && normal(name) == one.base;
            let text = names.iter().position(is_text);
            Ok(Some(with_text(place, text)))
        }
        [(i, first), (j, second)]
            if first.base == second.base && first.ids != second.ids && matches!(role, Role::A | Role::B) =>
        {
            let (ids, text) = if first.ids { (i, j) } else { (j, i) };
            Ok(Some(with_text(ids, Some(text))))
        }
        [(i, _), (j, _), ..] => Err(format!(
            "columns \"{}\" and \"{}\" both stand for \"{}\"; keep one of them",
            shown(names[i]),
            shown(names[j]),
            role.names()[0]
        )),
    }
}

/// The message for a missing column: which one may be meant, and its possible names.
fn missing(role: Role, names: &[&str]) -> String {
    const SHOWN: usize = 12;
    let near = nearest(role, names).map_or_else(String::new, |name| format!(" (is it \"{}\"?)", shown(name)));
    let mut here: Vec<String> = names.iter().take(SHOWN).map(|name| format!("\"{}\"", shown(name))).collect();
    if names.len() > SHOWN {
        here.push(format!("{} more", names.len() - SHOWN));
    }
    if here.is_empty() {
        here.push("none".to_owned());
    }
    format!(
        "column \"{}\" is missing{near}; the columns here are {}; it may be called {}",
        role.names()[0],
        here.join(", "),
        role.names().join(", ")
    )
}

/// The name that is most like one of a role's names, if any is.
fn nearest<'a>(role: Role, names: &[&'a str]) -> Option<&'a str> {
    const LONGEST: usize = 40;
    let likeness = |name: &str| {
        let name = normal(name);
        let each = role.names().iter();
        each.map(|known| strsim::jaro_winkler(&name, known)).fold(0.0, f64::max)
    };
    let unknown = names.iter().filter(|name| name.len() <= LONGEST && !is_known(name));
    unknown
        .map(|name| (*name, likeness(name)))
        .filter(|(_, likeness)| *likeness > 0.85)
        .max_by(|(_, x), (_, y)| x.total_cmp(y))
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(names: &[&str]) -> Result<Layout, String> {
        Layout::of(names, Wanted::Pairs)
    }

    fn column(place: usize, ids: bool, text: Option<usize>) -> Option<Column> {
        Some(Column { place, ids, text })
    }

    #[test]
    fn every_name_has_one_role_with_and_without_ids() {
        for role in Role::ALL {
            for name in role.names() {
                for spelling in [name.to_uppercase(), format!(" {} ", name.replace('_', " "))] {
                    let known = Known::of(&spelling).unwrap();
                    assert_eq!((known.role, known.ids), (role, false), "{spelling}");
                }
                let known = Known::of(&format!("{name}_ids")).unwrap();
                assert_eq!((known.role, known.ids), (role, true), "{name}");
            }
        }
        for name in ["", "id", "idx", "prompt_id", "clean_idx", "aid", "country", "label", "a_", "plural"] {
            assert_eq!(Known::of(name), None, "{name}");
        }
    }

    #[test]
    fn columns_are_found_in_any_order_among_others() {
        let found = layout(&["", "Wrong_Answers", "note", "CORRUPT", "clean", "answers"]).unwrap();
        assert_eq!(Some(found.clean), column(4, false, None));
        assert_eq!(found.corrupted, column(3, false, None));
        assert_eq!((found.a, found.b), (column(5, false, None), column(1, false, None)));
        assert_eq!(found.passed_over, [0, 2]);
    }

    #[test]
    fn ids_are_read_and_the_texts_beside_them_compared() {
        let found = layout(&["clean", "answers", "answers_idx", "corrupted", "wrong", "wrong_ids"]).unwrap();
        assert_eq!((found.a, found.b), (column(2, true, Some(1)), column(5, true, Some(4))));
        let found = layout(&["clean", "country", "country_idx", "corrupted"]).unwrap();
        assert_eq!(found.a, column(2, true, Some(1)));
        assert!(found.passed_over.is_empty());
    }

    #[test]
    fn two_columns_of_one_role_are_refused_by_name() {
        for (names, message) in [
            (
                &["clean", "prompt", "corrupted"][..],
                "columns \"clean\" and \"prompt\" both stand for \"clean\"",
            ),
            (&["clean", "clean_ids", "corrupted"], "columns \"clean\" and \"clean_ids\" both"),
            (&["clean", "corrupted", "a", "correct"], "columns \"a\" and \"correct\" both stand for \"a\""),
            (&["clean", "corrupted", "answer", "correct_idx"], "columns \"answer\" and \"correct_idx\" both"),
            (&["clean", "corrupted", "Clean "], "column \"Clean \" is there twice"),
        ] {
            let error = layout(names).unwrap_err();
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_missing_column_is_named_with_what_may_be_meant() {
        let error = layout(&["clean", "corupted"]).unwrap_err();
        assert!(
            error.starts_with(
                "column \"corrupted\" is missing (is it \"corupted\"?); the columns here are \"clean\", \
                 \"corupted\"; it may be called corrupted, corrupt, "
            ),
            "{error}"
        );
        let error = layout(&["zzz", "corrupted"]).unwrap_err();
        assert!(error.starts_with("column \"clean\" is missing; the columns"), "{error}");
        assert!(Layout::of(&["text"], Wanted::Clean).is_ok());
    }
}
