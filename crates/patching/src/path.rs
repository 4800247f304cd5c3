//! Path patching: which head talks to which?
//!
//! # The question
//!
//! Patching a head's output and looking at the answer finds heads that matter, by *any* way: through
//! every later head and MLP at once. Path patching asks about one way only. A *sender* is a head, the
//! *receivers* are what it may talk to: the logits, or the queries, keys or values of some later heads.
//! How does the answer change if the receivers, and nothing else, read from the sender what it would have
//! written in the other run?
//!
//! # The method
//!
//! It is that of Wang et al. 2022, *Interpretability in the Wild* (arXiv 2211.00593), appendix B, with
//! the words of this crate: the *base* run is patched, with activations of the *source* run.
//!
//! 1. Run both prompts, and keep z (what each head has gathered, before `c_proj`) of both.
//! 2. Run the base prompt with **all heads frozen**: each layer's z is that of the base run, except the
//!    sender's, which is that of the source run. So the residual stream after the sender's layer contains
//!    the sender's change, `(z_source − z_base) W_O` of that head, and nothing that other heads would
//!    compute from it. Layer norms are computed anew where the stream is read. With `through_mlps`, as the
//!    paper and ARENA have it, MLPs are computed anew and pass the change on; without, they are frozen like
//!    the heads, so that only the direct way along the residual stream is left.
//! 3. In this run, see what the receivers read: what the queries (or keys, or values) of the receiving
//!    heads *would be*, computed from the changed stream before z is frozen.
//! 4. Run the base prompt once more, with nothing frozen, and replace the queries (keys, values) of the
//!    receivers by these. Everything else, from the receivers' patterns to the logits, is computed as
//!    usual. The metric of this run is the result for the sender.
//!
//! If the receivers are the logits, step 3 already gives the result: the last layer norm and the
//! unembedding read the changed stream, and there is nothing to run again.
//!
//! A receiver cannot read a sender in its own layer or above: attention reads the stream as it enters the
//! block. For senders that no receiver reads, the result is the metric of the base run, bit for bit.
//!
//! ARENA's `get_path_patch_head_to_heads` is this method with `through_mlps`. It is **not**
//! `get_act_patch_direct_path` of TransformerLens 3.5 and later, which adds the sender's change to what
//! one later head reads as its query (or key, or value): an edge from head to head, past all MLPs.
//!
//! # Two engines
//!
//! [`Engine::Plain`] is the method as it stands above: a forward pass with hooks for step 2 and one for
//! step 4, for every sender. [`Engine::Incremental`] gives the same with less:
//!
//! - With all heads frozen no position reads another, so only the rows that the sender changes are
//!   computed: from the first token in which the prompts differ; or the sender's one position; or, for
//!   the logits, the last. The rows of all senders stand in one tall matrix that walks through the
//!   layers once, so each weight is read once for all of them.
//! - Step 4 begins at the first receiver that reads the sender, from the residual stream of the base run
//!   there.
//!
//! ```
//! use gpt2::Pretrained;
//! use patching::path::{HeadInput, PathPatching, Receivers, Senders};
//! use patching::{Direction, Engine, Experiment, Metric, Watch};
//!
//! let tiny = Pretrained::tiny()?;
//! let ids = |text| tiny.tokenizer.encode(text);
//! let experiment = Experiment::new(
//!     &tiny.model,
//!     ids("When John and Mary went to the shops, John gave the bag to")?,
//!     ids("When John and Mary went to the shops, Mary gave the bag to")?,
//!     Direction::Noising,
//! )?;
//! let metric = Metric::LogitDiff {
//!     a: &[tiny.tokenizer.to_single_token(" Mary")?],
//!     b: &[tiny.tokenizer.to_single_token(" John")?],
//! };
//! // Which heads do the queries of head 11.0 read?
//! let paths = PathPatching {
//!     senders: Senders::Heads,
//!     receivers: Receivers::Heads(HeadInput::Q, vec!["11.0".parse()?]),
//!     pos: None,
//!     through_mlps: true,
//! };
//! let outcome = paths.run(&tiny.model, &experiment, metric, Engine::default(), Watch::NOBODY)?;
//! assert_eq!(outcome.grid.shape(), [12, 4]);
//! assert_eq!(outcome.grid.at(&[11, 2]), outcome.clean_metric); // in the receiver's own layer
//! assert_ne!(outcome.grid.at(&[9, 1]), outcome.clean_metric);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod incremental;
mod plain;

use std::fmt;
use std::str::FromStr;

use gpt2::{Gpt2, SiteKind};

pub use gpt2::graph::HeadInput;

use crate::{Axis, Direction, Endpoints, Engine, Experiment, Grid, Head, Measured, Metric, Patch, Watch};

/// What reads the sender's change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receivers {
    /// The logits, by way of the last layer norm.
    Logits,
    /// One input of some heads, of all of them at once.
    Heads(HeadInput, Vec<Head>),
    /// The MLPs of some layers, all of them at once.
    Mlps(Vec<usize>),
}

/// What can read a sender's change: the kinds of [`Receivers`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reader {
    /// The logits.
    #[default]
    Logits,
    /// An input of heads.
    Head(HeadInput),
    /// MLPs.
    Mlp,
}

impl Reader {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Logits,
        Self::Head(HeadInput::Q),
        Self::Head(HeadInput::K),
        Self::Head(HeadInput::V),
        Self::Mlp,
    ];
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logits => f.pad("logits"),
            Self::Head(input) => f.pad(&input.to_string()),
            Self::Mlp => f.pad("mlp"),
        }
    }
}

impl FromStr for Reader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|reader| reader.to_string() == text);
        found.ok_or_else(|| format!("there is no receiver \"{text}\"; give logits, q, k, v or mlp"))
    }
}

/// What is patched, one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Senders {
    /// What each head has gathered (z): the grid is layer × head.
    #[default]
    Heads,
    /// What each MLP writes: the grid is by layer.
    Mlps,
    /// The token embedding of each position: the grid is by position.
    Embeddings,
}

impl Senders {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Heads, Self::Mlps, Self::Embeddings];
}

impl fmt::Display for Senders {
    /// The name of the activation that is patched.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let site = match self {
            Self::Heads => SiteKind::Z,
            Self::Mlps => SiteKind::MlpOut,
            Self::Embeddings => SiteKind::Embed,
        };
        f.pad(&site.to_string())
    }
}

impl FromStr for Senders {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|senders| senders.to_string() == text);
        found.ok_or_else(|| format!("there is no sender \"{text}\"; give z, mlp_out or embed"))
    }
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No head to receive anything.
    #[error(
        "queries, keys and values are those of some heads, and MLPs of some layers: name the receivers, such \
         as 8.6,8.10"
    )]
    NoReceivers,

    /// A receiver that the model does not have.
    #[error(
        "there is no head {head}: this model has the layers 0 to {} with the heads 0 to {}",
        n_layer.saturating_sub(1),
        n_head.saturating_sub(1)
    )]
    NoSuchHead {
        /// The head.
        head: Head,
        /// How many layers there are.
        n_layer: usize,
        /// How many heads each has.
        n_head: usize,
    },

    /// A receiving MLP that the model does not have.
    #[error("there is no MLP {layer}: this model has the layers 0 to {}", n_layer.saturating_sub(1))]
    NoSuchMlp {
        /// Its layer.
        layer: usize,
        /// How many layers there are.
        n_layer: usize,
    },

    /// A position beyond the end of the prompts.
    #[error(
        "there is no position {pos}: the prompts have {count} tokens, at the positions 0 to {}",
        count.saturating_sub(1)
    )]
    NoSuchPosition {
        /// The position that was asked for.
        pos: usize,
        /// How many tokens the prompts have.
        count: usize,
    },
}

/// From every sender to some receivers, one sender after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPatching {
    /// What is patched.
    pub senders: Senders,
    /// What reads the sender's change.
    pub receivers: Receivers,
    /// The one position at which the sender is patched; all positions if none is named.
    pub pos: Option<usize>,
    /// Whether MLPs are computed anew on the way, as in the paper, instead of frozen.
    pub through_mlps: bool,
}

/// The result of path patching.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The metric of the clean run, unpatched.
    pub clean_metric: f32,
    /// The metric of the corrupted run, unpatched.
    pub corrupted_metric: f32,
    /// The metric for every sender, layer × head.
    pub grid: Grid,
    /// False if the engine was stopped: then all numbers are NaN.
    pub complete: bool,
}

impl Outcome {
    /// The metric of the unpatched runs; `direction` is the experiment's.
    pub fn ends(&self, direction: Direction) -> Endpoints {
        Endpoints::new(direction, self.clean_metric, self.corrupted_metric)
    }

    /// How many senders have no finite metric.
    pub fn missing(&self) -> usize {
        self.grid.values.iter().filter(|value| value.is_nan()).count()
    }
}

impl PathPatching {
    /// The metric for every sender of the model.
    ///
    /// # Errors
    /// If there is no receiver, a receiver that the model does not have, or no such position.
    ///
    /// # Panics
    /// If the metric is a loss at positions that the prompts do not have.
    pub fn run(
        &self,
        model: &Gpt2,
        experiment: &Experiment,
        metric: Metric<'_>,
        engine: Engine,
        watch: Watch<'_>,
    ) -> Result<Outcome, Error> {
        self.check(model, experiment)?;
        let senders = self.senders(model, experiment.n_tokens());
        let task = Task { paths: self, model, experiment, senders: &senders, metric, watch };
        let measured = watch.unless_stopped(|| match engine {
            Engine::Plain => plain::run(&task),
            Engine::Incremental { memory } => incremental::run(&task, memory),
        });
        let Measured { values, clean, corrupted, .. } =
            measured.unwrap_or_else(|| Measured::nothing(senders.len()));
        let (axes, places) = self.axes(model, experiment.n_tokens());
        Ok(Outcome {
            clean_metric: clean,
            corrupted_metric: corrupted,
            complete: values.iter().all(Option::is_some),
            grid: Grid { axes, places, values: values.into_iter().map(|x| x.unwrap_or(f32::NAN)).collect() },
        })
    }

    /// Whether the model has these receivers, and the prompts the position.
    ///
    /// # Errors
    /// As [`PathPatching::run`].
    pub fn check(&self, model: &Gpt2, experiment: &Experiment) -> Result<(), Error> {
        let (n_layer, n_head) = (model.config.n_layer, model.config.n_head);
        match &self.receivers {
            Receivers::Heads(_, heads) => {
                let exists = |head: &&Head| head.layer < n_layer && head.head < n_head;
                if let Some(&head) = heads.iter().find(|head| !exists(head)) {
                    return Err(Error::NoSuchHead { head, n_layer, n_head });
                }
            }
            Receivers::Mlps(layers) => {
                if let Some(&layer) = layers.iter().find(|layer| **layer >= n_layer) {
                    return Err(Error::NoSuchMlp { layer, n_layer });
                }
            }
            Receivers::Logits => {}
        }
        if matches!(&self.receivers, Receivers::Heads(_, heads) if heads.is_empty())
            || matches!(&self.receivers, Receivers::Mlps(layers) if layers.is_empty())
        {
            return Err(Error::NoReceivers);
        }
        let count = experiment.n_tokens();
        match self.pos {
            Some(pos) if pos >= count => Err(Error::NoSuchPosition { pos, count }),
            _ => Ok(()),
        }
    }

    /// The axes of the grid of senders of prompts of `t` tokens, and the places along them.
    fn axes(&self, model: &Gpt2, t: usize) -> (Vec<Axis>, Vec<Vec<usize>>) {
        let layers = (0..model.config.n_layer).collect();
        match self.senders {
            Senders::Heads => {
                (vec![Axis::Layer, Axis::Head], vec![layers, (0..model.config.n_head).collect()])
            }
            Senders::Mlps => (vec![Axis::Layer], vec![layers]),
            Senders::Embeddings => {
                (vec![Axis::Pos], vec![self.pos.map_or_else(|| (0..t).collect(), |pos| vec![pos])])
            }
        }
    }

    /// The activation of each sender that is taken from the source run, in the order of the grid.
    fn senders(&self, model: &Gpt2, t: usize) -> Vec<Patch> {
        let site = match self.senders {
            Senders::Heads => SiteKind::Z,
            Senders::Mlps => SiteKind::MlpOut,
            Senders::Embeddings => SiteKind::Embed,
        };
        let (axes, places) = self.axes(model, t);
        let mut senders = vec![Patch { pos: self.pos, ..Patch::whole(site, 0) }];
        for (&axis, places) in axes.iter().zip(&places) {
            let along = |sender: Patch| places.iter().map(move |&place| sender.narrowed(axis, place));
            senders = senders.into_iter().flat_map(along).collect();
        }
        senders
    }
}

/// What an engine is to do.
struct Task<'a> {
    paths: &'a PathPatching,
    model: &'a Gpt2,
    experiment: &'a Experiment,
    /// The activation of each sender that is taken from the source run, in the order of the grid.
    senders: &'a [Patch],
    metric: Metric<'a>,
    watch: Watch<'a>,
}

#[cfg(test)]
mod tests {
    use gpt2::Config;
    use proptest::prelude::*;

    use super::*;
    use crate::{Direction, Which};

    const N_LAYER: usize = 4;
    const N_HEAD: usize = 3;

    /// A random model, a pair of prompts, and paths with everything about them at random.
    fn random_paths() -> impl Strategy<Value = (Gpt2, Experiment, PathPatching)> {
        let t = 2..9_usize;
        let head = (0..N_LAYER, 0..N_HEAD).prop_map(|(layer, head)| Head { layer, head });
        let heads = prop::collection::vec(head, 1..4);
        let input = prop::sample::select(vec![HeadInput::Q, HeadInput::K, HeadInput::V]);
        let receivers = prop_oneof![
            Just(Receivers::Logits),
            prop::collection::vec(0..N_LAYER, 1..3).prop_map(Receivers::Mlps),
            (input, heads).prop_map(|(input, heads)| Receivers::Heads(input, heads)),
        ];
        let direction = prop::sample::select(Direction::ALL.to_vec());
        let senders = prop::sample::select(vec![Senders::Heads, Senders::Mlps, Senders::Embeddings]);
        let parts = (any::<u64>(), 1..6_usize, t, (senders, receivers), any::<bool>(), direction);
        parts.prop_flat_map(|(seed, head_size, t, (senders, receivers), through_mlps, direction)| {
            let config = Config {
                vocab_size: 13,
                block_size: 8,
                n_layer: N_LAYER,
                n_head: N_HEAD,
                n_embd: N_HEAD * head_size,
                ..Config::default()
            };
            let model = Gpt2::random(config.of_kin(seed), seed);
            let token = 0..13_u32;
            let clean = prop::collection::vec(token.clone(), t);
            let changes = prop::collection::vec((0..t, token), 1..=t);
            (clean, changes, prop::option::of(0..t)).prop_filter_map(
                "equal prompts",
                move |(clean, changes, pos)| {
                    let mut corrupted = clean.clone();
                    changes.iter().for_each(|&(pos, token)| corrupted[pos] = token);
                    let experiment = Experiment::new(&model, clean, corrupted, direction).ok()?;
                    let paths = PathPatching { senders, receivers: receivers.clone(), pos, through_mlps };
                    Some((model.clone(), experiment, paths))
                },
            )
        })
    }

    const METRIC: Metric<'static> = Metric::LogitDiff { a: &[0], b: &[1] };

    fn outcome((model, experiment, paths): &(Gpt2, Experiment, PathPatching), engine: Engine) -> Outcome {
        paths.run(model, experiment, METRIC, engine, Watch::NOBODY).unwrap()
    }

    fn base_metric(experiment: &Experiment, outcome: &Outcome) -> f32 {
        match experiment.direction() {
            Direction::Denoising => outcome.corrupted_metric,
            Direction::Noising => outcome.clean_metric,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_incremental_engine_equals_the_plain_one(case in random_paths()) {
            let fast = outcome(&case, Engine::default());
            let plain = outcome(&case, Engine::Plain);
            let pairs = fast.grid.values.iter().zip(&plain.grid.values);
            let largest = pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            println!("largest difference {largest:e}");
            prop_assert!(largest < 3e-4, "largest difference {largest:e}");
            prop_assert!((fast.clean_metric - plain.clean_metric).abs() < 3e-4);
            prop_assert!((fast.corrupted_metric - plain.corrupted_metric).abs() < 3e-4);
        }

        #[test]
        fn senders_that_no_receiver_reads_change_no_bit(case in random_paths()) {
            let (model, experiment, paths) = &case;
            let first_difference = experiment.differing_positions()[0];
            let is_heard = |sender: &Patch| match (&paths.receivers, sender.site) {
                (_, SiteKind::Embed) | (Receivers::Logits, _) => true,
                (Receivers::Heads(_, heads), _) => heads.iter().any(|head| head.layer > sender.layer),
                // An MLP reads the heads of its own layer.
                (Receivers::Mlps(layers), SiteKind::Z) => layers.iter().any(|layer| *layer >= sender.layer),
                (Receivers::Mlps(layers), _) => layers.iter().any(|layer| *layer > sender.layer),
            };
            for engine in [Engine::default(), Engine::Plain] {
                let outcome = outcome(&case, engine);
                let base = base_metric(experiment, &outcome);
                let senders = paths.senders(model, experiment.n_tokens());
                for (sender, value) in senders.iter().zip(&outcome.grid.values) {
                    let equal = sender.pos.is_some_and(|pos| pos < first_difference);
                    if !is_heard(sender) || equal {
                        prop_assert!(value.to_bits() == base.to_bits(), "{sender:?}: {value} {base}");
                    }
                }
            }
        }

        #[test]
        fn neither_threads_nor_memory_change_a_bit(case in random_paths(), threads in 1..5_usize) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let values = |memory| outcome(&case, Engine::Incremental { memory }).grid.values;
            let expected = values(1 << 30);
            prop_assert_eq!(&values(0), &expected);
            prop_assert_eq!(&pool.install(|| values(1 << 30)), &expected);
            prop_assert_eq!(pool.install(|| outcome(&case, Engine::Plain)).grid.values, outcome(&case, Engine::Plain).grid.values);
        }
    }

    fn small() -> (Gpt2, Experiment) {
        let config = Config {
            vocab_size: 13,
            block_size: 8,
            n_layer: N_LAYER,
            n_head: N_HEAD,
            n_embd: 12,
            ..Config::default()
        };
        let model = Gpt2::random(config, 5);
        let [clean, corrupted] = [vec![1, 2, 3, 4, 5], vec![1, 6, 3, 4, 5]];
        let experiment = Experiment::new(&model, clean, corrupted, Direction::Denoising).unwrap();
        (model, experiment)
    }

    #[test]
    fn the_last_layer_agrees_with_ordinary_patching() {
        // After the last layer nothing else reads it but its own MLP.
        let (model, experiment) = small();
        let paths = |through_mlps| PathPatching {
            senders: Senders::Heads,
            receivers: Receivers::Logits,
            pos: None,
            through_mlps,
        };
        let sweep = crate::Sweep::over(&experiment, crate::SiteKind::Z);
        let expected = sweep.run(&model, METRIC, Engine::Plain, &|_| {}).grid.values;
        for engine in [Engine::default(), Engine::Plain] {
            let got = outcome(&(model.clone(), experiment.clone(), paths(true)), engine);
            let frozen = outcome(&(model.clone(), experiment.clone(), paths(false)), engine);
            for (sender, expected) in expected.iter().enumerate().skip((N_LAYER - 1) * N_HEAD) {
                assert!((got.grid.values[sender] - expected).abs() < 1e-5);
                assert!((frozen.grid.values[sender] - expected).abs() > 1e-4);
            }
        }
    }

    #[test]
    fn what_the_model_does_not_have_is_refused_with_what_it_has() {
        let (model, experiment) = small();
        let refusal = |receivers, pos| {
            let paths = PathPatching { senders: Senders::Heads, receivers, pos, through_mlps: false };
            let outcome = paths.run(&model, &experiment, METRIC, Engine::default(), Watch::NOBODY);
            outcome.unwrap_err().to_string()
        };
        let heads = |heads| Receivers::Heads(HeadInput::Q, heads);
        assert!(refusal(heads(vec![]), None).contains("name the receivers"));
        let message = refusal(heads(vec!["3.0".parse().unwrap(), "3.3".parse().unwrap()]), None);
        assert_eq!(message, "there is no head 3.3: this model has the layers 0 to 3 with the heads 0 to 2");
        assert!(refusal(heads(vec![Head { layer: 4, head: 0 }]), None).contains("no head 4.0"));
        assert!(refusal(Receivers::Logits, Some(5)).contains("at the positions 0 to 4"));
        for text in ["8", "8.", ".1", "8-1", "-1.0", "1.0.0"] {
            assert!(text.parse::<Head>().unwrap_err().contains("expected LAYER.HEAD"), "{text}");
        }
    }

    #[test]
    fn the_shares_of_progress_add_up_to_one() {
        let (model, experiment) = small();
        for receivers in [Receivers::Logits, Receivers::Heads(HeadInput::K, vec![Head { layer: 2, head: 1 }])]
        {
            let paths = PathPatching { senders: Senders::Heads, receivers, pos: None, through_mlps: true };
            for engine in [Engine::default(), Engine::Incremental { memory: 0 }, Engine::Plain] {
                let done = std::sync::Mutex::new(0.0);
                let progress = |share: f64| *done.lock().unwrap() += share;
                let watch = Watch { progress: &progress, ..Watch::NOBODY };
                let outcome = paths.run(&model, &experiment, METRIC, engine, watch);
                assert!(outcome.unwrap().complete);
                assert!((*done.lock().unwrap() - 1.0).abs() < 1e-9, "{engine:?}: {done:?}");
            }
        }
    }

    #[test]
    fn a_stopped_engine_gives_no_numbers_and_says_so() {
        let (model, experiment) = small();
        let stop = std::sync::atomic::AtomicBool::new(true);
        let heads = vec![Head { layer: 2, head: 1 }];
        for receivers in [Receivers::Logits, Receivers::Heads(HeadInput::Q, heads)] {
            let paths = PathPatching { senders: Senders::Heads, receivers, pos: None, through_mlps: true };
            for engine in [Engine::default(), Engine::Plain] {
                let watch = Watch { stop: &stop, ..Watch::NOBODY };
                let outcome = paths.run(&model, &experiment, METRIC, engine, watch).unwrap();
                assert!(!outcome.complete && outcome.clean_metric.is_nan());
                assert!(outcome.grid.values.len() == 12 && outcome.grid.values.iter().all(|x| x.is_nan()));
            }
        }
    }

    #[test]
    fn every_kind_of_metric_is_the_same_on_both_engines() {
        let (model, experiment) = small();
        let custom = |which: Which, logits: &[f32]| match which {
            Which::Patched(cell) => cell as f32 + logits[3],
            _ => logits[3],
        };
        let heads = vec![Head { layer: 3, head: 1 }, Head { layer: 2, head: 0 }];
        for metric in [
            Metric::Kl,
            Metric::Prob { tokens: &[2] },
            Metric::Loss { from: 1, to: 4 },
            Metric::Custom(&custom),
        ] {
            for receivers in [Receivers::Logits, Receivers::Heads(HeadInput::V, heads.clone())] {
                let paths =
                    PathPatching { senders: Senders::Heads, receivers, pos: None, through_mlps: true };
                let [fast, plain] = [Engine::default(), Engine::Plain]
                    .map(|engine| paths.run(&model, &experiment, metric, engine, Watch::NOBODY).unwrap());
                for (x, y) in fast.grid.values.iter().zip(&plain.grid.values) {
                    assert!((x - y).abs() < 1e-4, "{metric:?}: {x} and {y}");
                }
                let first = fast.grid.values[0];
                assert!(fast.grid.values.iter().any(|x| *x != first), "{metric:?}");
            }
        }
    }
}
