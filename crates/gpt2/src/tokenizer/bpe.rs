//! Byte-pair encoding: a word's bytes, and neighbours merged until no merge is left.
//!
//! Training counted which two neighbours stand side by side most often, made one token of them, and
//! began again; the list of *merges* has the pairs in that order. To encode a word is to repeat it:
//! start from one token a byte, and of all pairs of neighbours that are in the list merge the one
//! that stands first in it (the leftmost of several), until none is left.
//!
//! Two files of one model are read here: the vocabulary (text → id) and the merges. A pair's place in
//! the list, not the id that it makes, decides: ids may be in any order, and two different pairs may
//! make the same token.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::alphabet;

/// How a byte without a token is encoded.
#[derive(Debug)]
pub(super) enum Unknown {
    /// It is left out. That is what Hugging Face's tokenizer does when the model has no `unk_token`.
    Dropped,
    /// It becomes this token; with `fused`, several in a row become one.
    Token {
        /// The id.
        id: u32,
        /// `fuse_unk` of the file.
        fused: bool,
    },
    /// The file names an `unk_token` that is not in the vocabulary: no text with that byte can be
    /// encoded.
    Missing(String),
}

/// What a pair of neighbours becomes.
#[derive(Clone, Copy, Debug)]
struct Merge {
    /// The place in the list of merges; the lowest is merged first.
    rank: u32,
    /// The token that the two become.
    id: u32,
}

/// A byte-pair vocabulary.
#[derive(Debug)]
pub(super) struct Bpe {
    /// The token of each byte.
    bytes: Vec<Option<u32>>,
    merges: HashMap<(u32, u32), Merge>,
    /// The vocabulary, where a word that is a token is that token whatever the merges would make of
    /// it (`ignore_merges`).
    whole_words: Option<HashMap<String, u32>>,
    unknown: Unknown,
}

impl Bpe {
    /// A vocabulary with its merges, the first merge first. The tokens are written in the alphabet of
    /// [`alphabet`].
    ///
    /// # Errors
    /// If a merge needs or makes a token that is not in the vocabulary: which one.
    pub(super) fn new(
        vocabulary: &HashMap<String, u32>,
        merges: &[(String, String)],
        unknown: Unknown,
    ) -> Result<Self, String> {
        let id = |token: &str| {
            let id = vocabulary.get(token).copied();
            id.ok_or_else(|| format!("the merges name `{token}`, which is not in the vocabulary"))
        };
        let mut map = HashMap::with_capacity(merges.len());
        for (rank, (left, right)) in (0..).zip(merges) {
            let merge = Merge { rank, id: id(&format!("{left}{right}"))? };
            // Of a pair that is listed twice, the later place counts.
            map.insert((id(left)?, id(right)?), merge);
        }
        let of_byte = |byte| {
            let token = alphabet::character(byte).to_string();
            vocabulary.get(&token).copied()
        };
        Ok(Self { bytes: (0..=255).map(of_byte).collect(), merges: map, whole_words: None, unknown })
    }

    /// Takes words that are tokens whole, without merges (`ignore_merges`).
    pub(super) fn with_whole_words(self, vocabulary: HashMap<String, u32>) -> Self {
        Self { whole_words: Some(vocabulary), ..self }
    }

    /// Appends the tokens of one word to `ids`.
    ///
    /// # Errors
    /// If the word has a byte without a token, and the `unk_token` for it is not in the vocabulary.
    pub(super) fn encode(&self, word: &str, ids: &mut Vec<u32>) -> Result<(), String> {
        if let Some(vocabulary) = &self.whole_words
            && let Some(&id) = vocabulary.get(&alphabet::written(word.as_bytes()))
        {
            ids.push(id);
            return Ok(());
        }
        ids.extend(self.merge(self.byte_tokens(word)?));
        Ok(())
    }

    /// One token a byte.
    fn byte_tokens(&self, word: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::with_capacity(word.len());
        let mut after_unknown = false;
        for byte in word.bytes() {
            let known = self.bytes[usize::from(byte)];
            match (known, &self.unknown) {
                (Some(id), _) => ids.push(id),
                (None, Unknown::Dropped) => {}
                (None, Unknown::Token { fused: true, .. }) if after_unknown => {}
                (None, Unknown::Token { id, .. }) => ids.push(*id),
                (None, Unknown::Missing(token)) => {
                    return Err(format!(
                        "no token stands for the byte {byte:#04x}, and the unk_token {token:?} is not in \
                         the vocabulary"
                    ));
                }
            }
            after_unknown = known.is_none();
        }
        Ok(ids)
    }

    /// Merges neighbours until no pair is in the list, the pair of the lowest rank first and of
    /// several the leftmost.
    ///
    /// To look for the lowest rank anew after each merge would take quadratic time in the length of
    /// the word. Here the pairs wait in a heap, and a word is a linked list: a merge puts the new
    /// token in the left one's place, unlinks the right one, and puts the two new pairs into the heap.
    fn merge(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let end = ids.len();
        // The neighbours of place i; a place that was merged into its left neighbour is its own next.
        let mut next: Vec<usize> = (1..=end).collect();
        let mut previous: Vec<usize> = (0..end).map(|i| i.saturating_sub(1)).collect();
        let merge_at = |ids: &[u32], left: usize, right: usize| {
            let pair = (*ids.get(left)?, *ids.get(right)?);
            self.merges.get(&pair).copied()
        };
        let mut waiting: BinaryHeap<Reverse<(u32, usize)>> =
            (0..end).filter_map(|left| Some(Reverse((merge_at(&ids, left, left + 1)?.rank, left)))).collect();
        while let Some(Reverse((rank, left))) = waiting.pop() {
            let right = next[left];
            // One of the two may have become part of another token since.
            let merge = merge_at(&ids, left, right).filter(|merge| merge.rank == rank);
            let Some(merge) = merge.filter(|_| right != left) else {
                continue;
            };
            ids[left] = merge.id;
            next[left] = next[right];
            next[right] = right;
            if let Some(before) = previous.get_mut(next[left]) {
                *before = left;
            }
            let new_pairs = [(left, next[left]), (previous[left], left)];
            for (left, right) in new_pairs.into_iter().filter(|(left, right)| left != right) {
                let merge = merge_at(&ids, left, right);
                waiting.extend(merge.map(|merge| Reverse((merge.rank, left))));
            }
        }
        (0..end).filter(|&i| next[i] != i).map(|i| ids[i]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    /// A vocabulary of some bytes, and of what the merges make, in this order.
    fn bpe(bytes: &str, merges: &[(&str, &str)], unknown: Unknown) -> (Bpe, HashMap<String, u32>) {
        let merges: Vec<(String, String)> =
            merges.iter().map(|(left, right)| (left.to_string(), right.to_string())).collect();
        let mut vocabulary = HashMap::new();
        let tokens = bytes.chars().map(String::from);
        for token in tokens.chain(merges.iter().map(|(left, right)| format!("{left}{right}"))) {
            let id = vocabulary.len() as u32;
            vocabulary.entry(token).or_insert(id);
        }
        (Bpe::new(&vocabulary, &merges, unknown).unwrap(), vocabulary)
    }

    fn encode(bpe: &Bpe, word: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        bpe.encode(word, &mut ids).unwrap();
        ids
    }

    /// The definition, word for word: look for the lowest rank, merge, look again.
    fn merge_by_searching(bpe: &Bpe, mut ids: Vec<u32>) -> Vec<u32> {
        loop {
            let pairs = ids.windows(2).enumerate();
            let merges = pairs.filter_map(|(i, pair)| {
                let merge = bpe.merges.get(&(pair[0], pair[1]))?;
                Some((merge.rank, i, merge.id))
            });
            let Some((_, i, id)) = merges.min() else {
                return ids;
            };
            ids.splice(i..i + 2, [id]);
        }
    }

    #[test]
    fn the_first_pair_of_the_list_is_merged_first() {
        // "bc" stands before "ab", so "abc" is a + bc although ab is a token.
        let (bpe, vocabulary) = bpe("abc", &[("b", "c"), ("a", "b")], Unknown::Dropped);
        assert_eq!(encode(&bpe, "abc"), [vocabulary["a"], vocabulary["bc"]]);
        assert_eq!(encode(&bpe, "ab"), [vocabulary["ab"]]);
    }

    #[test]
    fn two_pairs_that_make_one_token_keep_their_places() {
        // a + bc comes before ab + c; the token abc is the same. A byte-pair encoding that asks only
        // whether two neighbours make a token could not distinguish them.
        let merges = [("a", "b"), ("ab", "c"), ("b", "c")];
        let (first, vocabulary) = bpe("abc", &merges, Unknown::Dropped);
        assert_eq!(encode(&first, "abc"), [vocabulary["abc"]]);
        let merges = [("b", "c"), ("ab", "c"), ("a", "b")];
        let (second, vocabulary) = bpe("abc", &merges, Unknown::Dropped);
        assert_eq!(encode(&second, "abc"), [vocabulary["a"], vocabulary["bc"]]);
    }

    #[test]
    fn words_that_are_tokens_stay_whole_where_the_file_says_so() {
        let merges = [("b", "c"), ("a", "b"), ("ab", "c")];
        let (plain, vocabulary) = bpe("abc", &merges, Unknown::Dropped);
        assert_eq!(encode(&plain, "abc"), [vocabulary["a"], vocabulary["bc"]]);
        let whole = plain.with_whole_words(vocabulary.clone());
        assert_eq!(encode(&whole, "abc"), [vocabulary["abc"]]);
        assert_eq!(encode(&whole, "abcb").len(), 3);
    }

    #[test]
    fn a_byte_without_a_token_is_what_the_file_says() {
        let (dropped, _) = bpe("ab", &[("a", "b")], Unknown::Dropped);
        assert_eq!(encode(&dropped, "axxb"), [2], "the neighbours meet");
        let token = |fused| Unknown::Token { id: 7, fused };
        assert_eq!(encode(&bpe("ab", &[], token(false)).0, "axxb"), [0, 7, 7, 1]);
        assert_eq!(encode(&bpe("ab", &[], token(true)).0, "axxb"), [0, 7, 1]);
        let (missing, _) = bpe("ab", &[], Unknown::Missing("<unk>".to_owned()));
        assert_eq!(encode(&missing, "ba"), [1, 0]);
        let error = missing.encode("ax", &mut Vec::new()).unwrap_err();
        assert!(error.contains("the byte 0x78"), "{error}");
    }

    #[test]
    fn merges_need_their_tokens_in_the_vocabulary() {
        let vocabulary = HashMap::from([("a".to_owned(), 0), ("ab".to_owned(), 1)]);
        let merges = [("a".to_owned(), "b".to_owned())];
        let error = Bpe::new(&vocabulary, &merges, Unknown::Dropped).unwrap_err();
        assert_eq!(error, "the merges name `b`, which is not in the vocabulary");
    }

    #[test]
    fn a_word_of_half_a_million_bytes_takes_seconds_at_most() {
        let merges = [("a", "a"), ("aa", "aa"), ("a", "b"), ("ab", "a")];
        let (bpe, _) = bpe("ab", &merges, Unknown::Dropped);
        let started = Instant::now();
        for word in ["a".repeat(1 << 19), "ab".repeat(1 << 18)] {
            assert!(!encode(&bpe, &word).is_empty());
        }
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    proptest! {
        #[test]
        fn the_heap_merges_as_the_search_does(
            ranks in Just((0..12).collect::<Vec<usize>>()).prop_shuffle(),
            used in 0..13_usize,
            word in "[abc]{0,40}",
        ) {
            let all = [
                ("a", "b"), ("b", "c"), ("c", "a"), ("a", "a"), ("ab", "c"), ("a", "bc"),
                ("aa", "a"), ("a", "aa"), ("aa", "b"), ("a", "ab"), ("ca", "ab"), ("caa", "b"),
            ];
            let merges: Vec<(&str, &str)> = ranks[..used].iter().map(|&i| all[i]).collect();
            // Every merge has its tokens in the vocabulary, whether or not one makes them.
            let vocabulary: HashMap<String, u32> = ["a", "b", "c", "ab", "bc", "ca", "aa", "caa"]
                .map(String::from)
                .into_iter()
                .chain(all.iter().map(|(left, right)| format!("{left}{right}")))
                .zip(0..)
                .collect();
            let merges: Vec<(String, String)> = merges
                .iter()
                .map(|(left, right)| (left.to_string(), right.to_string()))
                .collect();
            let bpe = Bpe::new(&vocabulary, &merges, Unknown::Dropped).unwrap();
            let bytes = bpe.byte_tokens(&word).unwrap();
            prop_assert_eq!(bpe.merge(bytes.clone()), merge_by_searching(&bpe, bytes));
        }
    }
}
