//! The ids of a vocabulary and of the tokens that are added to it.

use std::collections::HashMap;

use tiktoken_rs::CoreBPE;

use super::added::AddedToken;
use super::settings::Settings;
use super::{END_OF_TEXT, END_OF_TEXT_NAME, N_TOKENS, alphabet};

/// The tokens that texts are made of.
pub(super) enum Vocabulary {
    /// GPT-2's own.
    R50k(&'static CoreBPE),
    /// Out of a file: token in the alphabet of [`alphabet`] → id.
    File(HashMap<String, u32>),
}

impl Vocabulary {
    fn len(&self) -> usize {
        match self {
            Self::R50k(_) => N_TOKENS,
            Self::File(ids) => ids.len(),
        }
    }

    /// The id of a token as files write it.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::R50k(_) if token == END_OF_TEXT_NAME => Some(END_OF_TEXT),
            Self::R50k(bpe) => {
                let text = String::from_utf8(alphabet::bytes(token)).ok()?;
                let ids = bpe.encode_ordinary(&text);
                ids.first().copied().filter(|_| ids.len() == 1)
            }
            Self::File(ids) => ids.get(token).copied(),
        }
    }

    /// The bytes of each token by id; nothing of r50k, which has them itself.
    fn bytes(&self) -> Result<HashMap<u32, Vec<u8>>, String> {
        let Self::File(ids) = self else {
            return Ok(HashMap::new());
        };
        let mut bytes = HashMap::with_capacity(ids.len());
        for (token, &id) in ids {
            if bytes.insert(id, alphabet::bytes(token)).is_some() {
                return Err(format!("two tokens of the vocabulary have the id {id}"));
            }
        }
        Ok(bytes)
    }
}

/// A vocabulary and the tokens that are added to it.
///
/// An added token that is in the vocabulary has its id there; the others are numbered from the end of
/// the vocabulary on, in the order in which they come. That is how Hugging Face's tokenizers number
/// them, whatever id a file gives them. A file whose ids are others is refused.
pub(super) struct Ids {
    vocabulary: Vocabulary,
    added: Vec<(u32, AddedToken)>,
    /// The places of the texts in `added`.
    places: HashMap<String, usize>,
}

impl Ids {
    /// A vocabulary to which nothing is added yet.
    pub(super) fn new(vocabulary: Vocabulary) -> Self {
        Self { vocabulary, added: Vec::new(), places: HashMap::new() }
    }

    /// Adds tokens. One that was added before is given its new flags.
    ///
    /// # Errors
    /// If one would have another id than the file gives it.
    pub(super) fn add(&mut self, tokens: &[(Option<u32>, AddedToken)]) -> Result<(), String> {
        let beyond = |id: u32| id.checked_add(1).ok_or("there are too many tokens".to_owned());
        let n_vocabulary = self.vocabulary.len() as u32;
        let highest = self.added.iter().map(|(id, _)| *id).max();
        let mut next = match highest.filter(|&id| id >= n_vocabulary) {
            Some(id) => beyond(id)?,
            None => n_vocabulary,
        };
        for (wanted, token) in tokens.iter().filter(|(_, token)| !token.content.is_empty()) {
            let text = &token.content;
            let id = self.id(text).unwrap_or(next);
            if id == next {
                next = beyond(next)?;
            }
            if let Some(wanted) = wanted.filter(|&wanted| wanted != id) {
                return Err(format!(
                    "the added token {text:?} has the id {wanted}, but Hugging Face's tokenizers would \
                     give it {id}: correct the id, or give token ids with --ids"
                ));
            }
            match self.places.get(text) {
                Some(&place) => self.added[place].1 = token.clone(),
                None => {
                    self.places.insert(text.clone(), self.added.len());
                    self.added.push((id, token.clone()));
                }
            }
        }
        Ok(())
    }

    /// Adds what the files beside the vocabulary say.
    ///
    /// # Errors
    /// As [`Ids::add`].
    pub(super) fn add_settings(&mut self, settings: &Settings) -> Result<(), String> {
        let listed = settings.added.iter();
        let listed = listed.filter(|(_, t)| settings.overrules || !self.is_added(&t.content));
        let listed: Vec<_> = listed.map(|(id, t)| (Some(*id), t.clone())).collect();
        self.add(&listed)?;
        self.add_new(settings.special_tokens())
    }

    /// Adds those of some tokens that are not added yet.
    ///
    /// # Errors
    /// If there are too many.
    pub(super) fn add_new(&mut self, tokens: Vec<AddedToken>) -> Result<(), String> {
        let tokens = tokens.into_iter().filter(|t| !self.is_added(&t.content));
        let tokens: Vec<_> = tokens.map(|token| (None, token)).collect();
        self.add(&tokens)
    }

    fn is_added(&self, text: &str) -> bool {
        self.places.contains_key(text)
    }

    /// The id of a token as files write it.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        match self.places.get(token) {
            Some(&place) => Some(self.added[place].0),
            None => self.vocabulary.id(token),
        }
    }

    /// The added tokens with their ids.
    pub(super) fn added(&self) -> &[(u32, AddedToken)] {
        &self.added
    }

    /// The bytes of each token by id; of r50k only those of added tokens.
    ///
    /// # Errors
    /// If two tokens have one id.
    pub(super) fn bytes(&self) -> Result<HashMap<u32, Vec<u8>>, String> {
        let mut bytes = self.vocabulary.bytes()?;
        for (id, token) in &self.added {
            let known = bytes.insert(*id, token.content.as_bytes().to_vec());
            if known.is_some() && self.vocabulary.id(&token.content) != Some(*id) {
                return Err(format!(
                    "the added token {:?} would have the id {id}, which is that of another token",
                    token.content
                ));
            }
        }
        Ok(bytes)
    }

    /// One more than the largest id of the vocabulary, without added tokens.
    pub(super) fn n_vocabulary(&self) -> usize {
        match &self.vocabulary {
            Vocabulary::R50k(_) => N_TOKENS,
            Vocabulary::File(ids) => ids.values().max().map_or(0, |&id| id as usize + 1),
        }
    }
}
