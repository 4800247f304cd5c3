//! Texts that begin with a dash: `patch-cli predict '- item'`.
//!
//! Whoever looks at a list or at code writes such prompts, and a command line takes them for options. The
//! rule here is
//!
//! - the value of an option that takes a text is a text, whatever it begins with (clap's
//!   `allow_hyphen_values`), unless it is the name of another option: then the value is missing;
//! - a prompt that begins with one dash is a text, unless it is a short flag (`-h`), or the name of an
//!   option with one dash too few (`-model`);
//! - what begins with two dashes and a letter is an option. If there is none of that name clap says so, and
//!   which one may have been meant. (`--> x` is a text.) `--` makes everything behind it a text.
//!
//! clap alone would take `--modle` for the prompt as soon as `- item` may be one. So its own rule stays as it
//! is, and the texts are moved behind a `--` before clap sees them.

use std::ffi::OsString;

use clap::{Arg, Command};

/// The arguments as they were typed, the program's name first, with the texts that begin with a dash, and
/// all that follow them, moved behind a `--` (where a subcommand's positional arguments, called `text`, are
/// texts). Where the value of an option is missing they end there, so that clap says so.
pub fn texts_behind_escape(command: &Command, typed: Vec<OsString>) -> Vec<OsString> {
    let name = typed.get(1).and_then(|name| name.to_str());
    let subcommand = name.and_then(|name| command.find_subcommand(name));
    let named = 1 + usize::from(subcommand.is_some());
    let mut command = subcommand.unwrap_or(command).clone();
    command.build();
    let mut positionals = command.get_positionals();
    let takes_texts = positionals.any(|arg| arg.get_id() == "text");
    let mut typed = typed.into_iter().peekable();
    let mut others: Vec<OsString> = typed.by_ref().take(named).collect();
    let mut texts = Vec::new();
    let mut is_escaped = false;
    while let Some(arg) = typed.next() {
        if arg == "--" {
            is_escaped = true;
            texts.extend(typed);
            break;
        }
        if let Some(option) = option_named(&command, &arg) {
            let [least, most] = values_behind(option, &arg);
            others.push(arg);
            for count in 0..most {
                let is_value = |next: &OsString| count < least || may_follow(option, next);
                let value = typed.next_if(is_value);
                if value.iter().any(|value| option_named(&command, value).is_some()) {
                    return others;
                }
                others.extend(value);
            }
            continue;
        }
        let is_text = match starts_with_dash(&arg) {
            true => may_be_text(&arg).is_some_and(|name| !is_known(&command, name)),
            false => !texts.is_empty(),
        };
        match is_text && takes_texts {
            true => texts.push(arg),
            false => others.push(arg),
        }
    }
    if is_escaped || !texts.is_empty() {
        others.push("--".into());
        others.extend(texts);
    }
    others
}

fn starts_with_dash(arg: &OsString) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}

/// What follows the dash of an argument that begins with one, unless that is a dash and a letter, or nothing.
fn may_be_text(arg: &OsString) -> Option<&str> {
    let rest = arg.to_str()?.strip_prefix('-')?;
    let second = rest.strip_prefix('-');
    let is_option =
        second.is_some_and(|name| name.is_empty() || name.starts_with(|letter: char| letter.is_alphabetic()));
    (!rest.is_empty() && !is_option).then_some(rest)
}

/// Whether these letters are short flags, or the name of an option that lacks a dash.
fn is_known(command: &Command, letters: &str) -> bool {
    let is_short = |letter: char| {
        let mut args = command.get_arguments();
        args.any(|arg| arg.get_short() == Some(letter))
    };
    let double = OsString::from(format!("--{letters}"));
    letters.chars().all(is_short) || option_named(command, &double).is_some()
}

/// The option that an argument is: `--top`, or `--top=3`.
fn option_named<'a>(command: &'a Command, arg: &OsString) -> Option<&'a Arg> {
    let name = arg.to_str()?.strip_prefix("--")?.split('=').next()?;
    let is_called = |arg: &&Arg| {
        let names = arg.get_long_and_visible_aliases();
        names.is_some_and(|names| names.contains(&name))
    };
    command.get_arguments().find(is_called)
}

/// How many of the arguments behind an option, which was typed like this, are its values, at least and at
/// most.
fn values_behind(option: &Arg, typed: &OsString) -> [usize; 2] {
    let takes_none = !option.get_action().takes_values()
        || option.is_require_equals_set()
        || typed.as_encoded_bytes().contains(&b'=');
    let values = option.get_num_args().filter(|_| !takes_none);
    values.map_or([0, 0], |values| [values.min_values(), values.max_values()])
}

/// Whether an argument may be one of the values that an option can do without.
fn may_follow(option: &Arg, next: &OsString) -> bool {
    let is_number = || next.to_str().is_some_and(|next| next.parse::<f64>().is_ok());
    !starts_with_dash(next) || (option.is_allow_negative_numbers_set() && is_number())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(typed: &str) -> String {
        let typed = typed.split('|').map(OsString::from).collect();
        let args = texts_behind_escape(&crate::full_command(), typed);
        let args: Vec<&str> = args.iter().map(|arg| arg.to_str().unwrap()).collect();
        args.join("|")
    }

    #[test]
    fn a_text_that_begins_with_a_dash_is_no_option() {
        for (typed, expected) in [
            ("p|predict|- item|--top|3", "p|predict|--top|3|--|- item"),
            ("p|predict|--top|3|-x the cat", "p|predict|--top|3|--|-x the cat"),
            ("p|tokens|a|-5|b|--json|c", "p|tokens|a|--json|--|-5|b|c"),
            ("p|tokens|-a|--|--b|-c", "p|tokens|--|-a|--b|-c"),
            ("p|ablate|--with|zero|-x", "p|ablate|--with|zero|--|-x"),
            ("p|ablate|--with|other-position|-1|-2", "p|ablate|--with|other-position|-1|--|-2"),
            ("p|lens|-x|--answers|-1|-2|--process", "p|lens|--answers|-1|-2|--process|--|-x"),
            ("p|predict|-hello", "p|predict|--|-hello"),
            ("p|predict|--> x", "p|predict|--|--> x"),
            ("p|predict|-- he said", "p|predict|--|-- he said"),
        ] {
            assert_eq!(moved(typed), expected);
        }
    }

    #[test]
    fn options_their_values_and_other_commands_stay() {
        for typed in [
            "p|predict|x|--answer|-1",
            "p|predict|x|--answer=-1",
            "p|predict|x|--answer|--|--top|3",
            "p|predict|x|-h",
            "p|predict|-model|tiny",
            "p|predict|--modle|tiny",
            "p|predict|--|-x",
            "p|predict|-",
            "p|plot|-x.csv",
            "p|--clean|-x|--corrupted|-y",
            "p|-x",
            "p",
        ] {
            assert_eq!(moved(typed), typed);
        }
    }

    #[test]
    fn an_option_in_the_place_of_a_value_means_that_it_is_missing() {
        for (typed, expected) in [
            ("p|lens|x|--answers|-1|--model|tiny", "p|lens|x|--answers|-1"),
            ("p|predict|x|--answer|--top=3", "p|predict|x|--answer"),
            ("p|--clean|--corrupted|x", "p|--clean"),
        ] {
            assert_eq!(moved(typed), expected);
        }
    }
}
