//! Models: tokens, runs, hooks, and texts that are written on.

use std::collections::HashSet;

use gpt2::generate::{Sampling, Written};
use gpt2::stream::TextStream;
use gpt2::{Gpt2, Pretrained, Site};
use lens::processing::{Flags, process};
use numpy::{IxDyn, PyArray1, PyArrayDyn, PyArrayMethods as _, PyReadonlyArrayDyn};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tensor::Tensor;

use crate::failure::Failure;
use crate::running::{Job, run};

/// What follows a text: tokens, their log probabilities, their text, and why it ends.
type Continuation = (Vec<u32>, Vec<f64>, String, &'static str);

/// An array that Python owns.
pub type Array = Py<PyArrayDyn<f32>>;

/// A model with its tokenizer.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct Model {
    /// The model.
    pub pretrained: Pretrained,
    /// What was done to its weights.
    pub processing: Vec<String>,
}

/// The numbers of a tensor, moved into an array.
pub fn array(py: Python<'_>, tensor: Tensor) -> PyResult<Array> {
    let shape = IxDyn(tensor.shape());
    Ok(PyArray1::from_vec(py, tensor.into_data()).reshape(shape)?.unbind())
}

/// The steps of [`lens::processing`] by their names.
fn flags(steps: &[String]) -> Result<Flags, Failure> {
    let mut flags = Flags::NONE;
    for step in steps {
        match step.as_str() {
            "fold_ln" => flags.fold_ln = true,
            "center_writing_weights" => flags.center_writing_weights = true,
            "center_unembed" => flags.center_unembed = true,
            "fold_value_biases" => flags.fold_value_biases = true,
            "refactor_factored_attn_matrices" => flags.refactor_factored_attn_matrices = true,
            _ => return Err(Failure::value(format!("there is no processing step \"{step}\""))),
        }
    }
    Ok(flags)
}

#[pymethods]
impl Model {
    /// A model by its name or its folder, with its weights processed by these steps.
    #[staticmethod]
    fn load(py: Python<'_>, model: &str, steps: Vec<String>, ids: bool) -> Result<Self, Failure> {
        let flags = flags(&steps)?;
        run(py, None, |_| {
            let mut pretrained =
                if ids { Pretrained::load_for_ids(model)? } else { Pretrained::load(model)? };
            if flags != Flags::NONE {
                pretrained.model = process(&pretrained.model, flags);
            }
            Ok(Self { pretrained, processing: steps })
        })
    }

    /// What it is called.
    #[getter]
    fn name(&self) -> &str {
        &self.pretrained.name
    }

    /// The steps that its weights were processed by.
    #[getter]
    fn processing(&self) -> Vec<String> {
        self.processing.clone()
    }

    /// What was assumed because its files do not say it.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.pretrained.notes.clone()
    }

    /// The token that opens a text.
    #[getter]
    fn bos(&self) -> Option<u32> {
        self.pretrained.bos
    }

    /// The token that ends a text.
    #[getter]
    fn eos(&self) -> Option<u32> {
        self.pretrained.eos
    }

    /// Whether its tokenizer puts `bos` in front of every text.
    #[getter]
    fn opens_texts(&self) -> bool {
        self.pretrained.tokenizer.opens_texts()
    }

    /// Its sizes, by GPT-2's names.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (config, sizes) = (&self.pretrained.model.config, PyDict::new(py));
        for (name, size) in [
            ("n_layer", config.n_layer),
            ("n_head", config.n_head),
            ("n_embd", config.n_embd),
            ("n_inner", config.inner_size()),
            ("head_size", config.head_size()),
            ("block_size", config.block_size),
            ("vocab_size", config.vocab_size),
        ] {
            sizes.set_item(name, size)?;
        }
        Ok(sizes)
    }

    /// The token ids of a text.
    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        Ok(self.pretrained.tokenizer.encode(text)?)
    }

    /// The text of token ids.
    fn decode(&self, ids: Vec<u32>) -> String {
        self.pretrained.tokenizer.decode(&ids)
    }

    /// Each token as a text.
    fn str_tokens(&self, ids: Vec<u32>) -> Vec<String> {
        self.pretrained.tokenizer.tokens(&ids)
    }

    /// The id of a text that is exactly one token, which the model knows.
    fn single_token(&self, text: &str) -> Result<u32, Failure> {
        let id = self.pretrained.tokenizer.to_single_token(text)?;
        self.pretrained.model.check_prompt(&[id])?;
        Ok(id)
    }

    /// The tokens that the model was not trained on.
    fn unknown_tokens(&self, ids: Vec<u32>) -> Vec<u32> {
        self.pretrained.unknown_tokens(&ids)
    }

    /// The logits of one prompt, and its activations of these names (all of them if none are given).
    #[pyo3(signature = (ids, names))]
    fn cached(
        &self,
        py: Python<'_>,
        ids: Vec<u32>,
        names: Option<Vec<String>>,
    ) -> Result<(Array, Vec<(String, Array)>), Failure> {
        let wanted = names.as_deref().map(sites).transpose()?;
        let is_wanted = |site: &Site| wanted.as_ref().is_none_or(|wanted| wanted.contains(site));
        let (logits, kept) = run(py, None, |job| {
            let mut kept: Vec<(Site, Tensor)> = Vec::new();
            let logits = self.forward(&ids, job, &mut |site, x| {
                if is_wanted(&site) {
                    kept.push((site, x.clone()));
                }
            })?;
            Ok((logits, kept))
        })?;
        let kept = kept.into_iter().map(|(site, x)| Ok((site.to_string(), array(py, x)?)));
        Ok((array(py, logits)?, kept.collect::<PyResult<_>>()?))
    }

    /// The logits of one prompt. `call` is called with the name and the array of each of these activations; what it
    /// returns, or else what it leaves in the array, is what the model goes on with.
    fn hooked(
        &self,
        py: Python<'_>,
        ids: Vec<u32>,
        names: Vec<String>,
        call: Py<PyAny>,
    ) -> Result<Array, Failure> {
        let wanted = sites(&names)?;
        let logits = run(py, None, |job| {
            self.forward(&ids, job, &mut |site, x| {
                if wanted.contains(&site) {
                    Python::attach(|py| called(py, &call, site, x)).unwrap_or_else(|error| job.raise(error));
                    job.leave_if_stopped();
                }
            })
        })?;
        Ok(array(py, logits)?)
    }

    /// What the model writes after a prompt: the ids, their log probabilities, the text, and why it ends.
    #[pyo3(signature = (ids, max_new_tokens, temperature, top_k, top_p, seed, stop, progress))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword in Python")]
    fn generate(
        &self,
        py: Python<'_>,
        ids: Vec<u32>,
        max_new_tokens: usize,
        temperature: f32,
        top_k: Option<usize>,
        top_p: Option<f32>,
        seed: u64,
        stop: Vec<String>,
        progress: Option<Bound<'_, PyAny>>,
    ) -> Result<Continuation, Failure> {
        let sampling = Sampling { temperature, top_k, top_p, seed };
        sampling.check()?;
        if stop.iter().any(String::is_empty) {
            return Err(Failure::value(
                "stop='': every text contains the empty text; give the text to stop at",
            ));
        }
        run(py, progress.as_ref(), |job| self.written(job, &ids, sampling, (max_new_tokens, &stop)))
    }
}

impl Model {
    /// The model itself.
    pub fn gpt2(&self) -> &Gpt2 {
        &self.pretrained.model
    }

    fn forward(
        &self,
        ids: &[u32],
        job: &Job,
        hook: &mut dyn FnMut(Site, &mut Tensor),
    ) -> Result<Tensor, Failure> {
        self.gpt2().check_prompt(ids)?;
        Ok(self.gpt2().forward(ids, &mut |site, x| {
            job.leave_if_stopped();
            hook(site, x);
        }))
    }

    fn written(
        &self,
        job: &Job,
        ids: &[u32],
        sampling: Sampling,
        (most, stop): (usize, &[String]),
    ) -> Result<Continuation, Failure> {
        let mut stream = TextStream::new(stop);
        let (mut written, mut log_probs, mut reason) = (Vec::new(), Vec::new(), "length");
        for token in self.gpt2().writer(ids, sampling)?.take(most) {
            let Written { id, log_prob } = token?;
            job.leave_if_stopped();
            job.advance(1.0 / most as f64);
            written.push(id);
            log_probs.push(log_prob);
            if Some(id) == self.pretrained.eos {
                reason = "end_of_text";
                break;
            }
            stream.push(&self.pretrained.tokenizer.bytes(id));
            if stream.stop().is_some() {
                reason = "stop";
                break;
            }
        }
        stream.finish();
        Ok((written, log_probs, stream.text(), reason))
    }
}

/// Gives an activation to a function of the caller's, and takes back what it made of it.
fn called(py: Python<'_>, call: &Py<PyAny>, site: Site, x: &mut Tensor) -> PyResult<()> {
    let shape = x.shape().to_vec();
    let given = array(py, std::mem::replace(x, Tensor::zeros(&[0])))?;
    let returned = call.call1(py, (site.to_string(), given.clone_ref(py)))?;
    let returned = match returned.is_none(py) {
        true => given.into_any(),
        false => returned,
    };
    let result: PyReadonlyArrayDyn<'_, f32> = returned.extract(py)?;
    let result = result.as_array();
    if result.shape() != shape {
        return Err(Failure::value(format!(
            "the hook at {site} returned an array of shape {:?} for one of shape {shape:?}",
            result.shape()
        ))
        .into());
    }
    *x = Tensor::new(&shape, result.iter().copied().collect());
    Ok(())
}

fn sites(names: &[String]) -> Result<HashSet<Site>, Failure> {
    names.iter().map(|name| name.parse().map_err(Failure::from)).collect()
}

/// TransformerLens's full name of an activation: of `z3` or `blocks.3.hook_z`, `blocks.3.attn.hook_z`.
#[pyfunction]
pub fn site_name(name: &str) -> Result<String, Failure> {
    Ok(name.parse::<Site>()?.to_string())
}

/// The full names of all activations of a model of `n_layer` blocks, in the order in which a run makes them.
#[pyfunction]
pub fn site_names(n_layer: usize) -> Vec<String> {
    Site::all(n_layer).map(|site| site.to_string()).collect()
}
