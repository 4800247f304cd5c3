//! Two prompts, and which of them is patched into the other.

use std::fmt;
use std::str::FromStr;

use gpt2::generate::check_logits;
use gpt2::{Gpt2, no_hook};

use crate::{Ablation, Axis, Endpoints, Patch, SiteKind};

/// Which run is patched into which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Clean activations into the corrupted run: what is enough to restore the answer?
    #[default]
    Denoising,
    /// Corrupted activations into the clean run: what is needed to keep the answer?
    Noising,
}

impl Direction {
    /// Both directions.
    pub const ALL: [Self; 2] = [Self::Denoising, Self::Noising];

    /// The clean and the corrupted one of what belongs to source and base.
    pub(crate) fn clean_and_corrupted<T>(self, source: T, base: T) -> [T; 2] {
        match self {
            Self::Denoising => [source, base],
            Self::Noising => [base, source],
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Denoising => "denoising",
            Self::Noising => "noising",
        })
    }
}

impl FromStr for Direction {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|direction| direction.to_string() == text);
        found.ok_or_else(|| format!("there is no direction \"{text}\"; give denoising or noising"))
    }
}

/// What is wrong with an experiment, a sweep or a result.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// Patching needs an activation of one run for every activation of the other.
    DifferentLengths {
        /// The clean prompt's tokens.
        clean: usize,
        /// The corrupted prompt's tokens.
        corrupted: usize,
    },

    /// Equal prompts have equal activations.
    SamePrompts {
        /// How many tokens they have.
        count: usize,
    },

    /// A prompt that the model cannot read.
    Prompt {
        /// "clean" or "corrupted".
        which: &'static str,
        /// What is wrong with it.
        error: gpt2::Error,
    },

    /// A mean over no prompts at all.
    NoPrompts,

    /// A place that an axis does not have.
    OutOfRange {
        /// The axis.
        axis: Axis,
        /// The place that was asked for.
        index: usize,
        /// How many places there are.
        length: usize,
    },

    /// A subset along an axis that the sweep does not run along.
    NoSuchAxis {
        /// What is patched.
        site: SiteKind,
        /// The axis that was asked for.
        asked: Axis,
        /// The axes of the sweep.
        axes: Vec<Axis>,
    },

    /// A subset without a single patch.
    EmptySubset,

    /// An ablation that is given something of a source run.
    NoSource,

    /// A metric without a derivative.
    NoGradient {
        /// The metric.
        metric: String,
    },

    /// Integrated gradients between token embeddings of two prompts, where there is only one.
    NoPath,

    /// A circuit of an ablation, or of runs with edits that stay.
    NoCircuit,

    /// Gradients between the two runs, where cut edges carry something else than the source run's outputs.
    NotBetweenRuns {
        /// The prediction.
        prediction: &'static str,
    },

    /// Magnitudes of effects, which are not values of a metric.
    OnlyMagnitudes,

    /// An unpatched run whose metric cannot be computed: there is nothing to compare with.
    NotFinite {
        /// "clean", "corrupted" or "unablated".
        which: &'static str,
        /// The metric.
        metric: f32,
        /// The first logit of the run that is not finite, if there is one.
        logits: Option<gpt2::Error>,
    },

    /// A normalised metric whose two ends are (nearly) the same, or not finite.
    NothingToNormalize {
        /// The clean run's metric.
        clean: f32,
        /// The corrupted run's.
        corrupted: f32,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DifferentLengths { clean, corrupted } => write!(
                f,
                "the clean prompt has {clean} tokens and the corrupted one {corrupted}; patching needs \
                 equally many"
            ),
            Self::SamePrompts { count } => write!(
                f,
                "the clean and the corrupted prompt are the same {count} tokens: there is nothing to patch"
            ),
            Self::Prompt { which, error } => write!(f, "the {which} prompt: {error}"),
            Self::NoPrompts => write!(f, "a mean over prompts needs at least one prompt"),
            Self::OutOfRange { axis, index, length } => {
                let last = length.saturating_sub(1);
                write!(f, "there is no {axis} {index}: they run from 0 to {last}")
            }
            Self::NoSuchAxis { site, asked, axes } => {
                let axes: Vec<String> = axes.iter().map(Axis::to_string).collect();
                write!(f, "a sweep of {site} over {} has no {asked} to choose from", axes.join(" × "))
            }
            Self::NoSource => {
                write!(f, "an ablation has one prompt, so there is no source to take from; give zero or mean")
            }
            Self::NoGradient { metric } => write!(
                f,
                "{metric} has no gradient, so nothing can be attributed to activations; give a difference of \
                 logits or probabilities, a logit, a probability, a log probability, their changes, a KL \
                 divergence or a loss"
            ),
            Self::NoPath => write!(
                f,
                "integrated gradients go from one prompt to another, and an ablation has one prompt; give atp, \
                 relp or atp-star"
            ),
            Self::NoCircuit => write!(f, "a circuit is found between two prompts, without edits that stay"),
            Self::NotBetweenRuns { prediction } => write!(
                f,
                "{prediction} takes gradients on the way from one run to the other, so cut edges must carry what \
                 the source run writes; give eap, exact or acdc"
            ),
            Self::OnlyMagnitudes => write!(
                f,
                "atp-star gives the magnitudes of effects, not their signs, so no value of the metric follows; \
                 give changes"
            ),
            Self::EmptySubset => write!(f, "the subset is empty: there is nothing to patch"),
            Self::NothingToNormalize { clean, corrupted } if !(clean - corrupted).is_finite() => {
                write!(
                    f,
                    "there is no finite scale from the corrupted run's metric ({corrupted}) to the clean one's \
                 ({clean})"
                )
            }
            Self::NotFinite { which, metric, logits: Some(error) } => {
                write!(f, "the metric of the {which} run is {metric}: {error}")
            }
            Self::NotFinite { which, metric, logits: None } => write!(
                f,
                "the metric of the {which} run is {metric}, not a finite number, although its logits are: it \
                 is too large for f32"
            ),
            Self::NothingToNormalize { clean, corrupted } => write!(
                f,
                "the clean run's metric ({clean}) and the corrupted one's ({corrupted}) are too close to \
                 each other to be 1 and 0 of a scale"
            ),
        }
    }
}

impl std::error::Error for Error {}

/// An edit of the base run that stays in every patched run ([`Experiment::given`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// The piece.
    pub patch: Patch,
    /// What is put in its place.
    pub value: LastingValue,
}

/// What is put in the place of a piece that is edited for good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LastingValue {
    /// What the source run has there.
    #[default]
    Source,
    /// Zeros.
    Zero,
    /// The activation's mean over the base prompt's own positions.
    Mean,
}

impl fmt::Display for LastingValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Source => "source",
            Self::Zero => "zero",
            Self::Mean => "mean",
        })
    }
}

impl FromStr for LastingValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found =
            [Self::Source, Self::Zero, Self::Mean].into_iter().find(|value| value.to_string() == text);
        found.ok_or_else(|| format!("there is no value \"{text}\"; give source, zero or mean"))
    }
}

/// Two prompts of equally many tokens, and which is patched into which; or one prompt, and what its
/// activations are replaced by.
#[derive(Clone, Debug)]
pub struct Experiment {
    clean: Vec<u32>,
    corrupted: Vec<u32>,
    direction: Direction,
    ablation: Option<Ablation>,
    lasting: Vec<Lasting>,
}

impl Experiment {
    /// Checks the two prompts, as token ids.
    ///
    /// # Errors
    /// If the model cannot read one of them, if they have different numbers of tokens, or if they
    /// are the same.
    pub fn new(
        model: &Gpt2,
        clean: Vec<u32>,
        corrupted: Vec<u32>,
        direction: Direction,
    ) -> Result<Self, Error> {
        for (which, ids) in [("clean", &clean), ("corrupted", &corrupted)] {
            model.check_prompt(ids).map_err(|error| Error::Prompt { which, error })?;
        }
        if clean.len() != corrupted.len() {
            return Err(Error::DifferentLengths { clean: clean.len(), corrupted: corrupted.len() });
        }
        if clean == corrupted {
            return Err(Error::SamePrompts { count: clean.len() });
        }
        Ok(Self { clean, corrupted, direction, ablation: None, lasting: Vec::new() })
    }

    /// One prompt, run with one activation after the other replaced: what is lost without it? The
    /// unablated run is both the clean and the corrupted one.
    ///
    /// To *resample* an activation (take it from other prompts, and average what that does), patch
    /// those prompts into this one: [`Experiment::new`] with [`Direction::Noising`].
    ///
    /// # Errors
    /// If the model cannot read one of the prompts, or a position is beyond the end.
    pub fn ablation(model: &Gpt2, prompt: Vec<u32>, ablation: Ablation) -> Result<Self, Error> {
        let check = |which, ids: &[u32]| {
            let checked = model.check_prompt(ids);
            checked.map_err(|error| Error::Prompt { which, error })
        };
        check("ablated", &prompt)?;
        match &ablation {
            Ablation::Position(pos) if *pos >= prompt.len() => {
                return Err(Error::OutOfRange { axis: Axis::Pos, index: *pos, length: prompt.len() });
            }
            Ablation::MeanOf(prompts) => {
                prompts.iter().try_for_each(|ids| check("averaged", ids))?;
                if prompts.is_empty() {
                    return Err(Error::NoPrompts);
                }
            }
            _ => {}
        }
        Ok(Self {
            clean: prompt.clone(),
            corrupted: prompt,
            direction: Direction::Noising,
            ablation: Some(ablation),
            lasting: Vec::new(),
        })
    }

    /// The same experiment *given* these edits: they stay in the base run and in every patched run, before its
    /// own patch. A sweep then asks what each activation does once these are as they are: back-up heads, say,
    /// show themselves when the heads that they stand in for are ablated.
    ///
    /// # Errors
    /// If the model or the prompts do not have such a place, or an ablation, which has no source, is given
    /// something of the source run.
    pub fn given(self, model: &Gpt2, mut lasting: Vec<Lasting>) -> Result<Self, Error> {
        let t = self.n_tokens();
        if self.ablation.is_some() && lasting.iter().any(|it| it.value == LastingValue::Source) {
            return Err(Error::NoSource);
        }
        for Lasting { patch, .. } in &mut lasting {
            let layers = if patch.site.is_in_block() { model.config.n_layer } else { 1 };
            let places = [
                (Axis::Layer, Some(patch.layer), layers),
                (Axis::Pos, patch.pos, t),
                (Axis::Head, patch.head, model.config.n_head),
                (Axis::Neuron, patch.neuron, model.config.inner_size()),
                (Axis::Dest, patch.dest, t),
                (Axis::Src, patch.src, t),
            ];
            for (axis, place, length) in places {
                let axes = patch.site.axes().to_vec();
                if let Some(index) = place.filter(|place| *place >= length) {
                    return Err(Error::OutOfRange { axis, index, length });
                }
                if place.is_some() && !axes.contains(&axis) {
                    return Err(Error::NoSuchAxis { site: patch.site, asked: axis, axes });
                }
            }
            // What a head writes is linear in z, and has no bias: to edit the one is to edit the other.
            if patch.site == SiteKind::Result {
                patch.site = SiteKind::Z;
            }
        }
        Ok(Self { lasting, ..self })
    }

    /// The edits that stay.
    pub fn lasting(&self) -> &[Lasting] {
        &self.lasting
    }

    /// Whether the metric of both unpatched runs could be computed: if not, there is nothing to compare
    /// patched runs with. `ends` are those of this experiment's [`Outcome`](crate::Outcome).
    ///
    /// # Errors
    /// [`Error::NotFinite`], with the first logit of the run that is not finite.
    pub fn check_ends(&self, model: &Gpt2, ends: Endpoints) -> Result<(), Error> {
        let clean = match self.ablation {
            Some(_) => "unablated",
            None => "clean",
        };
        let runs = [(clean, &self.clean, ends.clean), ("corrupted", &self.corrupted, ends.corrupted)];
        let Some((which, ids, metric)) = (runs.into_iter()).find(|(.., end)| !end.is_finite()) else {
            return Ok(());
        };
        let logits = model.forward(ids, &mut no_hook); // (T, V)
        let check = |pos: usize| check_logits(logits.row(pos), pos + 1).err();
        // The metric may be read anywhere; usually it is read at the end.
        let last = ids.len() - 1;
        let logits = check(last).or_else(|| (0..last).find_map(check));
        Err(Error::NotFinite { which, metric, logits })
    }

    /// What activations are replaced by, if not by those of the source prompt.
    pub fn replaced_by(&self) -> Option<&Ablation> {
        self.ablation.as_ref()
    }

    /// The clean prompt.
    pub fn clean(&self) -> &[u32] {
        &self.clean
    }

    /// The corrupted prompt.
    pub fn corrupted(&self) -> &[u32] {
        &self.corrupted
    }

    /// Which is patched into which.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// The prompt whose activations are put into the other run.
    pub fn source(&self) -> &[u32] {
        match self.direction {
            Direction::Denoising => &self.clean,
            Direction::Noising => &self.corrupted,
        }
    }

    /// The prompt that is run again and again, each time with one activation of the source's.
    pub fn base(&self) -> &[u32] {
        match self.direction {
            Direction::Denoising => &self.corrupted,
            Direction::Noising => &self.clean,
        }
    }

    /// How many tokens each prompt has.
    pub fn n_tokens(&self) -> usize {
        self.clean.len()
    }

    /// The positions at which the two prompts have different tokens.
    pub fn differing_positions(&self) -> Vec<usize> {
        (0..self.n_tokens()).filter(|&pos| self.clean[pos] != self.corrupted[pos]).collect()
    }
}
