//! Studies that look at a model: logit lens, heads, composition, the loss of a text.

use grids::{AxisLabels, Form, Grid, Highlight};
use lens::attribution::{Attribution, direct_logit_attribution};
use lens::composition::{Composition, all_composition_scores};
use lens::heads::{DetectOptions, HeadKind, RepeatedTokens, detect, repeat_study};
use lens::logit_lens::{LogitLens, logit_lens as read_points};
use pyo3::prelude::*;
use report::{Prompt, grid_of_heads, quoted};
use tensor::Tensor;

use crate::failure::Failure;
use crate::model::Model;
use crate::running::run;
use crate::study::{Study, of_model, report_on};

/// A report with a prompt, on these grids.
fn study(
    model: &Model,
    title: &str,
    prompt: &Prompt,
    grids: Vec<Grid>,
    drawn: &[&str],
) -> Result<Study, Failure> {
    let mut report = report_on(model)?;
    report.prompt(prompt)?;
    report.study = Some(of_model(model, title, Vec::new(), &[("prompt", &prompt.text)], grids));
    Ok(Study::new(report, drawn.iter().map(|name| (*name).to_owned()).collect()))
}

/// Two answers, and what each component writes of their difference.
struct Compared {
    names: [String; 2],
    pos: usize,
    parts: Attribution,
}

/// Reads every point of the residual stream through the unembedding. With two answers, it also takes their difference
/// after the position `pos` apart.
#[pyfunction]
#[pyo3(signature = (model, prompt, answers, pos))]
pub fn logit_lens(
    py: Python<'_>,
    model: &Model,
    prompt: (String, Vec<u32>),
    answers: Option<[u32; 2]>,
    pos: usize,
) -> Result<Study, Failure> {
    let (text, ids) = prompt;
    let prompt = Prompt::new(&model.pretrained.tokenizer, &text, &ids);
    let (lens, compared) = run(py, None, |_| {
        let lens = read_points(model.gpt2(), &ids, answers.as_ref().map_or(&[], |it| it))?;
        let compared = match answers {
            Some([a, b]) => {
                let parts = direct_logit_attribution(model.gpt2(), &ids, pos, a, b)?;
                let names = [a, b].map(|id| model.pretrained.tokenizer.token(id));
                Some(Compared { names, pos, parts })
            }
            None => None,
        };
        Ok((lens, compared))
    })?;
    let texts: Vec<String> = model.pretrained.tokenizer.tokens(&lens.top_token);
    let points = || AxisLabels::new("point", lens.labels.iter().cloned());
    let everywhere = |name: &str, values: Vec<f32>| Grid {
        name: name.to_owned(),
        axes: vec![points(), AxisLabels::new("pos", prompt.tokens.iter().cloned())],
        values,
        ..Grid::default()
    };
    let mut grids = vec![Grid {
        title: "Logit lens: how sure the residual stream is of its next token".to_owned(),
        value_label: "probability of the most likely token".to_owned(),
        texts: texts.clone(),
        ..everywhere("top_prob", lens.top_prob.data().to_vec())
    }];
    let Some(compared) = compared else {
        return study(model, "Logit lens", &prompt, grids, &["top_prob"]);
    };
    let label = compared.label();
    grids.push(Grid {
        title: format!("Logit lens: {label}"),
        value_label: label,
        center: Some(0.0),
        texts,
        highlight: Some(Highlight {
            axis: "pos".to_owned(),
            indices: vec![pos],
            label: "the position of the attribution".to_owned(),
        }),
        ..everywhere("logit_diff", lens.logit_diff(0, 1).into_data())
    });
    for (answer, name) in ["prob_a", "prob_b"].into_iter().enumerate() {
        let rows = 0..lens.answer_probs.n_rows();
        grids.push(Grid {
            title: format!("Logit lens: the probability of {}", quoted(&compared.names[answer])),
            value_label: "probability".to_owned(),
            ..everywhere(name, rows.map(|row| lens.answer_probs.row(row)[answer]).collect())
        });
    }
    grids.extend(compared.grids(&lens, &prompt));
    study(model, "Logit lens", &prompt, grids, &["logit_diff"])
}

impl Compared {
    fn label(&self) -> String {
        let [a, b] = self.names.each_ref().map(|name| quoted(name));
        format!("logit({a}) − logit({b})")
    }

    /// The shares of the points, the components and the heads.
    fn grids(&self, lens: &LogitLens, prompt: &Prompt) -> Vec<Grid> {
        let place = format!("after position {}, {}", self.pos, quoted(&prompt.tokens[self.pos]));
        let label = self.label();
        let line = |name: &str, axis: AxisLabels, values: Vec<f32>| Grid {
            name: name.to_owned(),
            title: format!("{name}: shares in {label} {place}"),
            form: Form::Lines,
            axes: vec![axis],
            values,
            value_label: label.clone(),
            center: Some(0.0),
            ..Grid::default()
        };
        let (components, shares): (Vec<String>, Vec<f32>) = self.parts.components().into_iter().unzip();
        let title = format!("What each head writes of {label} {place}");
        vec![
            line(
                "accumulated",
                AxisLabels::new("point", lens.labels.iter().cloned()),
                self.parts.accumulated.clone(),
            ),
            line("components", AxisLabels::new("component", components), shares),
            Grid {
                value_label: format!("share in {label}"),
                center: Some(0.0),
                ..grid_of_heads("heads", &title, &self.parts.heads)
            },
        ]
    }
}

/// How repeated tokens are drawn.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Draw {
    seq_len: usize,
    batch: usize,
    seed: u64,
    bos: Option<u32>,
}

/// What each head attends to in random tokens that are repeated once.
#[pyfunction]
pub fn head_scores(py: Python<'_>, model: &Model, draw: Draw) -> Result<Study, Failure> {
    let Draw { seq_len, batch, seed, bos } = draw;
    let repeat = run(py, None, |_| {
        let drawn = RepeatedTokens::draw(model.gpt2(), &candidates(model), seq_len, bos, batch, seed)?;
        Ok(repeat_study(model.gpt2(), &drawn)?)
    })?;
    let scores = repeat.scores.all();
    let mut grids: Vec<Grid> = scores
        .into_iter()
        .map(|(name, scores)| Grid {
            value_label: "mean attention".to_owned(),
            ..grid_of_heads(name, name, scores)
        })
        .collect();
    let n = repeat.log_probs.len() + 1;
    grids.push(Grid {
        name: "log_probs".to_owned(),
        title: "Log probability of each token, given those before it".to_owned(),
        form: Form::Lines,
        axes: vec![AxisLabels::indices("pos", n)],
        // Nothing comes before the first token.
        values: [&[f32::NAN], repeat.log_probs.as_slice()].concat(),
        value_label: "log probability".to_owned(),
        ..Grid::default()
    });
    let about = format!("{seq_len} random tokens (seed {seed}), twice over; sequences: {batch}");
    let mut report = report_on(model)?;
    report.fact("mean_log_prob", repeat.mean_log_prob)?;
    report.fact("accuracy", repeat.accuracy)?;
    report.study = Some(of_model(model, "Heads on repeated random tokens", vec![about], &[], grids));
    Ok(Study::new(report, scores.map(|(name, _)| name.to_owned()).to_vec()))
}

/// The tokens that random ones are drawn from: those that the model was trained on, where it is said which.
fn candidates(model: &Model) -> Vec<u32> {
    if let Some(known) = &model.pretrained.known_tokens {
        let mut known: Vec<u32> = known.iter().copied().collect();
        known.sort_unstable();
        return known;
    }
    let vocab_size = model.gpt2().config.vocab_size;
    let count = match model.pretrained.tokenizer.n_tokens() {
        0 => vocab_size,
        n => vocab_size.min(n),
    };
    (0..count as u32).collect()
}

/// How heads are compared with what a kind of head attends to.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct Detection {
    kinds: Vec<String>,
    error_measure: String,
    exclude_bos: bool,
    exclude_current_token: bool,
}

/// How much each head is of some kinds.
#[pyfunction]
pub fn detect_heads(
    py: Python<'_>,
    model: &Model,
    prompt: (String, Vec<u32>),
    how: Detection,
) -> Result<Study, Failure> {
    let (text, ids) = prompt;
    let options = DetectOptions {
        error_measure: how.error_measure.parse()?,
        exclude_bos: how.exclude_bos,
        exclude_current_token: how.exclude_current_token,
    };
    let kinds: Vec<HeadKind> = how.kinds.iter().map(|kind| kind.parse()).collect::<Result<_, String>>()?;
    let kinds = if kinds.is_empty() { HeadKind::ALL.to_vec() } else { kinds };
    let grids = run(py, None, |_| {
        let grid = |kind: HeadKind| {
            let scores = detect(model.gpt2(), &ids, kind, options)?;
            let value_label = format!("agreement ({})", options.error_measure);
            Ok(Grid { value_label, ..grid_of_heads(&kind.to_string(), "", &scores) })
        };
        kinds.into_iter().map(grid).collect::<Result<Vec<Grid>, Failure>>()
    })?;
    let prompt = Prompt::new(&model.pretrained.tokenizer, &text, &ids);
    study(model, "How much each head is of a kind", &prompt, grids, &[])
}

/// Which head reads what which other head wrote, by their weights alone.
#[pyfunction]
pub fn composition(py: Python<'_>, model: &Model, kinds: Vec<String>) -> Result<Study, Failure> {
    let kinds: Vec<Composition> = kinds.iter().map(|kind| kind.parse()).collect::<Result<_, String>>()?;
    let grids = run(py, None, |_| {
        let grid = |kind: Composition| grid_of_pairs(kind, &all_composition_scores(model.gpt2(), kind));
        Ok(kinds.into_iter().map(grid).collect::<Vec<Grid>>())
    })?;
    let mut report = report_on(model)?;
    let title = "Which head reads what which other head wrote, by their weights alone";
    report.study = Some(of_model(model, title, Vec::new(), &[], grids));
    Ok(Study::new(report, Vec::new()))
}

/// All pairs, writers down and readers across; NaN where the reader is in no later layer.
fn grid_of_pairs(kind: Composition, scores: &Tensor) -> Grid {
    let [n_layer, n_head, ..] = scores.dims::<4>();
    let count = n_layer * n_head;
    let pair = |(i, score): (usize, &f32)| match i / count / n_head < i % count / n_head {
        true => *score,
        false => f32::NAN,
    };
    let heads =
        |name: &str| AxisLabels::new(name, (0..count).map(|i| format!("{}.{}", i / n_head, i % n_head)));
    Grid {
        name: format!("{kind}_composition"),
        title: format!("{kind}-composition"),
        axes: vec![heads("writing head"), heads("reading head")],
        values: scores.data().iter().enumerate().map(pair).collect(),
        value_label: "composition score".to_owned(),
        legend: vec!["Hatched: the reading head is in no later layer.".to_owned()],
        ..Grid::default()
    }
}

/// The log probability and the rank of each token of a text, given those before it.
#[pyfunction]
pub fn score_text(py: Python<'_>, model: &Model, prompt: (String, Vec<u32>)) -> Result<Study, Failure> {
    let (text, ids) = prompt;
    let scores = run(py, None, |_| Ok(lens::text::score_text(model.gpt2(), &ids)?))?;
    let prompt = Prompt::new(&model.pretrained.tokenizer, &text, &ids);
    let line = |name: &str, label: &str, values: Vec<f32>| Grid {
        name: name.to_owned(),
        title: label.to_owned(),
        form: Form::Lines,
        axes: vec![AxisLabels::new("pos", prompt.tokens.iter().cloned())],
        // Nothing comes before the first token.
        values: [&[f32::NAN], values.as_slice()].concat(),
        value_label: label.to_owned(),
        ..Grid::default()
    };
    let grids = vec![
        line("log_prob", "log probability", scores.iter().map(|it| it.log_prob as f32).collect()),
        line("rank", "rank", scores.iter().map(|it| it.rank as f32).collect()),
    ];
    let mut report = report_on(model)?;
    report.prompt(&prompt)?;
    report.fact("loss", lens::text::loss(&scores))?;
    report.study = Some(of_model(model, "Loss of a text", Vec::new(), &[("prompt", &text)], grids));
    Ok(Study::new(report, vec!["log_prob".to_owned()]))
}
