//! What an activation can be replaced by when there is no other prompt to take it from.

use std::collections::{HashMap, HashSet};

use gpt2::{Gpt2, Site};
use tensor::Tensor;

use crate::{Experiment, Lasting, LastingValue, Patch, Watch};

/// What the ablated activations are replaced by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ablation {
    /// Zeros. Simple, but a zero may be far from anything that the rest of the model has ever seen.
    Zero,
    /// The activation's mean over the prompt's own positions: what it says wherever it is.
    Mean,
    /// The activation's mean over all positions of these prompts: what it says in general.
    MeanOf(Vec<Vec<u32>>),
    /// The activation at one other position of the prompt.
    Position(usize),
}

/// The activations that patches take their pieces from, if these do not come from another run.
pub(crate) type Given = HashMap<Site, Tensor>;

/// The activations that the patches of an ablation put in, each in the shape of the site's own, or
/// `None` if the experiment is not an ablation.
pub(crate) fn given(
    model: &Gpt2,
    experiment: &Experiment,
    patches: &[Patch],
    watch: Watch<'_>,
) -> Option<Given> {
    let ablation = experiment.replaced_by()?;
    let pattern = patches.iter().any(|patch| patch.site.is_of_pairs());
    assert!(
        !pattern || *ablation == Ablation::Zero,
        "a pattern ablated by {ablation:?}: its rows cannot stand for one another"
    );
    let prompt = experiment.base();
    let mut given: Given = HashMap::new();
    let wanted: HashSet<Site> = patches.iter().map(Patch::site).collect();

    // The activations of the prompt itself: their shapes, and for most ablations their numbers.
    model.transformer(prompt, &mut |site, x| {
        if wanted.contains(&site) {
            given.insert(site, x.clone());
        }
    });
    match ablation {
        Ablation::Zero => {
            given.values_mut().for_each(set_to_zero);
        }
        Ablation::Mean => {
            for x in given.values_mut() {
                let mean = divided(sum_over_positions(x), prompt.len());
                fill(x, &mean);
            }
        }
        Ablation::Position(pos) => {
            for x in given.values_mut() {
                let n = x.data().len() / prompt.len();
                let row = x.data()[pos * n..][..n].to_vec();
                fill(x, &row);
            }
        }
        Ablation::MeanOf(prompts) => {
            let positions = prompts.iter().map(Vec::len).sum();
            for (site, sum) in sums_over_prompts(model, prompts, &wanted, watch) {
                if let Some(x) = given.get_mut(&site) {
                    fill(x, &divided(sum, positions));
                }
            }
        }
    }
    Some(given)
}

/// The sums of activations over all positions of some prompts.
fn sums_over_prompts(
    model: &Gpt2,
    prompts: &[Vec<u32>],
    wanted: &HashSet<Site>,
    watch: Watch<'_>,
) -> HashMap<Site, Vec<f32>> {
    let mut sums: HashMap<Site, Vec<f32>> = HashMap::new();
    for ids in prompts {
        watch.leave_if_stopped();
        model.transformer(ids, &mut |site, x| {
            if wanted.contains(&site) {
                let sum = sum_over_positions(x);
                let sums = sums.entry(site).or_insert_with(|| vec![0.0; sum.len()]);
                for (total, x) in sums.iter_mut().zip(sum) {
                    *total += x;
                }
            }
        });
    }
    sums
}

/// For each lasting edit the activation that it takes its piece from; none if that comes from the source run.
pub(crate) fn lasting_values(model: &Gpt2, experiment: &Experiment) -> Vec<Option<Tensor>> {
    if experiment.lasting().is_empty() {
        return Vec::new();
    }
    let mut own: HashMap<Site, Tensor> =
        experiment.lasting().iter().map(|lasting| (lasting.patch.site(), Tensor::zeros(&[0]))).collect();
    model.transformer(experiment.base(), &mut |site, x| {
        own.entry(site).and_modify(|kept| kept.clone_from(x));
    });
    let value = |lasting: &Lasting| {
        let mut x = own[&lasting.patch.site()].clone();
        match lasting.value {
            LastingValue::Source => return None,
            LastingValue::Zero => set_to_zero(&mut x),
            LastingValue::Mean => {
                let mean = divided(sum_over_positions(&x), experiment.n_tokens());
                fill(&mut x, &mean);
            }
        }
        Some(x)
    };
    experiment.lasting().iter().map(value).collect()
}

/// Scores of what lies ahead stay −∞.
fn set_to_zero(x: &mut Tensor) {
    x.data_mut().iter_mut().for_each(|x| *x = if *x == f32::NEG_INFINITY { *x } else { 0.0 });
}

/// Σ over the first axis, the positions.
fn sum_over_positions(x: &Tensor) -> Vec<f32> {
    let n = x.data().len() / x.shape()[0];
    let mut sum = vec![0.0; n];
    for row in x.data().chunks_exact(n) {
        for (total, x) in sum.iter_mut().zip(row) {
            *total += x;
        }
    }
    sum
}

fn divided(mut sum: Vec<f32>, n: usize) -> Vec<f32> {
    sum.iter_mut().for_each(|x| *x /= n as f32);
    sum
}

/// Puts the same numbers at every position.
fn fill(x: &mut Tensor, row: &[f32]) {
    for position in x.data_mut().chunks_exact_mut(row.len()) {
        position.copy_from_slice(row);
    }
}
