//! `patch-cli compose`: which heads read what which other heads wrote ([`lens::composition`]).

use crate::export::{AxisLabels, Form, Grid};
use crate::study::{PICTURE, StudyArgs, Vocab};
use gpt2::Gpt2;
use lens::FactoredMatrix;
use lens::composition::{
    Composition, Pair, all_composition_scores, copying_score, full_ov_circuit, full_qk_circuit,
    k_composition_circuit, strongest_pairs, top1_accuracy,
};
use lens::weights::head_weights;
use patching::Head;
use serde::Serialize;
use tensor::Tensor;
use visible::visible;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::processing::{ProcessArgs, Studied};
use report::{Prompt, pad};

/// Arguments of `compose`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Input of the second head: q (queries), k (keys) or v (values) [default: all]
    #[arg(long, value_name = "KIND,…", value_delimiter = ',')]
    kind: Vec<Composition>,

    /// Number of pairs of heads to list of each kind
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,

    /// Instead of the pairs: what one head does between tokens, its QK and its OV circuit
    #[arg(long, value_name = "HEAD")]
    head: Option<Head>,

    /// Instead of the pairs: how well two heads do induction, W_E W_Q against W_E W_V W_O W_K: first
    /// the head that copies the previous token, then the one that looks for the copy
    #[arg(long, value_names = ["PREVIOUS", "INDUCTION"], num_args = 2)]
    circuit: Option<Vec<Head>>,

    /// Tokens of the circuits [default: known where the model has a list of them, else all]
    #[arg(long, value_enum)]
    vocab: Option<Vocab>,

    /// Also show the circuits between the tokens of this text
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    among: Option<String>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
A head writes W_V W_O into the residual stream; a later one reads it through W_Q W_Kᵀ (queries), its
transpose (keys) or W_V W_O (values). The score of a pair is ‖first · second‖ / (‖first‖ ‖second‖).

Examples:
  patch-cli compose --kind k --out pairs.png
  patch-cli compose --head 7.1
  patch-cli compose --circuit 6.2 7.1 --among 'Michelle Jones was a student' --out circuit.png";

#[derive(Serialize)]
struct PairsReport {
    kind: String,
    strongest: Vec<PairReport>,
}

#[derive(Serialize)]
struct PairReport {
    first: String,
    second: String,
    score: f32,
}

/// One head's circuits.
#[derive(Serialize)]
struct HeadReport {
    head: String,
    /// Of W_Q W_Kᵀ.
    qk_norm: f64,
    qk_singular_values: Vec<f64>,
    /// Of W_V W_O.
    ov_norm: f64,
    ov_singular_values: Vec<f64>,
    /// Between tokens: real and imaginary parts of W_E W_V W_O W_U's eigenvalues.
    ov_eigenvalues: Vec<[f64; 2]>,
    /// Σ λ / Σ |λ| of them.
    copying_score: f64,
    /// The share of the tokens whose own logit rises most where they are attended to.
    ov_top1_accuracy: f32,
    /// The share of the tokens that attend most to themselves.
    qk_top1_accuracy: f32,
}

/// The induction circuit of two heads.
#[derive(Serialize)]
struct CircuitReport {
    previous: String,
    induction: String,
    /// The share of the tokens whose best key is the copy of the token itself.
    top1_accuracy: f32,
    /// The share of the copies whose best query is their own token.
    top1_accuracy_of_keys: f32,
}

/// Scores all pairs of heads, or looks at the circuits of the heads that are given.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.check()?;
    let kinds = args.kinds();
    let among = usize::from(args.among.is_some());
    let of_head = usize::from(args.head.is_some()) * (1 + 2 * among);
    let of_circuit = usize::from(args.circuit.is_some()) * among;
    let outputs = args.study.prepare(&[], kinds.len() + of_head + of_circuit)?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let (model, gpt2) = (&studied.pretrained, studied.model());
    let (tokens, vocab) = Vocab::tokens(args.vocab, model)?;
    let among = match &args.among {
        Some(text) => Some(args.among_tokens(&studied, text)?),
        None => None,
    };
    let mut grids = Vec::new();
    let head = match args.head {
        Some(head) => {
            let report = look_at_head(gpt2, head, &tokens)?;
            if let Some(prompt) = &among {
                grids.extend(grids_of_head(gpt2, head, prompt)?);
            }
            grids.push(grid_of_singular_values(&report));
            Some(report)
        }
        None => None,
    };
    let circuit = match args.circuit.as_deref() {
        Some(&[previous, induction]) => {
            if let Some(prompt) = &among {
                grids.insert(0, grid_of_circuit(gpt2, previous, induction, prompt)?);
            }
            Some(look_at_circuit(gpt2, previous, induction, &tokens)?)
        }
        _ => None,
    };
    let of_heads = head.is_some() || circuit.is_some();
    let scores: Vec<(Composition, Tensor)> =
        (kinds.into_iter()).map(|kind| (kind, all_composition_scores(gpt2, kind))).collect();
    grids.extend(scores.iter().map(|(kind, scores)| grid_of_pairs(*kind, scores)));

    let title = match of_heads {
        true => "What heads do between tokens, by their weights alone",
        false => "Which head reads what which other head wrote, by their weights alone",
    };
    let prompts: Vec<(&str, &str)> =
        (args.among.iter()).map(|text| ("between the tokens of", text.as_str())).collect();
    let mut report = studied.report()?;
    let drawn: Vec<String> = args.drawn(&grids);
    report.study = Some(studied.study(title, &[], &prompts, grids)?);
    report.draw(PICTURE, &drawn.iter().map(String::as_str).collect::<Vec<_>>());

    let pairs = scores.iter().map(|(kind, scores)| PairsReport {
        kind: kind.to_string(),
        strongest: strongest_pairs(scores, args.top).into_iter().map(PairReport::from).collect(),
    });
    let pairs: Vec<PairsReport> = pairs.collect();
    report.fact("pairs", (!of_heads).then_some(&pairs))?;
    report.fact("vocab", of_heads.then_some(&vocab))?;
    report.fact("head", &head)?;
    report.fact("circuit", &circuit)?;
    report.line(studied.label());
    for ((kind, _), pairs) in scores.iter().zip(&pairs) {
        report.line(format!("\n{}", kind_words(*kind)));
        for PairReport { first, second, score } in &pairs.strongest {
            report.line(format!("{} → {} {score:.4}", pad(first, 5), pad(second, 5)));
        }
    }
    if of_heads {
        report.line(format!("circuits between {vocab}"));
    }
    if let Some(head) = &head {
        report.line(head_in_words(head));
    }
    if let Some(circuit) = &circuit {
        report.line(circuit_in_words(circuit));
    }
    if args.among.is_some() {
        report.show(PICTURE);
    }
    outputs.finish(&report, args.model.json)
}

impl Args {
    /// The kinds of composition to score: none if circuits are asked for.
    fn kinds(&self) -> Vec<Composition> {
        let asked = |kind: &Composition| self.kind.is_empty() || self.kind.contains(kind);
        let pairs = self.head.is_none() && self.circuit.is_none();
        (Composition::ALL.into_iter()).filter(|kind| pairs && asked(kind)).collect()
    }

    /// Whether the options go together.
    fn check(&self) -> Result<(), Failure> {
        let of_heads = self.head.is_some() || self.circuit.is_some();
        let wrong = match () {
            () if of_heads && !self.kind.is_empty() => {
                "--kind is for the pairs of heads: leave it out with --head and --circuit"
            }
            () if !of_heads && self.vocab.is_some() => {
                "--vocab is for circuits between tokens: give --head or --circuit as well"
            }
            () if !of_heads && self.among.is_some() => {
                "--among is for circuits between tokens: give --head or --circuit as well"
            }
            () if self.circuit.is_some()
                && self.head.is_none()
                && self.among.is_none()
                && self.study.wants_files() =>
            {
                "a circuit of two heads is two numbers: give --among TEXT to draw it between the \
                 tokens of a text"
            }
            () => return Ok(()),
        };
        Err(Failure::Input(wrong.to_owned()))
    }

    /// The tokens of the text, each once.
    fn among_tokens(&self, studied: &Studied, text: &str) -> Result<Prompt, Failure> {
        let model = &studied.pretrained;
        let mut ids: Vec<u32> = Vec::new();
        for id in self.model.encode(model, text)? {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        self.model.warn_of_unknown_tokens(model, &ids);
        Ok(Prompt::new(&model.tokenizer, text, &ids))
    }

    /// The names of the grids of the picture: circuits between tokens, if there are any.
    fn drawn(&self, grids: &[Grid]) -> Vec<String> {
        let between_tokens = self.head.is_some() && self.among.is_some();
        let drawn = grids.iter().filter(|grid| !between_tokens || grid.name != SINGULAR_VALUES);
        drawn.map(|grid| grid.name.clone()).collect()
    }
}

/// All pairs, writers down and readers across. Where the reader is in no later layer there is no pair,
/// and no number: a 0 would be taken for a score, and take the colours away from the scores.
fn grid_of_pairs(kind: Composition, scores: &Tensor) -> Grid {
    let [n_layer, n_head, ..] = scores.dims::<4>();
    let count = n_layer * n_head;
    let pair = |(i, score): (usize, &f32)| match i / count / n_head < i % count / n_head {
        true => *score,
        false => f32::NAN,
    };
    let heads = |name: &str| {
        let heads = (0..count).map(|i| format!("{}.{}", i / n_head, i % n_head));
        AxisLabels::new(name, heads)
    };
    Grid {
        name: format!("{kind}_composition"),
        title: kind_words(kind),
        axes: vec![heads("writing head"), heads("reading head")],
        values: scores.data().iter().enumerate().map(pair).collect(),
        value_label: "composition score".to_owned(),
        legend: vec!["Hatched: the reading head is in no later layer.".to_owned()],
        ..Grid::default()
    }
}

/// The QK and the OV circuit of a head between some tokens.
fn grids_of_head(model: &Gpt2, head: Head, among: &Prompt) -> Result<[Grid; 2], Failure> {
    let place = (head.layer, head.head);
    let qk = full_qk_circuit(model, place, Some(&among.ids))?;
    let ov = full_ov_circuit(model, place, Some(&among.ids))?;
    Ok([
        Grid {
            name: "qk_circuit".to_owned(),
            title: format!("Head {head}: which token attends to which (QK)"),
            value_label: "W_E W_Q W_Kᵀ W_Eᵀ".to_owned(),
            ..between_tokens(&qk, among, ["query token", "key token"])
        },
        Grid {
            name: "ov_circuit".to_owned(),
            title: format!("Head {head}: which token's logit rises (OV)"),
            value_label: "W_E W_V W_O W_U".to_owned(),
            ..between_tokens(&ov, among, ["attended token", "logit of"])
        },
    ])
}

/// The induction circuit of two heads between some tokens.
fn grid_of_circuit(model: &Gpt2, previous: Head, induction: Head, among: &Prompt) -> Result<Grid, Failure> {
    let [first, second] = [previous, induction].map(|head| (head.layer, head.head));
    let circuit = k_composition_circuit(model, first, second, Some(&among.ids))?;
    Ok(Grid {
        name: "k_composition_circuit".to_owned(),
        title: format!("Induction by {previous} → {induction}: which token finds which one's copy"),
        value_label: "W_E W_Q (W_E W_V W_O W_K)ᵀ".to_owned(),
        ..between_tokens(&circuit, among, ["query token", "copied token"])
    })
}

fn between_tokens(matrix: &FactoredMatrix, among: &Prompt, axes: [&str; 2]) -> Grid {
    // A product that overflows has no value.
    let mut values = matrix.product().into_data();
    values.iter_mut().filter(|x| !x.is_finite()).for_each(|x| *x = f32::NAN);
    // Spaces must be seen, for " a" and "a" are two tokens.
    let tokens = || among.tokens.iter().map(|token| visible(token));
    Grid {
        axes: axes.map(|name| AxisLabels::new(name, tokens())).to_vec(),
        values,
        center: Some(0.0),
        ..Grid::default()
    }
}

/// The name of the grid of a head's singular values.
const SINGULAR_VALUES: &str = "singular_values";

fn grid_of_singular_values(report: &HeadReport) -> Grid {
    let (qk, ov) = (&report.qk_singular_values, &report.ov_singular_values);
    let values = qk.iter().chain(ov).map(|value| *value as f32);
    Grid {
        name: SINGULAR_VALUES.to_owned(),
        title: format!("Singular values of head {}", report.head),
        form: Form::Lines,
        axes: vec![
            AxisLabels::new("circuit", ["W_Q W_Kᵀ", "W_V W_O"].map(str::to_owned)),
            AxisLabels::indices("singular value", qk.len()),
        ],
        values: values.collect(),
        value_label: "size".to_owned(),
        ..Grid::default()
    }
}

fn kind_words(kind: Composition) -> String {
    let (letter, read) = match kind {
        Composition::Q => ("Q", "queries"),
        Composition::K => ("K", "keys"),
        Composition::V => ("V", "values"),
    };
    format!("{letter}-composition: the second head's {read} read what the first wrote")
}

impl From<Pair> for PairReport {
    fn from(Pair { first, second, score }: Pair) -> Self {
        let name = |(layer, head): (usize, usize)| format!("{layer}.{head}");
        Self { first: name(first), second: name(second), score }
    }
}

fn look_at_head(model: &Gpt2, head: Head, tokens: &[u32]) -> Result<HeadReport, Failure> {
    let Head { layer, head: index } = head;
    let weights = head_weights(model, layer, index)?;
    let (qk, ov) = (weights.qk(), weights.ov());
    let between_tokens = full_ov_circuit(model, (layer, index), Some(tokens))?;
    let eigenvalues = between_tokens.eigenvalues();
    let looks = full_qk_circuit(model, (layer, index), Some(tokens))?;
    Ok(HeadReport {
        head: head.to_string(),
        qk_norm: qk.norm(),
        qk_singular_values: qk.svd().s,
        ov_norm: ov.norm(),
        ov_singular_values: ov.svd().s,
        ov_eigenvalues: eigenvalues.iter().map(|value| [value.re, value.im]).collect(),
        copying_score: copying_score(&between_tokens),
        ov_top1_accuracy: top1_accuracy(&between_tokens),
        qk_top1_accuracy: top1_accuracy(&looks),
    })
}

fn look_at_circuit(
    model: &Gpt2,
    previous: Head,
    induction: Head,
    tokens: &[u32],
) -> Result<CircuitReport, Failure> {
    let circuit = k_composition_circuit(
        model,
        (previous.layer, previous.head),
        (induction.layer, induction.head),
        Some(tokens),
    )?;
    Ok(CircuitReport {
        previous: previous.to_string(),
        induction: induction.to_string(),
        top1_accuracy: top1_accuracy(&circuit),
        top1_accuracy_of_keys: top1_accuracy(&circuit.t()),
    })
}

fn circuit_in_words(report: &CircuitReport) -> String {
    let CircuitReport { previous, induction, top1_accuracy, top1_accuracy_of_keys } = report;
    format!(
        "\ninduction by {previous} → {induction}: W_E W_Q (W_E W_V W_O W_K)ᵀ, W_V and W_O of {previous}, the \
         others of {induction}\n\
         queries that find their own token's copy first  {top1_accuracy:.4}\n\
         copies that are found first by their own token  {top1_accuracy_of_keys:.4}"
    )
}

fn head_in_words(report: &HeadReport) -> String {
    const SHOWN: usize = 6;
    let row = |values: &[f64]| {
        let shown: Vec<String> = values.iter().take(SHOWN).map(|x| format!("{x:.3}")).collect();
        let dots = if values.len() > SHOWN { ", …" } else { "" };
        format!("{}{dots}", shown.join(", "))
    };
    let eigenvalues: Vec<String> = (report.ov_eigenvalues.iter().take(SHOWN))
        .map(|[re, im]| match im.abs() < 0.005 {
            true => format!("{re:.2}"),
            false => format!("{re:.2}{im:+.2}i"),
        })
        .collect();
    let HeadReport {
        head,
        qk_norm,
        qk_singular_values,
        ov_norm,
        ov_singular_values,
        ov_eigenvalues,
        copying_score,
        ov_top1_accuracy,
        qk_top1_accuracy,
    } = report;
    let looks = format!(
        "\nhead {head}, where it looks: W_Q W_Kᵀ\n\
         norm {qk_norm:.4}, singular values {}\n\
         between tokens: {qk_top1_accuracy:.4} of them attend most to themselves\n",
        row(qk_singular_values)
    );
    let dots = if ov_eigenvalues.len() > SHOWN { ", …" } else { "" };
    format!(
        "{looks}\nhead {head}, what it moves: W_V W_O\n\
         norm {ov_norm:.4}, singular values {}\n\
         between tokens: eigenvalues {}{dots}\n\
         copying score Σ λ / Σ |λ| {copying_score:+.4}; {ov_top1_accuracy:.4} of the tokens raise their own logit most",
        row(ov_singular_values),
        eigenvalues.join(", ")
    )
}
