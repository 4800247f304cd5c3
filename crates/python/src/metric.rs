//! What is read off a run: a metric by its name, or a function of the caller's.

use gpt2::Pretrained;
use numpy::PyArray1;
use patching::{Means, Metric as Reading, Scale, prompts::Pair};
use pyo3::prelude::*;
use report::metric::{Answers, MetricKind, NamedMetric};

use crate::failure::Failure;
use crate::running::Job;

/// A metric as it is asked for.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct Metric {
    kind: MetricKind,
    scale: Option<Scale>,
    means: Means,
    /// In the place of each pair's own answers, if there are any.
    a: Vec<u32>,
    b: Vec<u32>,
    /// What a metric of one answer is about, if it is not b.
    token: Vec<u32>,
    loss_at: Option<(usize, usize)>,
    function: Option<Function>,
}

/// A function of the logits of the next token.
struct Function {
    call: Py<PyAny>,
    name: String,
}

/// A metric of one pair.
pub struct Ready<'a> {
    /// Its words. (Those of a function are of a logit: it has no zero and no colours of its own.)
    pub named: NamedMetric,
    function: Option<&'a Function>,
}

#[pymethods]
impl Metric {
    #[new]
    #[pyo3(signature = (kind, scale, answers, loss_at, function))]
    fn new(
        kind: &str,
        scale: Option<&str>,
        answers: [Vec<u32>; 3],
        loss_at: Option<(usize, usize)>,
        function: Option<(Py<PyAny>, String)>,
    ) -> Result<Self, Failure> {
        let [a, b, token] = answers;
        let kind = if function.is_some() { MetricKind::Logit } else { kind.parse()? };
        let (scale, means) = match scale {
            Some("normalized_by_pair") => (Some(Scale::Normalized), Means::OfScaled),
            Some(scale) => (Some(scale.parse()?), Means::OnOneScale),
            None => (None, Means::OnOneScale),
        };
        let means = if kind == MetricKind::NormalizedByPair { Means::OfScaled } else { means };
        let function = function.map(|(call, name)| Function { call, name });
        Ok(Self { kind, scale, means, a, b, token, loss_at, function })
    }
}

impl Metric {
    /// The metric of one pair, on the scale `default` if no other is asked for.
    ///
    /// # Errors
    /// If the pair does not have what the metric is about.
    pub fn of(&self, model: &Pretrained, pair: &Pair, default: Scale) -> Result<Ready<'_>, Failure> {
        let kind = self.kind;
        let scale = match (kind.is_normalized(), self.scale.unwrap_or(default)) {
            (false, scale) => scale,
            (true, Scale::Change | Scale::NormalizedChange) => Scale::NormalizedChange,
            (true, Scale::Value | Scale::Normalized) => Scale::Normalized,
        };
        let answers = |own: &[u32], of_pair: &[u32]| {
            Answers::of_ids(&model.tokenizer, if own.is_empty() { of_pair } else { own })
        };
        let none = Answers::default;
        let mut named = NamedMetric { kind, a: none(), b: none(), loss_at: 0..0, scale, means: self.means };
        if self.function.is_some() {
            return Ok(Ready { named, function: self.function.as_ref() });
        }
        let [a, b] = [answers(&self.a, &pair.a), answers(&self.b, &pair.b)];
        if kind.about_two_tokens() {
            compared(&a, &b)?;
            (named.a, named.b) = (a, b);
        } else if kind.about_a_token() {
            named.a = answers(&self.token, &b.ids);
            match named.a.ids.len() {
                1 => {}
                0 => {
                    return Err(Failure::value(format!(
                        "the metric {kind} needs the token that it is about: token=' Jones'"
                    )));
                }
                n if kind == MetricKind::Rank => {
                    let words = named.a.in_words();
                    return Err(Failure::value(format!("a rank is of one token, and here are {n}: {words}")));
                }
                _ => {}
            }
        } else if kind == MetricKind::Loss {
            named.loss_at = self.positions(pair)?;
        }
        Ok(Ready { named, function: None })
    }

    /// The positions of a loss.
    fn positions(&self, pair: &Pair) -> Result<std::ops::Range<usize>, Failure> {
        let n = pair.experiment.n_tokens();
        let (start, end) = self.loss_at.unwrap_or((0, n - 1));
        match start < end && end < n {
            true => Ok(start..end),
            false => Err(Failure::value(format!(
                "loss_at=({start}, {end}): the {n} tokens have a next token at 0..{} (the end is not part of the range)",
                n - 1
            ))),
        }
    }
}

/// Refuses two sides that cannot be compared.
fn compared(a: &Answers, b: &Answers) -> Result<(), Failure> {
    if a.ids.is_empty() || b.ids.is_empty() {
        return Err(Failure::value(
            "these prompts need the tokens that the metric compares, on both sides: answers=(' A', ' B')",
        ));
    }
    match a.ids.iter().position(|id| b.ids.contains(id)) {
        Some(both) => Err(Failure::value(format!(
            "the metric compares {} with itself: give two tokens",
            report::quoted(&a.texts[both])
        ))),
        None => Ok(()),
    }
}

impl Ready<'_> {
    /// Calls `run` with the metric.
    pub fn with<R>(&self, job: &Job, run: impl FnOnce(Reading<'_>) -> R) -> R {
        match self.function {
            None => run(self.named.metric()),
            Some(function) => run(Reading::Custom(&|_, logits| function.value(job, logits))),
        }
    }

    /// The metric in words.
    pub fn label(&self) -> String {
        let Some(function) = self.function else { return self.named.label() };
        match self.named.scale {
            Scale::Value => function.name.clone(),
            scale => format!("{}, {scale}", function.name),
        }
    }

    /// What JSON says of it.
    pub fn report(&self) -> serde_json::Result<serde_json::Value> {
        let mut report = serde_json::to_value(self.named.report())?;
        if let Some(function) = self.function {
            report["kind"] = "function".into();
            report["name"] = function.name.clone().into();
        }
        Ok(report)
    }
}

impl Function {
    /// What it makes of the logits of one run. An exception stops the job.
    fn value(&self, job: &Job, logits: &[f32]) -> f32 {
        if job.is_stopped() {
            return f32::NAN;
        }
        let call = |py: Python<'_>| -> PyResult<f64> {
            self.call.call1(py, (PyArray1::from_slice(py, logits),))?.extract(py)
        };
        Python::attach(|py| {
            call(py).unwrap_or_else(|error| {
                job.raise(error);
                f64::NAN
            })
        }) as f32
    }
}
