//! Indirect object identification: pairs of prompts from templates.
//!
//! "Then, John and Mary went to the store. John gave a drink to" … Mary. John is the *subject* (S, which
//! stands there twice), Mary the *indirect object* (IO, the answer). The fifteen templates, the places
//! and the objects are those of Wang et al. 2022, *Interpretability in the Wild* (arXiv 2211.00593,
//! appendix E): in BABA order the subject is named first, in ABBA order the indirect object.

use std::fmt;
use std::str::FromStr;

use gpt2::Pretrained;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{Error, Numbering, PromptPair, PromptSet};

/// In BABA order: B is the subject, A the indirect object.
const TEMPLATES: [&str; 15] = [
    "Then, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a lot of fun at the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] were working at the [PLACE]. [B] decided to give a [OBJECT] to",
    "Then, [B] and [A] were thinking about going to the [PLACE]. [B] wanted to give a [OBJECT] to",
    "Then, [B] and [A] had a long argument, and afterwards [B] said to",
    "After [B] and [A] went to the [PLACE], [B] gave a [OBJECT] to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give it to",
    "When [B] and [A] got a [OBJECT] at the [PLACE], [B] decided to give the [OBJECT] to",
    "While [B] and [A] were working at the [PLACE], [B] gave a [OBJECT] to",
    "While [B] and [A] were commuting to the [PLACE], [B] gave a [OBJECT] to",
    "After the lunch, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Afterwards, [B] and [A] went to the [PLACE]. [B] gave a [OBJECT] to",
    "Then, [B] and [A] had a long argument. Afterwards [B] said to",
    "The [PLACE] [B] and [A] went to had a [OBJECT]. [B] gave it to",
    "Friends [B] and [A] found a [OBJECT] at the [PLACE]. [B] gave it to",
];

const PLACES: [&str; 8] =
    ["store", "garden", "restaurant", "school", "hospital", "office", "house", "station"];

const OBJECTS: [&str; 8] = ["ring", "kiss", "bone", "basketball", "computer", "necklace", "drink", "snack"];

/// First names that are hardly ever anything else.
#[rustfmt::skip]
const NAMES: [&str; 96] = [
    "Aaron", "Adam", "Alice", "Amanda", "Amy", "Andrea", "Andrew", "Angela", "Anna", "Anthony", "Arthur",
    "Barbara", "Ben", "Brandon", "Brian", "Carol", "Catherine", "Charlotte", "Christina", "Claire",
    "Colin", "Connor", "Craig", "Daniel", "David", "Deborah", "Dennis", "Diana", "Donna", "Dylan",
    "Edward", "Elizabeth", "Ellen", "Emily", "Emma", "Eric", "Erin", "Ethan", "Eva", "Frank", "Fred",
    "Gary", "George", "Gregory", "Hannah", "Heather", "Helen", "Henry", "Isaac", "Jack", "Jacob", "James",
    "Jane", "Jason", "Jennifer", "Jeremy", "Jessica", "John", "Jonathan", "Joseph", "Joshua", "Julia",
    "Justin", "Karen", "Kate", "Kevin", "Kyle", "Laura", "Lisa", "Lucy", "Luke", "Margaret", "Maria",
    "Martha", "Mary", "Matthew", "Megan", "Melissa", "Michael", "Michelle", "Nancy", "Nathan", "Nicholas",
    "Nicole", "Olivia", "Patrick", "Paul", "Peter", "Rachel", "Rebecca", "Richard", "Robert", "Ruth",
    "Sarah", "Simon", "Thomas",
];

/// How the corrupted prompt of a pair is made from the clean one. All names are single tokens, so the
/// two have equally many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Corruption {
    /// The second mention of the subject becomes the indirect object's name: "… Mary gave a drink to",
    /// and the right answer is now the other one. This is what TransformerLens's tutorial does, and the
    /// default here: the prompts differ in a single token (so positions can be counted from it), and the
    /// metric of the corrupted run is the clean one's with its sign turned, or nearly.
    #[default]
    SwappedSubject,
    /// All three mentions of names become three other names, each there once: "Then, Paul and Emma …
    /// Lucy gave a drink to". Neither answer is in the prompt any more: what Wang et al. 2022 call
    /// p_ABC, and use for path patching.
    Abc,
}

impl Corruption {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::SwappedSubject, Self::Abc];
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SwappedSubject => "swap",
            Self::Abc => "abc",
        })
    }
}

impl FromStr for Corruption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|corruption| corruption.to_string() == text);
        found.ok_or_else(|| format!("there is no corruption \"{text}\"; give swap or abc"))
    }
}

/// Pairs of the indirect-object task, drawn at random. Half of them are in ABBA, half in BABA order.
/// The answer `a` is the indirect object, `b` the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ioi {
    /// How many pairs.
    pub count: usize,
    /// Equal seeds give equal pairs.
    pub seed: u64,
    /// How the corrupted prompts are made.
    pub corruption: Corruption,
}

impl Default for Ioi {
    /// 50 pairs with the seed 0 and a swapped subject.
    fn default() -> Self {
        Self { count: 50, seed: 0, corruption: Corruption::default() }
    }
}

impl Ioi {
    /// The most pairs that are made.
    pub const MAX_COUNT: usize = 100_000;

    /// The pairs. For a model that was trained on some tokens only, names, places, objects and
    /// templates with any other token are left out, and so are words that the model splits into several
    /// tokens.
    ///
    /// # Errors
    /// If no pairs or more than [`Ioi::MAX_COUNT`] are asked for, or the model knows too few words.
    pub fn prompts(&self, pretrained: &Pretrained) -> Result<PromptSet, Error> {
        if !(1..=Self::MAX_COUNT).contains(&self.count) {
            let reason =
                format!("{} pairs were asked for; give a number from 1 to {}", self.count, Self::MAX_COUNT);
            return Err(Error::Request { reason });
        }
        let mut words = Words::known(pretrained);
        let needed = match self.corruption {
            Corruption::SwappedSubject => 2,
            Corruption::Abc => 5,
        };
        if words.names.len() < needed || words.templates.is_empty() {
            let reason = format!(
                "the model {} was trained on {} of the names and {} of the templates of the \
                 indirect-object prompts, and {needed} names and a template are needed: give prompts of \
                 your own that it knows",
                pretrained.name,
                words.names.len(),
                words.templates.len()
            );
            return Err(Error::Request { reason });
        }
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let pairs = (1..=self.count).map(|number| {
            // The first names of a shuffle: all different.
            for i in 0..needed {
                let other = rng.random_range(i..words.names.len());
                words.names.swap(i, other);
            }
            let texts = self.texts(&words, number, &mut rng);
            PromptPair::of_texts(number, texts)
        });
        Ok(PromptSet {
            name: "the indirect-object prompts".to_owned(),
            pairs: pairs.collect(),
            numbering: Numbering::Pairs,
            notes: vec![],
        })
    }

    /// Clean and corrupted prompt, and the answers a and b, of the first names.
    fn texts(&self, words: &Words, number: usize, rng: &mut Xoshiro256PlusPlus) -> [String; 4] {
        let mut one_of = |words: &[&'static str]| match words.len() {
            0 => "",
            n => words[rng.random_range(0..n)],
        };
        let [template, place, object] =
            [one_of(&words.templates), one_of(&words.places), one_of(&words.objects)];
        let names = &words.names;
        let (io, s) = (names[0], names[1]);
        let [first, second] = match number % 2 {
            1 => [io, s], // ABBA
            _ => [s, io], // BABA
        };
        let corrupted = match self.corruption {
            Corruption::SwappedSubject => [first, second, io],
            Corruption::Abc => [names[2], names[3], names[4]],
        };
        let clean = fill(template, [first, second, s], place, object);
        let corrupted = fill(template, corrupted, place, object);
        [clean, corrupted, format!(" {io}"), format!(" {s}")]
    }
}

/// What prompts can be made of.
struct Words {
    names: Vec<&'static str>,
    places: Vec<&'static str>,
    objects: Vec<&'static str>,
    templates: Vec<&'static str>,
}

impl Words {
    /// The words that are one token for the model, and the templates that it can read with them.
    fn known(pretrained: &Pretrained) -> Self {
        let knows = |text: &str| {
            let ids = pretrained.tokenizer.encode(text);
            ids.is_ok_and(|ids| pretrained.unknown_tokens(&ids).is_empty())
        };
        let known_words = |words: &[&'static str]| -> Vec<&'static str> {
            let one_token = |text: &str| pretrained.tokenizer.to_single_token(text).is_ok();
            let known = |word: &&'static str| {
                let text = format!(" {word}");
                one_token(&text) && knows(&text)
            };
            words.iter().copied().filter(known).collect()
        };
        let names = known_words(&NAMES);
        let [places, objects] = [&PLACES, &OBJECTS].map(|words| known_words(words));
        let has_words = |template: &str| {
            (!places.is_empty() || !template.contains("[PLACE]"))
                && (!objects.is_empty() || !template.contains("[OBJECT]"))
        };
        let [a, b] = [0, 1].map(|i| names.get(i).copied().unwrap_or_default());
        let place = places.first().copied().unwrap_or_default();
        let object = objects.first().copied().unwrap_or_default();
        let can_read =
            |template: &&str| has_words(template) && knows(&fill(template, [b, a, b], place, object));
        let templates = TEMPLATES.iter().copied().filter(can_read).collect();
        Self { names, places, objects, templates }
    }
}

impl PromptSet {
    /// The eight prompts of TransformerLens's Exploratory Analysis Demo, in its order, each with the
    /// other one of the same names as its corrupted prompt. The answer `a` is the right one.
    pub fn ioi_tutorial() -> Self {
        const FORMATS: [(&str, [&str; 2]); 4] = [
            ("When John and Mary went to the shops,{} gave the bag to", [" Mary", " John"]),
            ("When Tom and James went to the park,{} gave the ball to", [" Tom", " James"]),
            ("When Dan and Sid went to the shops,{} gave an apple to", [" Dan", " Sid"]),
            ("After Martin and Amy went to the park,{} gave a drink to", [" Martin", " Amy"]),
        ];
        let mut pairs = Vec::new();
        for (format, [one, other]) in FORMATS {
            for (correct, incorrect) in [(one, other), (other, one)] {
                // The giver and the receiver differ.
                let [clean, corrupted] = [incorrect, correct].map(|name| format.replace("{}", name));
                let texts = [clean, corrupted, correct.to_owned(), incorrect.to_owned()];
                pairs.push(PromptPair::of_texts(pairs.len() + 1, texts));
            }
        }
        Self {
            name: "the tutorial's indirect-object prompts".to_owned(),
            pairs,
            numbering: Numbering::Pairs,
            notes: vec![],
        }
    }
}

/// A template with its three mentions of names, in order, its place and its object.
fn fill(template: &str, names: [&str; 3], place: &str, object: &str) -> String {
    let mut text = template.replace("[PLACE]", place).replace("[OBJECT]", object);
    for (i, name) in names.into_iter().enumerate() {
        let mention = if i == 1 { "[A]" } else { "[B]" };
        text = text.replacen(mention, name, 1);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gpt2::Tokenizer;

    use super::super::Answer;
    use super::super::toy::model_that_knows;
    use super::*;
    use crate::Direction;

    /// Clean, corrupted, a and b of a pair that is made of texts.
    fn texts(pair: &PromptPair) -> [String; 4] {
        let answer = |answers: &[Answer]| {
            assert_eq!(answers.len(), 1);
            answers[0].words()
        };
        let PromptPair { a, b, .. } = pair;
        [pair.clean.words(), pair.corrupted.words(), answer(a), answer(b)]
    }

    #[test]
    fn every_word_is_one_token_and_no_name_is_listed_twice() {
        let tokenizer = Tokenizer::gpt2();
        for word in NAMES.iter().chain(&PLACES).chain(&OBJECTS) {
            let ids = tokenizer.encode(&format!(" {word}")).unwrap();
            assert_eq!(ids.len(), 1, "{word}");
        }
        let different: HashSet<_> = NAMES.iter().collect();
        assert_eq!(different.len(), NAMES.len());
        for template in TEMPLATES {
            assert_eq!(template.matches(" [B]").count(), 2, "{template}");
            assert_eq!(template.matches(" [A]").count(), 1, "{template}");
            assert!(template.find("[B]") < template.find("[A]"), "{template}");
        }
    }

    #[test]
    fn names_are_filled_in_in_both_orders() {
        let fill = |names| fill(TEMPLATES[0], names, "store", "drink");
        assert_eq!(
            fill(["John", "Mary", "John"]),
            "Then, John and Mary went to the store. John gave a drink to"
        );
        assert_eq!(
            fill(["Mary", "John", "John"]),
            "Then, Mary and John went to the store. John gave a drink to"
        );
    }

    #[test]
    fn pairs_name_the_subject_twice_and_differ_as_requested() {
        let toy = model_that_knows(None);
        for corruption in [Corruption::SwappedSubject, Corruption::Abc] {
            let ioi = Ioi { count: 200, seed: 3, corruption };
            let set = ioi.prompts(&toy).unwrap();
            assert_eq!(ioi.prompts(&toy).unwrap(), set, "the seed decides everything");
            assert_ne!(Ioi { seed: 4, ..ioi }.prompts(&toy).unwrap(), set);
            assert_eq!(set.pairs.len(), 200);
            let mut subject_first = 0;
            let mut templates = HashSet::new();
            for pair in &set.pairs {
                let [clean, corrupted, a, b] = &texts(pair);
                let count = |text: &str, name: &str| text.matches(name).count();
                assert_eq!((count(clean, a), count(clean, b)), (1, 2), "{pair:?}");
                let in_corrupted = match corruption {
                    Corruption::SwappedSubject => (2, 1),
                    Corruption::Abc => (0, 0),
                };
                assert_eq!((count(corrupted, a), count(corrupted, b)), in_corrupted, "{pair:?}");
                subject_first += usize::from(clean.find(b.as_str()) < clean.find(a.as_str()));
                templates.insert(clean.split(' ').next().unwrap().to_owned());
            }
            assert_eq!(subject_first, 100);
            assert!(templates.len() >= 7, "{templates:?}");
            let n_different = match corruption {
                Corruption::SwappedSubject => 1,
                Corruption::Abc => 3,
            };
            for pair in set.tokenize(&toy, Some(50256), Direction::Denoising).unwrap() {
                assert_eq!(pair.experiment.differing_positions().len(), n_different);
            }
        }
    }

    #[test]
    fn a_model_of_few_words_gets_only_words_that_it_knows() {
        let tiny = Pretrained::tiny().unwrap();
        for corruption in [Corruption::SwappedSubject, Corruption::Abc] {
            let set = Ioi { count: 100, seed: 0, corruption }.prompts(&tiny).unwrap();
            for pair in set.pairs {
                for text in texts(&pair) {
                    let ids = tiny.tokenizer.encode(&text).unwrap();
                    assert!(tiny.unknown_tokens(&ids).is_empty(), "{text}");
                }
            }
        }
        let words = "Friends John and Mary found a ring at the house. John gave it to Then, afterwards";
        let some = Tokenizer::gpt2().encode(words).unwrap().into_iter().collect();
        let set = Ioi::default().prompts(&model_that_knows(Some(some))).unwrap();
        assert!(set.pairs.iter().all(|pair| pair.clean.words().starts_with("Friends ")));
        let error = Ioi::default().prompts(&model_that_knows(Some(HashSet::new())));
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("the model toy was trained on 0 of the names and 0"), "{error}");
    }

    #[test]
    fn no_pairs_and_too_many_are_refused() {
        let toy = model_that_knows(None);
        for count in [0, Ioi::MAX_COUNT + 1] {
            let error = Ioi { count, ..Ioi::default() }.prompts(&toy).unwrap_err();
            assert!(error.to_string().contains("give a number from 1 to 100000"));
        }
    }

    #[test]
    fn the_tutorials_prompts_come_two_and_two() {
        let PromptSet { pairs, .. } = PromptSet::ioi_tutorial();
        assert_eq!(pairs.len(), 8);
        for two in pairs.chunks(2) {
            assert_eq!(two[0].clean, two[1].corrupted);
            assert_eq!(two[1].clean, two[0].corrupted);
            assert_eq!((&two[0].a, &two[0].b), (&two[1].b, &two[1].a));
        }
    }
}
