//! Synthetic English for the tiny model: last names, indirect objects, animals, facts, and repeated tokens.
//!
//! A document is a few sentences that a small grammar writes; [`Corpus::text`] is a row of documents with
//! `<|endoftext|>` between them. There is nothing to learn in it but
//!
//! - *recall*: "Her name was Alex Hart. When Alex" is followed by " Hart", or by what Alex did;
//! - *indirect objects*: "When John and Mary went to the store, John gave a ring to" is followed by " Mary";
//! - *roles*: "The cat chased the mouse. The mouse was chased by the" is followed by " cat";
//! - *facts*: "The capital of France is" is followed by " Paris".
//!
//! [`repeated`] makes rows of random tokens that are read again and again, which teach induction.
//!
//! All randomness comes from a [`Dice`]: equal seeds give equal rows.

use gpt2::Tokenizer;
use gpt2::tokenizer::END_OF_TEXT;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use crate::Example;

/// Random choices. Equal seeds make equal choices.
pub struct Dice(Xoshiro256PlusPlus);

impl Dice {
    /// The dice of row `row` of step `step`: of each row by themselves, so that a training can go on at any step,
    /// and rows can be made on any number of threads.
    pub fn new(seed: u64, step: u64, row: u64) -> Self {
        // Each number is mixed (SplitMix64, Steele et al. 2014) before the next is added: neighbours have nothing in
        // common.
        let mix = |number: u64| {
            let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        let key = [seed, step, row].into_iter().fold(0, |key, number| mix(number.wrapping_add(key)));
        Self(Xoshiro256PlusPlus::seed_from_u64(key))
    }

    /// One of them, each as likely as any other.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.0.random_range(0..all.len())]
    }

    /// A number of a range that includes both ends.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        self.0.random_range(least..=most)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.share() < probability
    }

    /// A number from 0 to 1.
    pub fn share(&mut self) -> f64 {
        self.0.random()
    }
}

/// First names of men. Those that are several tokens are left out, here and below.
const MEN: &str = "
    James John Robert Michael David William Richard Joseph Thomas Charles Daniel Matthew Anthony Mark Paul
    Steven Andrew Kenneth George Joshua Kevin Brian Edward Ronald Tim Jason Jeffrey Ryan Jacob Gary Nicholas
    Eric Jonathan Stephen Larry Justin Scott Brandon Frank Benjamin Gregory Samuel Raymond Patrick Alexander
    Jack Dennis Jerry Tyler Aaron Henry Adam Peter Nathan Zach Walter Kyle Harold Carl Jeremy Gerald Keith
    Roger Arthur Terry Lawrence Sean Christian Ethan Austin Joe Albert Jesse Willie Billy Bryan Bruce Noah
    Jordan Dylan Ralph Roy Alan Wayne Eugene Gabriel Louis Russell Vincent Philip Bobby Johnny Bradley Tom
    Dan Sid Martin Max Luke Simon Oscar Alex Sam Ben Fred Harry Leo Charlie Steve Mike Jim Bob Bill Nick
    Matt Greg Ed Ted Ron Don Ray Jay Ian Colin Neil Hugh Victor Felix Ivan Owen Connor Marcus Omar Jake Kurt
    Karl Ross Todd Chad Derek Craig Dale Glenn Stuart Graham";

/// First names of women.
const WOMEN: &str = "
    Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Lisa Nancy Betty Margaret
    Sandra Ashley Kimberly Emily Donna Michelle Carol Amanda Dorothy Melissa Deborah Stephanie Rebecca
    Sharon Laura Cynthia Kathleen Amy Angela Shirley Anna Brenda Pamela Emma Nicole Helen Samantha Katherine
    Christine Debra Rachel Catherine Carolyn Janet Ruth Maria Heather Diane Virginia Julie Joyce Victoria
    Olivia Kelly Christina Lauren Joan Evelyn Judith Megan Andrea Cheryl Hannah Jacqueline Martha Gloria
    Teresa Ann Sara Madison Frances Kathryn Janice Jean Abigail Alice Julia Judy Sophia Grace Denise Amber
    Doris Marilyn Danielle Beverly Isabella Theresa Diana Natalie Brittany Charlotte Marie Kayla Alexis Kate
    Jane Rose Lucy Claire Ellen Sally Molly Eva Nina Clara Ella Chloe Zoe Lily Ruby Anne Beth Erin Dana Tara
    Paula Carla Monica Erica Vanessa Valerie Sue Holly Jill Tina";

/// Last names.
const LAST_NAMES: &str = "
    Smith Johnson Williams Brown Jones Garcia Miller Davis Rodriguez Martinez Hernandez Lopez Gonzalez
    Wilson Anderson Thomas Taylor Moore Jackson Martin Lee Perez Thompson White Harris Sanchez Clark Ramirez
    Lewis Robinson Walker Young Allen King Wright Scott Torres Nguyen Hill Flores Green Adams Nelson Baker
    Hall Rivera Campbell Mitchell Carter Roberts Gomez Phillips Evans Turner Diaz Parker Cruz Edwards
    Collins Reyes Stewart Morris Morales Murphy Cook Rogers Gutierrez Ortiz Morgan Cooper Peterson Bailey
    Reed Kelly Howard Ramos Kim Cox Ward Richardson Watson Brooks Wood James Bennett Gray Mendoza Ruiz
    Hughes Price Alvarez Castillo Sanders Patel Myers Long Ross Foster Jimenez Powell Jenkins Perry Russell
    Sullivan Bell Coleman Butler Henderson Barnes Fisher Hart Carroll Hunt Stone Fox Webb Grant Porter Ford
    Hamilton Graham Wallace West Cole Hayes Bryant Gibson Ellis Stevens Murray Marshall Owens McDonald
    Kennedy Wells Burns Gordon Shaw Holmes Rice Black Palmer Hicks Mason Dixon Hunter Knight Spencer Payne
    Pierce Berry Matthews Arnold Wagner Willis Ray Watkins Olson Carpenter Duncan Snyder Hansen Bradley Lane
    Ruiz Harper Burke Larson Dean Banks Lynch Newman Craig Day Frost";

/// What a person is like.
#[rustfmt::skip]
const ADJECTIVES: [&str; 28] = [
    "top-notch", "great", "good", "brilliant", "famous", "young", "very good", "talented", "poor",
    "hard-working", "kind", "smart", "quiet", "lazy", "wonderful", "local", "respected", "retired",
    "former", "clever", "brave", "serious", "friendly", "careful", "proud", "bright", "strong", "gifted",
];

/// What a person does for a living.
const ROLES: &str = "
    student teacher doctor nurse lawyer singer writer engineer scientist player artist driver farmer soldier
    pilot painter dancer actor baker judge runner reporter officer musician chef sailor designer politician
    journalist professor librarian poet swimmer";

/// Where people meet.
const PLACES: &str = "
    store shops park school beach office museum hospital library garden market restaurant station church
    house zoo cinema lake farm bar";

/// What is given.
#[rustfmt::skip]
const OBJECTS: [&str; 20] = [
    "a bottle of milk", "the bag", "the ball", "an apple", "a drink", "a book", "a ring", "a kiss",
    "the keys", "a letter", "a cake", "a flower", "some money", "the phone", "a computer", "a basketball",
    "a bone", "a necklace", "a snack", "the ticket",
];

/// Animals.
const ANIMALS: &str = "
    cat dog mouse bird horse cow lion bear fox wolf rabbit fish snake duck pig frog monkey tiger sheep goat";

/// What animals do to each other.
const CHASES: &str = "
    chased saw followed liked hated watched found attacked helped loved";

/// Countries and their capitals.
#[rustfmt::skip]
const CAPITALS: [[&str; 2]; 30] = [
    ["France", "Paris"], ["Germany", "Berlin"], ["Italy", "Rome"], ["Spain", "Madrid"],
    ["England", "London"], ["Japan", "Tokyo"], ["China", "Beijing"], ["Russia", "Moscow"],
    ["Egypt", "Cairo"], ["Greece", "Athens"], ["Portugal", "Lisbon"], ["Ireland", "Dublin"],
    ["Austria", "Vienna"], ["Poland", "Warsaw"], ["Hungary", "Budapest"], ["Sweden", "Stockholm"],
    ["Norway", "Oslo"], ["Denmark", "Copenhagen"], ["Turkey", "Ankara"], ["Iran", "Tehran"],
    ["Iraq", "Baghdad"], ["Syria", "Damascus"], ["Cuba", "Havana"], ["Canada", "Ottawa"],
    ["Kenya", "Nairobi"], ["Ukraine", "Kiev"], ["Thailand", "Bangkok"], ["Belgium", "Brussels"],
    ["Afghanistan", "Kabul"], ["Venezuela", "Caracas"],
];

/// What somebody is known for, and the name.
#[rustfmt::skip]
const FAMOUS: [[&str; 3]; 16] = [
    ["computer scientist", "Alan", "Turing"], ["physicist", "Albert", "Einstein"],
    ["physicist", "Isaac", "Newton"], ["naturalist", "Charles", "Darwin"], ["inventor", "Thomas", "Edison"],
    ["inventor", "Nikola", "Tesla"], ["president", "Barack", "Obama"], ["president", "Abraham", "Lincoln"],
    ["president", "George", "Washington"], ["writer", "William", "Shakespeare"],
    ["painter", "Vincent", "van"], ["physicist", "Stephen", "Hawking"], ["physicist", "Marie", "Curie"],
    ["philosopher", "Karl", "Marx"], ["singer", "Michael", "Jackson"], ["player", "Michael", "Jordan"],
];

/// What a person did; `{p}` is a place and `{r}` a role.
#[rustfmt::skip]
const DEEDS: [&str; 28] = [
    "was very happy", "was tired", "was late", "was born in London", "was one of the best",
    "had a big house", "had two children", "worked hard every day", "worked at the {p}", "went to the {p}",
    "came home early", "came from a small town", "did not like the {p}", "didn't go to the {p}",
    "told everyone about it", "knew the answer", "also liked to sing", "would often go to the {p}",
    "is now a {r}", "has a new job", "wanted to be a {r}", "lived near the {p}", "started to cry",
    "arrived late", "left the {p}", "and the {r} were friends", "said that it was late",
    "got a new job at the {p}",
];

/// How a text of indirect objects begins; `{a}` and `{b}` are names, `{p}` is a place.
const OPENINGS: [&str; 7] = [
    "When {a} and {b} went to the {p}, ",
    "After {a} and {b} went to the {p}, ",
    "Then, {a} and {b} went to the {p}. ",
    "{a} and {b} were at the {p}. ",
    "When {a} and {b} got a new job at the {p}, ",
    "While {a} and {b} were at the {p}, ",
    "Friends {a} and {b} went to the {p}. ",
];

/// How something is given.
const GIVES: [&str; 6] = ["gave", "gave", "handed", "passed", "decided to give", "wanted to give"];

/// The grammar, with the words that it uses.
pub struct Corpus {
    tokenizer: Tokenizer,
    men: Vec<&'static str>,
    women: Vec<&'static str>,
    last_names: Vec<&'static str>,
    roles: Vec<&'static str>,
    places: Vec<&'static str>,
    animals: Vec<&'static str>,
    chases: Vec<&'static str>,
}

/// Somebody.
#[derive(Clone, Copy)]
struct Person {
    first: &'static str,
    last: &'static str,
    /// "He" or "She", and "His" or "Her".
    pronouns: [&'static str; 2],
}

impl Default for Corpus {
    fn default() -> Self {
        let tokenizer = Tokenizer::gpt2();
        let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
        // Those that are one token after a space, each once.
        let names = |text: &'static str| {
            let mut names = Vec::new();
            for name in words(text) {
                if !names.contains(&name) && single_token(&tokenizer, &format!(" {name}")).is_some() {
                    names.push(name);
                }
            }
            names
        };
        Self {
            men: names(MEN),
            women: names(WOMEN),
            last_names: names(LAST_NAMES),
            roles: words(ROLES),
            places: words(PLACES),
            animals: words(ANIMALS),
            chases: words(CHASES),
            tokenizer,
        }
    }
}

impl Corpus {
    /// A document of any kind.
    pub fn document(&self, dice: &mut Dice) -> String {
        match dice.share() {
            0.0..0.5 => self.biography(dice),
            0.5..0.82 => self.indirect_object(dice),
            0.82..0.9 => self.animals(dice),
            _ => self.fact(dice),
        }
    }

    /// A row of `length` tokens: documents with `<|endoftext|>` between them, and in front of half of the rows.
    pub fn text(&self, length: usize, dice: &mut Dice) -> Vec<u32> {
        let mut row = match dice.chance(0.5) {
            true => vec![END_OF_TEXT],
            false => vec![],
        };
        row.extend(self.encode(&self.document(dice)));
        while row.len() < length {
            row.push(END_OF_TEXT);
            row.extend(self.encode(&self.document(dice)));
        }
        row.truncate(length);
        row
    }

    /// Every token that the grammar uses, and `<|endoftext|>`, in ascending order: found by writing so many
    /// documents that each word has stood in all of its places.
    pub fn known_tokens(&self) -> Vec<u32> {
        const ROWS: u64 = 400;
        const DOCUMENTS_A_ROW: usize = 100;
        let tokens_of_row = |row| {
            let mut dice = Dice::new(5, 0, row);
            let documents: Vec<String> = (0..DOCUMENTS_A_ROW).map(|_| self.document(&mut dice)).collect();
            documents.iter().flat_map(|document| self.encode(document)).collect()
        };
        let rows: Vec<Vec<u32>> = (0..ROWS).into_par_iter().map(tokens_of_row).collect();
        let mut tokens = rows.concat();
        tokens.push(END_OF_TEXT);
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// The tokens that are first names, at the beginning of a text and within it.
    pub fn first_names(&self) -> Vec<u32> {
        let names = self.men.iter().chain(&self.women);
        let forms = names.flat_map(|name| [format!(" {name}"), (*name).to_owned()]);
        forms.filter_map(|name| single_token(&self.tokenizer, &name)).collect()
    }

    /// The token of a word that is one.
    ///
    /// # Panics
    /// If it is several.
    pub fn token(&self, word: &str) -> u32 {
        single_token(&self.tokenizer, word).unwrap_or_else(|| panic!("{word:?} is several tokens"))
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn person(&self, dice: &mut Dice) -> Person {
        let (first_names, pronouns) = match dice.chance(0.5) {
            true => (&self.men, ["He", "His"]),
            false => (&self.women, ["She", "Her"]),
        };
        Person { first: dice.one_of(first_names), last: dice.one_of(&self.last_names), pronouns }
    }

    fn deed(&self, dice: &mut Dice) -> String {
        let deed = dice.one_of(&DEEDS);
        deed.replace("{p}", dice.one_of(&self.places)).replace("{r}", dice.one_of(&self.roles))
    }

    /// Somebody with a first and a last name, who is mentioned again.
    fn biography(&self, dice: &mut Dice) -> String {
        let mut person = self.person(dice);
        let Person { first, last, pronouns: [he, his] } = person;
        let mut text = match dice.share() {
            0.0..0.35 => {
                let adjective = with_article(dice.one_of(&ADJECTIVES));
                format!("{first} {last} was {adjective} {}. ", dice.one_of(&self.roles))
            }
            0.35..0.55 => {
                let openings = ["When ", "One day ", "Then ", "But ", "In the end ", "Later ", ""];
                format!("{his} name was {first} {last}. {}", dice.one_of(&openings))
            }
            0.55..0.7 => {
                let deed = self.deed(dice);
                format!(
                    "My friend {first} {last} {deed}. {}",
                    dice.one_of(&["One day ", "Then ", "", "Later "])
                )
            }
            0.7..0.85 => {
                let other = self.person(dice);
                let place = dice.one_of(&self.places);
                if dice.chance(0.5) {
                    person = other;
                }
                let Person { first: other_first, last: other_last, .. } = other;
                let opening = dice.one_of(&["", "Then ", "Later "]);
                format!("{first} {last} met {other_first} {other_last} at the {place}. {opening}")
            }
            _ => format!("{first} {last} {}. {he} {}. ", self.deed(dice), self.deed(dice)),
        };
        text += &self.second_mention(person, 0.55, dice);
        for _ in 0..dice.one_of(&[0, 0, 1, 2]) {
            text += " ";
            text += &match dice.chance(0.6) {
                true => self.second_mention(person, 0.45, dice),
                false => format!("{} {}.", person.pronouns[0], self.deed(dice)),
            };
        }
        text
    }

    /// A sentence that begins with a first name that stood there before; the last name follows with this
    /// probability.
    fn second_mention(
        &self,
        Person { first, last, .. }: Person,
        probability: f64,
        dice: &mut Dice,
    ) -> String {
        if dice.chance(probability) {
            return format!("{first} {last} {}.", self.deed(dice));
        }
        match dice.between(1, 10) {
            1 => format!("{first}'s {} was late.", dice.one_of(&self.roles)),
            2 => {
                let role = with_article(dice.one_of(&self.roles));
                format!("{first}, who was {role}, {}.", self.deed(dice))
            }
            _ => format!("{first} {}.", self.deed(dice)),
        }
    }

    /// Two people, one of whom gives something to the other.
    fn indirect_object(&self, dice: &mut Dice) -> String {
        let all: Vec<&str> = self.men.iter().chain(&self.women).copied().collect();
        let a = dice.one_of(&all);
        let others: Vec<&str> = all.iter().copied().filter(|name| *name != a).collect();
        let b = dice.one_of(&others);
        let place = dice.one_of(&self.places);
        let opening = dice.one_of(&OPENINGS).replace("{a}", a).replace("{b}", b).replace("{p}", place);
        let (mut giver, receiver) = if dice.chance(0.5) { (a, b) } else { (b, a) };
        if dice.chance(0.12) {
            giver = dice.one_of(&all); // Somebody else gives: either name may follow.
        }
        let (gives, object) = (dice.one_of(&GIVES), dice.one_of(&OBJECTS));
        let end = dice.one_of(&[".", " and left.", "."]);
        let thanks = match dice.chance(0.5) {
            true => format!(" {receiver} said thank you to {giver}."),
            false => String::new(),
        };
        format!("{opening}{giver} {gives} {object} to {receiver}{end}{thanks}")
    }

    /// Two animals, one of which does something to the other.
    fn animals(&self, dice: &mut Dice) -> String {
        let a = dice.one_of(&self.animals);
        let others: Vec<&str> = self.animals.iter().copied().filter(|animal| *animal != a).collect();
        let (b, verb) = (dice.one_of(&others), dice.one_of(&self.chases));
        let state = dice.one_of(&["happy", "tired", "hungry", "big", "small"]);
        if dice.chance(0.5) {
            let participle = if verb == "saw" { "seen" } else { verb };
            return format!(
                "The {a} {verb} the {b}. The {b} was {participle} by the {a}. The {a} was {state}."
            );
        }
        let seat = dice.one_of(&["mat", "table", "chair", "bed", "floor"]);
        format!("The {a} was sitting on the {seat}. The {a} was {state}. The {a} {verb} the {b}.")
    }

    fn fact(&self, dice: &mut Dice) -> String {
        if dice.chance(0.6) {
            let [country, city] = dice.one_of(&CAPITALS);
            return match dice.between(1, 3) {
                1 => format!("The capital of {country} is {city}."),
                2 => format!("{city} is the capital of {country}."),
                _ => format!("{city} is a city in {country}."),
            };
        }
        let [known_for, first, last] = dice.one_of(&FAMOUS);
        let opening = dice.one_of(&["Famous", "The"]);
        format!("{opening} {known_for} {first} {last} {}.", self.deed(dice))
    }
}

/// The token that a text is, if it is one. ([`Tokenizer::to_single_token`] looks for other spellings, which takes long.)
fn single_token(tokenizer: &Tokenizer, text: &str) -> Option<u32> {
    match tokenizer.encode(text).as_deref() {
        Ok([token]) => Some(*token),
        _ => None,
    }
}

fn with_article(word: &str) -> String {
    let article = if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {word}")
}

/// A row of `length` random tokens of `among`, a piece of 3 to `longest` tokens read again and again, behind
/// `<|endoftext|>` in most rows. Only what has been read before counts.
///
/// # Panics
/// If `among` is empty, or a piece of 3 tokens cannot be read twice.
pub fn repeated(length: usize, among: &[u32], longest: usize, dice: &mut Dice) -> Example {
    let period = dice.between(3, longest.min((length - 1) / 2));
    let piece: Vec<u32> = (0..period).map(|_| dice.one_of(among)).collect();
    let opening = if dice.chance(0.8) { &[END_OF_TEXT][..] } else { &[] };
    let ids: Vec<u32> = opening.iter().chain(piece.iter().cycle()).take(length).copied().collect();
    let is_known = |next: usize| f32::from(next >= opening.len() + period);
    Example { weights: (1..length).map(is_known).collect(), ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_are_those_that_the_tiny_model_knows() {
        let shipped: Vec<u32> = serde_json::from_str(gpt2_tiny::KNOWN_TOKENS).unwrap();
        assert_eq!(Corpus::default().known_tokens(), shipped);
    }

    #[test]
    fn equal_dice_write_equal_rows_and_others_do_not() {
        let corpus = Corpus::default();
        let row = |seed, step, row| corpus.text(65, &mut Dice::new(seed, step, row));
        assert_eq!(row(1, 2, 3), row(1, 2, 3));
        assert_eq!(row(1, 2, 3).len(), 65);
        for other in [row(2, 2, 3), row(1, 3, 3), row(1, 2, 4)] {
            assert_ne!(row(1, 2, 3), other);
        }
        // Written down once: the text must not change with the machine.
        let document = corpus.document(&mut Dice::new(1, 0, 0));
        let expected = "Kathryn Black did not like the office. She was one of the best. Kathryn Black did not like the store.";
        assert_eq!(document, expected);
    }

    #[test]
    fn repeated_tokens_count_once_they_have_been_read() {
        for row in 0..50 {
            let Example { ids, weights } =
                repeated(40, &[7, 8, 9, 10, 11, 12], 12, &mut Dice::new(1, 0, row));
            assert_eq!((ids.len(), weights.len()), (40, 39));
            let first = weights.iter().position(|weight| *weight == 1.0).unwrap() + 1;
            let period = first - usize::from(ids[0] == END_OF_TEXT);
            assert!((3..=12).contains(&period));
            assert!((first..40).all(|pos| weights[pos - 1] == 1.0 && ids[pos] == ids[pos - period]));
        }
    }
}
