//! Tasks of the literature on circuits: pairs of prompts from templates, in words of our own.
//!
//! | task | clean | corrupted | a | b |
//! |---|---|---|---|---|
//! | [`Task::GreaterThan`] | The war lasted from the year 1732 to the year 17 | … 1701 … | 33 … 99 | 00 … 32 |
//! | [`Task::Gender`] | So Robert is a really great friend, isn't | So Mary … | " he" | " she" |
//! | [`Task::SubjectVerb`] | The keys to the cabinet | The key … | " are" … | " is" … |
//! | [`Task::Capitals`] | The capital of France is | … Germany … | " Paris" | " Berlin" |

use std::fmt;
use std::str::FromStr;

use gpt2::Pretrained;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{Answer, Error, Numbering, PromptPair, PromptSet, Written};

/// What the prompts ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// A later year of the same century, after Hanna, Liu and Variengien 2023, *How does GPT-2 compute
    /// greater-than?* (arXiv 2305.00586): centuries from 11 to 17 and years from 02 to 98, if both are a token
    /// each; the corrupted prompt has the year 01. All later years stand against all others: the metric
    /// `prob_diff` is that of the paper.
    GreaterThan,
    /// The pronoun of a person in a tag question, after Mathwin, Corlouer and others 2023, *Identifying a
    /// Preliminary Circuit for Predicting Gendered Pronouns in GPT-2 Small* (Apart Research). The corrupted
    /// prompt names a person of the other gender (there, "that person").
    Gender,
    /// A verb in the number of its subject, past another noun, after Marvin and Linzen 2018, *Targeted
    /// Syntactic Evaluation of Language Models* (arXiv 1808.09031), across prepositional phrases and relative
    /// clauses; a circuit for the task is in Africa 2025 (arXiv 2506.22105). The corrupted prompt has the
    /// subject in the other number, and the same second noun, in either number.
    SubjectVerb,
    /// The capital of a country, a task of Hanna, Pezzelle and Belinkov 2024, *Have Faith in Faithfulness*
    /// (EAP-IG, arXiv 2403.17806). The corrupted prompt names another country, and its capital is `b`.
    Capitals,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::GreaterThan, Self::Gender, Self::SubjectVerb, Self::Capitals];
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::GreaterThan => "greater-than",
            Self::Gender => "gender",
            Self::SubjectVerb => "subject-verb",
            Self::Capitals => "capitals",
        })
    }
}

impl FromStr for Task {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|task| task.to_string() == text).ok_or_else(|| {
            let names = Self::ALL.map(|task| task.to_string());
            format!("invalid task \"{text}\": expected {}", names.join(", "))
        })
    }
}

/// Pairs of a task, drawn at random: no two of them are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskPrompts {
    /// What they ask for.
    pub task: Task,
    /// How many pairs.
    pub count: usize,
    /// Equal seeds give equal pairs.
    pub seed: u64,
}

impl TaskPrompts {
    /// The most pairs that are made.
    pub const MAX_COUNT: usize = 100_000;

    /// The pairs. Each has two prompts of equally many tokens, and answers of one token: words for which
    /// that is not so with the model's tokenizer are left out. A model that was trained on some tokens only
    /// gets pairs of those, if they are enough for as many as are asked for, and else any.
    ///
    /// # Errors
    /// If no pairs, or more than [`TaskPrompts::MAX_COUNT`] or than there are, are asked for.
    pub fn prompts(&self, pretrained: &Pretrained) -> Result<PromptSet, Error> {
        let Self { task, count, .. } = *self;
        if !(1..=Self::MAX_COUNT).contains(&count) {
            let reason = format!("{count} pairs were asked for; give a number from 1 to {}", Self::MAX_COUNT);
            return Err(Error::Request { reason });
        }
        let mut pairs = match pretrained.known_tokens {
            Some(_) => self.draw(&Material::new(task, pretrained, true)),
            None => Vec::new(),
        };
        if pairs.len() < count {
            pairs = self.draw(&Material::new(task, pretrained, false));
        }
        if pairs.len() < count {
            let (n, name) = (pairs.len(), &pretrained.name);
            let reason = match n {
                0 => format!(
                    "the tokenizer of {name} splits all words of the {task} prompts into several tokens: \
                     give prompts of your own"
                ),
                _ => format!(
                    "{count} {task} prompts were asked for, and only {n} different pairs can be made for \
                     {name}: ask for at most {n}"
                ),
            };
            return Err(Error::Request { reason });
        }
        let name = format!("the {task} prompts");
        Ok(PromptSet { name, pairs, numbering: Numbering::Pairs, notes: vec![] })
    }

    /// The first pairs of a shuffle of all that can be made.
    fn draw(&self, material: &Material<'_>) -> Vec<PromptPair> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(self.seed);
        let mut order: Vec<usize> = (0..material.count()).collect();
        let mut pairs = Vec::new();
        for at in 0..order.len() {
            if pairs.len() == self.count {
                break;
            }
            let other = rng.random_range(at..order.len());
            order.swap(at, other);
            let texts = material.texts(order[at]).filter(|texts| material.fits(texts));
            pairs.extend(texts.map(|texts| texts.pair(pairs.len() + 1)));
        }
        pairs
    }
}

/// A pair of prompts and the answers of either side.
struct Texts {
    clean: String,
    corrupted: String,
    a: Vec<String>,
    b: Vec<String>,
}

impl Texts {
    fn pair(self, line: usize) -> PromptPair {
        let [a, b] = [self.a, self.b].map(|side| side.into_iter().map(Answer::Text).collect());
        PromptPair { line, clean: Written::Text(self.clean), corrupted: Written::Text(self.corrupted), a, b }
    }
}

/// A word in two forms: singular and plural, country and capital, year and century; the second may be empty.
type Word = [String; 2];

/// What the prompts of a task can be made of: templates, and the words for their two places.
struct Material<'a> {
    task: Task,
    pretrained: &'a Pretrained,
    /// Whether only tokens are used that the model was trained on.
    known_only: bool,
    templates: Vec<&'static str>,
    first: Vec<Word>,
    second: Vec<Word>,
}

impl<'a> Material<'a> {
    fn new(task: Task, pretrained: &'a Pretrained, known_only: bool) -> Self {
        let (templates, first, second): (&[&'static str], Vec<Word>, Vec<Word>) = match task {
            Task::GreaterThan => (&GREATER_THAN, singles(&SPANS), Vec::new()),
            Task::Gender => (&GENDER, singles(&MEN), singles(&WOMEN)),
            Task::SubjectVerb => (&SUBJECT_VERB, doubles(&NOUNS), doubles(&NOUNS)),
            Task::Capitals => (&CAPITALS, doubles(&COUNTRIES), doubles(&COUNTRIES)),
        };
        let mut material = Self { task, pretrained, known_only, templates: vec![], first, second };
        if task == Task::GreaterThan {
            material.second = material.years();
        }
        // The space before a word belongs to its token.
        let known = |text: &str| material.encode(text.trim_end()).is_some();
        let readable = |template: &&&str| template.split(['[', ']']).step_by(2).all(known);
        let templates = templates.iter().filter(readable).copied().collect();
        let is_one = |form: &String| {
            form.is_empty() || material.encode(&format!(" {form}")).is_some_and(|ids| ids.len() == 1)
        };
        let kept = |words: &[Word]| -> Vec<Word> {
            words.iter().filter(|word| word.iter().all(is_one)).cloned().collect()
        };
        let first = kept(&material.first);
        // Years are two tokens.
        let second = match task {
            Task::GreaterThan => material.second.clone(),
            _ => kept(&material.second),
        };
        Self { templates, first, second, ..material }
    }

    /// Years and their centuries, for which all that differs between two prompts is the second token.
    fn years(&self) -> Vec<Word> {
        let mut years = Vec::new();
        for century in 11..=17 {
            let century = century.to_string();
            let tokens = |year: u32| self.encode(&format!(" {century}{year:02}"));
            let begun = self.encode(&format!(" {century}"));
            let is_split = |year: u32| {
                let tokens = tokens(year);
                let digits = self.encode(&format!("{year:02}"));
                match (&tokens, &begun, &digits) {
                    (Some(tokens), Some(begun), Some(digits)) => {
                        tokens.len() == 2 && begun.len() == 1 && [&begun[..], &digits[..]].concat() == *tokens
                    }
                    _ => false,
                }
            };
            if is_split(FIRST_YEAR) {
                let split = (FIRST_YEAR + 1..=98).filter(|&year| is_split(year));
                years.extend(split.map(|year| [format!("{century}{year:02}"), century.clone()]));
            }
        }
        years
    }

    /// The tokens of a text, if the model can read it, and if it knows them where that is required.
    fn encode(&self, text: &str) -> Option<Vec<u32>> {
        if text.is_empty() {
            return Some(Vec::new());
        }
        let ids = self.pretrained.tokenizer.encode(text).ok()?;
        (!self.known_only || self.pretrained.unknown_tokens(&ids).is_empty()).then_some(ids)
    }

    /// In how many ways a template and two words make a pair.
    fn ways(&self) -> usize {
        match self.task {
            Task::GreaterThan | Task::Capitals => 1,
            Task::Gender => 2,
            Task::SubjectVerb => 4,
        }
    }

    /// How many combinations there are.
    fn count(&self) -> usize {
        self.templates.len() * self.first.len() * self.second.len() * self.ways()
    }

    /// A combination, by its number; none if its words do not go together.
    fn texts(&self, mut number: usize) -> Option<Texts> {
        let mut digit = |base: usize| {
            let digit = number % base;
            number /= base;
            digit
        };
        let way = digit(self.ways());
        let template = self.templates[digit(self.templates.len())];
        let first = &self.first[digit(self.first.len())];
        let second = &self.second[digit(self.second.len())];
        let fill = |one: &str, two: &str| template.replace("[1]", one).replace("[2]", two);
        let answer = |word: &str| vec![format!(" {word}")];
        let answers = |words: [&str; 3]| words.map(|word| format!(" {word}")).to_vec();
        match self.task {
            Task::GreaterThan => {
                let [year, century] = second;
                let fill = |year: &str| fill(&first[0], year).replace("[3]", century);
                let after: u32 = year.strip_prefix(century.as_str())?.parse().ok()?;
                let of = |years: std::ops::Range<u32>| years.map(|year| format!("{year:02}")).collect();
                Some(Texts {
                    clean: fill(year),
                    corrupted: fill(&format!("{century}{FIRST_YEAR:02}")),
                    a: of(after + 1..100),
                    b: of(0..after + 1),
                })
            }
            Task::Gender => {
                let mut people = [(&first[0], "he"), (&second[0], "she")];
                people.rotate_left(way);
                let [(clean, a), (corrupted, b)] = people;
                let [clean, corrupted] = [clean, corrupted].map(|name| fill(name, ""));
                Some(Texts { clean, corrupted, a: answer(a), b: answer(b) })
            }
            Task::SubjectVerb => {
                let [number, of_second] = [way % 2, way / 2];
                let [clean, corrupted] =
                    [number, 1 - number].map(|number| fill(&first[number], &second[of_second]));
                let mut sides = [SINGULAR, PLURAL].map(answers);
                sides.rotate_left(number);
                let [a, b] = sides;
                (first != second).then_some(Texts { clean, corrupted, a, b })
            }
            Task::Capitals => {
                let [clean, corrupted] = [first, second].map(|[country, _]| fill(country, ""));
                let [a, b] = [first, second].map(|[_, capital]| answer(capital));
                (first != second).then_some(Texts { clean, corrupted, a, b })
            }
        }
    }

    /// Whether the two prompts have equally many tokens, and every answer is one token.
    fn fits(&self, texts: &Texts) -> bool {
        let [clean, corrupted] = [&texts.clean, &texts.corrupted].map(|prompt| self.encode(prompt));
        let same_length = match (clean, corrupted) {
            (Some(clean), Some(corrupted)) => clean.len() == corrupted.len(),
            _ => false,
        };
        let is_one = |answer: &String| self.encode(answer).is_some_and(|ids| ids.len() == 1);
        same_length && texts.a.iter().chain(&texts.b).all(is_one)
    }
}

fn singles(words: &[&str]) -> Vec<Word> {
    words.iter().map(|word| [(*word).to_owned(), String::new()]).collect()
}

fn doubles(words: &[[&str; 2]]) -> Vec<Word> {
    words.iter().map(|word| word.map(str::to_owned)).collect()
}

/// The year of the corrupted prompts, after which all others are.
const FIRST_YEAR: u32 = 1;

const GREATER_THAN: [&str; 1] = ["The [1] lasted from the year [2] to the year [3]"];

/// What lasts for years.
#[rustfmt::skip]
const SPANS: [&str; 60] = [
    "war", "siege", "truce", "peace", "reign", "rule", "revolt", "rebellion", "uprising", "struggle",
    "conflict", "dispute", "quarrel", "trial", "voyage", "expedition", "journey", "tour", "campaign",
    "mission", "project", "plan", "work", "construction", "repair", "renovation", "restoration", "famine",
    "drought", "plague", "epidemic", "crisis", "depression", "boom", "marriage", "friendship",
    "partnership", "alliance", "treaty", "contract", "agreement", "lease", "loan", "service", "career",
    "presidency", "occupation", "exile", "imprisonment", "captivity", "absence", "stay", "visit", "strike",
    "boycott", "ban", "embargo", "debate", "experiment", "study",
];

/// Tag questions; the first is that of the paper.
const GENDER: [&str; 6] = [
    "So [1] is a really great friend, isn't",
    "Well, [1] was late for work again, wasn't",
    "I think [1] will come to the party, won't",
    "Surely [1] can play the piano, can't",
    "You know that [1] has been here before, hasn't",
    "Of course [1] would help us with this, wouldn't",
];

/// Men's and women's names that are hardly ever anything else.
#[rustfmt::skip]
const MEN: [&str; 44] = [
    "Aaron", "Adam", "Andrew", "Anthony", "Arthur", "Ben", "Brian", "Craig", "Daniel", "David", "Dennis",
    "Edward", "Eric", "Ethan", "Frank", "Fred", "Gary", "George", "Gregory", "Henry", "Isaac", "Jack",
    "Jacob", "James", "Jason", "Jeremy", "John", "Jonathan", "Joseph", "Joshua", "Justin", "Kevin", "Luke",
    "Matthew", "Michael", "Nathan", "Nicholas", "Patrick", "Paul", "Peter", "Richard", "Robert", "Simon",
    "Thomas",
];
#[rustfmt::skip]
const WOMEN: [&str; 44] = [
    "Alice", "Amanda", "Amy", "Andrea", "Angela", "Anna", "Barbara", "Carol", "Catherine", "Charlotte",
    "Christina", "Claire", "Deborah", "Diana", "Donna", "Elizabeth", "Ellen", "Emily", "Emma", "Eva",
    "Hannah", "Heather", "Helen", "Jane", "Jennifer", "Jessica", "Julia", "Karen", "Kate", "Laura", "Lisa",
    "Lucy", "Margaret", "Maria", "Martha", "Mary", "Megan", "Melissa", "Michelle", "Nancy", "Nicole",
    "Rachel", "Rebecca", "Sarah",
];

/// The verb comes next; those that are there already are of either number.
const SUBJECT_VERB: [&str; 8] = [
    "The [1] to the [2]",
    "The [1] near the [2]",
    "The [1] behind the [2]",
    "The [1] beside the [2]",
    "The [1] across from the [2]",
    "The [1] that moved the [2]",
    "The [1] that changed the [2]",
    "I know that the [1] next to the [2]",
];
const SINGULAR: [&str; 3] = ["is", "was", "has"];
const PLURAL: [&str; 3] = ["are", "were", "have"];

#[rustfmt::skip]
const NOUNS: [[&str; 2]; 46] = [
    ["key", "keys"], ["door", "doors"], ["window", "windows"], ["cabinet", "cabinets"], ["table", "tables"],
    ["chair", "chairs"], ["book", "books"], ["letter", "letters"], ["picture", "pictures"], ["road", "roads"],
    ["bridge", "bridges"], ["tower", "towers"], ["house", "houses"], ["garden", "gardens"], ["tree", "trees"],
    ["flower", "flowers"], ["farmer", "farmers"], ["teacher", "teachers"], ["doctor", "doctors"],
    ["lawyer", "lawyers"], ["officer", "officers"], ["author", "authors"], ["player", "players"],
    ["driver", "drivers"], ["guard", "guards"], ["king", "kings"], ["boy", "boys"], ["girl", "girls"],
    ["friend", "friends"], ["neighbor", "neighbors"], ["worker", "workers"], ["student", "students"],
    ["writer", "writers"], ["singer", "singers"], ["car", "cars"], ["truck", "trucks"], ["ship", "ships"],
    ["boat", "boats"], ["horse", "horses"], ["dog", "dogs"], ["cat", "cats"], ["bird", "birds"],
    ["machine", "machines"], ["computer", "computers"], ["cup", "cups"], ["box", "boxes"],
];

const CAPITALS: [&str; 4] = [
    "The capital of [1] is",
    "The capital city of [1] is called",
    "As everybody knows, the capital of [1] is",
    "Q: What is the capital of [1]? A: It is",
];

#[rustfmt::skip]
const COUNTRIES: [[&str; 2]; 36] = [
    ["France", "Paris"], ["Germany", "Berlin"], ["Italy", "Rome"], ["Spain", "Madrid"],
    ["Portugal", "Lisbon"], ["Austria", "Vienna"], ["Belgium", "Brussels"], ["Ireland", "Dublin"],
    ["Norway", "Oslo"], ["Sweden", "Stockholm"], ["Denmark", "Copenhagen"], ["Finland", "Helsinki"],
    ["Poland", "Warsaw"], ["Hungary", "Budapest"], ["Greece", "Athens"], ["Turkey", "Ankara"],
    ["Russia", "Moscow"], ["Ukraine", "Kiev"], ["England", "London"], ["Scotland", "Edinburgh"],
    ["Japan", "Tokyo"], ["China", "Beijing"], ["Thailand", "Bangkok"], ["Indonesia", "Jakarta"],
    ["Iran", "Tehran"], ["Iraq", "Baghdad"], ["Syria", "Damascus"], ["Lebanon", "Beirut"],
    ["Egypt", "Cairo"], ["Libya", "Tripoli"], ["Cuba", "Havana"], ["Canada", "Ottawa"], ["Peru", "Lima"],
    ["Pakistan", "Islamabad"], ["Afghanistan", "Kabul"], ["Australia", "Canberra"],
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gpt2::Tokenizer;

    use super::super::toy::model_that_knows;
    use super::*;
    use crate::Direction;

    fn prompts(task: Task, count: usize, seed: u64) -> TaskPrompts {
        TaskPrompts { task, count, seed }
    }

    #[test]
    fn every_word_is_one_token_and_none_is_listed_twice() {
        let tokenizer = Tokenizer::gpt2();
        let pairs = NOUNS.iter().chain(&COUNTRIES).flatten();
        let words: Vec<&str> = SPANS.iter().chain(&MEN).chain(&WOMEN).chain(pairs).copied().collect();
        let split = words.iter().filter(|word| tokenizer.encode(&format!(" {word}")).unwrap().len() != 1);
        assert_eq!(split.collect::<Vec<_>>(), Vec::<&&str>::new());
        for words in [&SPANS[..], &MEN, &WOMEN] {
            assert_eq!(words.iter().collect::<HashSet<_>>().len(), words.len());
        }
        for words in [&NOUNS[..], &COUNTRIES] {
            assert_eq!(words.iter().flatten().collect::<HashSet<_>>().len(), 2 * words.len());
        }
        assert!(!MEN.iter().any(|name| WOMEN.contains(name)));
    }

    #[test]
    fn pairs_differ_in_one_token_and_come_from_the_seed() {
        let toy = model_that_knows(None);
        for task in Task::ALL {
            let set = prompts(task, 300, 3).prompts(&toy).unwrap();
            assert_eq!(prompts(task, 300, 3).prompts(&toy).unwrap(), set, "the seed decides everything");
            assert_ne!(prompts(task, 300, 4).prompts(&toy).unwrap(), set);
            let few = prompts(task, 20, 3).prompts(&toy).unwrap();
            assert_eq!(few.pairs[..], set.pairs[..20], "more pairs go on where fewer end");
            let different = set.pairs.iter().map(|pair| (pair.clean.words(), pair.corrupted.words()));
            assert_eq!(different.collect::<HashSet<_>>().len(), 300, "{task}");
            let pairs = set.tokenize(&toy, Some(50256), Direction::Denoising).unwrap();
            for (line, pair) in (1..).zip(&pairs) {
                assert_eq!(pair.line, line);
                assert_eq!(pair.experiment.differing_positions().len(), 1, "{task}");
                let n_answers = pair.a.len() + pair.b.len();
                let expected = match task {
                    Task::GreaterThan => 100,
                    Task::SubjectVerb => 6,
                    Task::Gender | Task::Capitals => 2,
                };
                assert_eq!(n_answers, expected);
            }
        }
    }

    /// The pair whose clean prompt is this one, out of all that there are: clean, corrupted, a and b.
    fn pair(task: Task, clean: &str) -> (String, Vec<String>, Vec<String>) {
        let toy = model_that_knows(None);
        let material = Material::new(task, &toy, false);
        let all = (0..material.count()).filter_map(|number| material.texts(number));
        let texts = all.into_iter().find(|texts| texts.clean == clean);
        let texts = texts.unwrap_or_else(|| panic!("no prompt is {clean:?}"));
        (texts.corrupted, texts.a, texts.b)
    }

    #[test]
    fn later_years_of_the_same_century_stand_against_all_others() {
        let (corrupted, a, b) = pair(Task::GreaterThan, "The war lasted from the year 1732 to the year 17");
        assert_eq!(corrupted, "The war lasted from the year 1701 to the year 17");
        assert_eq!((a.len(), b.len()), (67, 33));
        assert_eq!([&a[0], &a[66], &b[0], &b[32]], ["33", "99", "00", "32"]);
    }

    #[test]
    fn a_year_that_is_one_token_is_not_asked_for() {
        let toy = model_that_knows(None);
        let years = Material::new(Task::GreaterThan, &toy, false).second;
        assert!(years.len() > 300, "{}", years.len());
        for [year, century] in years {
            let ids = toy.tokenizer.encode(&format!(" {year}")).unwrap();
            let texts: Vec<String> = ids.iter().map(|&id| toy.tokenizer.token(id)).collect();
            assert_eq!(texts, [format!(" {century}"), year[2..].to_owned()]);
        }
    }

    #[test]
    fn a_name_decides_the_pronoun() {
        let (corrupted, a, b) = pair(Task::Gender, "So Mary is a really great friend, isn't");
        let name = corrupted.strip_prefix("So ").unwrap().split(' ').next().unwrap();
        assert!(MEN.contains(&name) && corrupted.ends_with(" is a really great friend, isn't"));
        assert_eq!((a, b), (vec![" she".to_owned()], vec![" he".to_owned()]));
    }

    #[test]
    fn the_number_of_the_first_noun_decides_the_verb() {
        for second in ["cabinet", "cabinets"] {
            let (corrupted, a, b) = pair(Task::SubjectVerb, &format!("The keys to the {second}"));
            assert_eq!(corrupted, format!("The key to the {second}"));
            assert_eq!(
                (a, b),
                (
                    PLURAL.map(|verb| format!(" {verb}")).to_vec(),
                    SINGULAR.map(|verb| format!(" {verb}")).to_vec()
                )
            );
        }
        assert_eq!(pair(Task::SubjectVerb, "The key to the cabinet").1[0], " is");
    }

    #[test]
    fn a_country_decides_its_capital() {
        let (corrupted, a, b) = pair(Task::Capitals, "The capital of France is");
        let country = corrupted.strip_prefix("The capital of ").unwrap().strip_suffix(" is").unwrap();
        let other = COUNTRIES.iter().find(|[name, _]| *name == country).unwrap();
        assert_eq!((a, b), (vec![" Paris".to_owned()], vec![format!(" {}", other[1])]));
    }

    #[test]
    fn a_model_of_few_words_gets_those_if_they_are_enough() {
        let words = "So is a really great friend, isn't Mary John Anna he she";
        let known: HashSet<u32> = Tokenizer::gpt2().encode(words).unwrap().into_iter().collect();
        let toy = model_that_knows(Some(known));
        let of = |count: usize| prompts(Task::Gender, count, 0).prompts(&toy).unwrap();
        let is_known = |pair: &PromptPair| {
            let ids = toy.tokenizer.encode(&pair.clean.words()).unwrap();
            toy.unknown_tokens(&ids).is_empty()
        };
        // John with Mary or Anna, either of them clean.
        assert!(of(4).pairs.iter().all(is_known));
        assert!(!of(5).pairs.iter().all(is_known));
        // The tiny model has no words for these; what is printed then warns of them.
        let tiny = Pretrained::tiny().unwrap();
        for task in Task::ALL {
            assert_eq!(prompts(task, 5, 0).prompts(&tiny).unwrap().pairs.len(), 5);
        }
    }

    #[test]
    fn no_pairs_and_more_than_there_are_are_refused() {
        let toy = model_that_knows(None);
        for count in [0, TaskPrompts::MAX_COUNT + 1] {
            let error = prompts(Task::Gender, count, 0).prompts(&toy).unwrap_err().to_string();
            assert!(error.contains("give a number from 1 to 100000"), "{error}");
        }
        let error = prompts(Task::Capitals, 90_000, 0).prompts(&toy).unwrap_err().to_string();
        let n = CAPITALS.len() * COUNTRIES.len() * (COUNTRIES.len() - 1);
        assert!(
            error.ends_with(&format!("only {n} different pairs can be made for toy: ask for at most {n}")),
            "{error}"
        );
    }

    #[test]
    fn a_task_is_read_as_it_is_printed() {
        for task in Task::ALL {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        assert!(
            "greater".parse::<Task>().unwrap_err().contains("greater-than, gender, subject-verb, capitals")
        );
    }
}
