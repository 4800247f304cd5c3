//! What users type parses from and prints as its name.

use std::fmt::Display;
use std::str::FromStr;

use patching::path::{Reader, Senders};
use patching::prompts::{Align, Corruption};
use patching::{Engine, Method};

fn check<T: Display + FromStr<Err = String> + PartialEq + std::fmt::Debug>(all: &[T], names: &[&str]) {
    assert_eq!(all.iter().map(T::to_string).collect::<Vec<_>>(), names);
    for (value, name) in all.iter().zip(names) {
        assert_eq!(name.parse::<T>().as_ref(), Ok(value));
    }
    let error = "nonsense".parse::<T>().expect_err("no such name");
    assert!(error.contains("\"nonsense\"") && names.iter().all(|name| error.contains(name)), "{error}");
}

#[test]
fn every_name_is_read_as_it_is_printed() {
    check(&Engine::ALL, &["incremental", "plain"]);
    check(&Align::ALL, &["first-difference", "end"]);
    check(&Corruption::ALL, &["swap", "abc"]);
    check(&Senders::ALL, &["z", "mlp_out", "embed"]);
    check(&Reader::ALL, &["logits", "q", "k", "v", "mlp"]);
    check(&Method::ALL, &["atp", "relp", "atp-star", "ig"]);
}
