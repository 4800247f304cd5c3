//! All activations of a run (TransformerLens's `run_with_cache`).
//!
//! The forward pass calls a hook with every activation; a hook that clones is a cache. Keep only the
//! sites that are needed where prompts are long: the scores and patterns alone are
//! `2 · n_layer · n_head · T²` numbers.
//!
//! Logits are not kept, because they are the largest of all: [`Gpt2::unembed`] makes them from
//! [`gpt2::SiteKind::LnFinalNormalized`]. (`run_with_cache` returns them beside the cache, too.)

use std::collections::HashMap;
use std::ops::Index;

use gpt2::{Gpt2, Site};
use tensor::Tensor;

use crate::Error;

/// The activations of one run, by site.
#[derive(Clone, Debug)]
pub struct ActivationCache {
    /// In the order in which the forward pass made them.
    order: Vec<Site>,
    activations: HashMap<Site, Tensor>,
}

/// Runs the model and keeps every activation.
///
/// # Errors
/// If the model cannot read the prompt.
pub fn run_with_cache(model: &Gpt2, ids: &[u32]) -> Result<ActivationCache, Error> {
    run_with_cache_of(model, ids, |_| true)
}

/// Runs the model and keeps the activations that `keep` chooses.
///
/// # Errors
/// If the model cannot read the prompt.
pub fn run_with_cache_of(
    model: &Gpt2,
    ids: &[u32],
    keep: impl Fn(Site) -> bool,
) -> Result<ActivationCache, Error> {
    model.check_prompt(ids)?;
    let mut cache = ActivationCache { order: Vec::new(), activations: HashMap::new() };
    model.transformer(ids, &mut |site, x| {
        if keep(site) {
            cache.order.push(site);
            cache.activations.insert(site, x.clone());
        }
    });
    Ok(cache)
}

impl ActivationCache {
    /// The activation of a site, if it was kept. [`Site`] says what shape each has.
    pub fn get(&self, site: Site) -> Option<&Tensor> {
        self.activations.get(&site)
    }

    /// The activation with TransformerLens's name (`blocks.3.attn.hook_z`, or `z3`), if it was kept.
    pub fn by_name(&self, name: &str) -> Option<&Tensor> {
        self.get(name.parse().ok()?)
    }

    /// Drops the activations that `keep` does not choose.
    pub fn retain(&mut self, keep: impl Fn(Site) -> bool) {
        self.order.retain(|site| keep(*site));
        self.activations.retain(|site, _| keep(*site));
    }

    /// The activations in the order in which the forward pass made them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Site, &Tensor)> {
        self.order.iter().map(|site| (*site, &self.activations[site]))
    }

    /// How many activations there are.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nothing was kept.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// One row for each activation, for a listing.
    pub fn summaries(&self) -> Vec<Summary> {
        self.iter().map(|(site, x)| Summary::of(&site.to_string(), x)).collect()
    }
}

impl Index<Site> for ActivationCache {
    type Output = Tensor;

    /// # Panics
    /// If the activation was not kept.
    #[track_caller]
    fn index(&self, site: Site) -> &Tensor {
        match self.get(site) {
            Some(x) => x,
            None => panic!("{site} was not kept in this cache"),
        }
    }
}

/// One activation in a few numbers. The −∞ of masked scores are left out of all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Which activation it is: TransformerLens's name.
    pub name: String,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Σ x
    pub sum: f64,
    /// Σ x / n
    pub mean: f64,
    /// √ Σ x²
    pub norm: f64,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl Summary {
    /// The numbers of one activation.
    pub fn of(name: &str, x: &Tensor) -> Self {
        // Elsewhere than in scores −∞ is an overflow, as +∞ is.
        let is_masked = |x: &f32| *x == f32::NEG_INFINITY && name.ends_with("scores");
        let unmasked = || x.data().iter().copied().filter(|x| !is_masked(x));
        let sum: f64 = unmasked().map(f64::from).sum();
        let [least, most] = if unmasked().all(f32::is_finite) {
            [f32::INFINITY, f32::NEG_INFINITY]
        } else {
            [f32::NAN; 2] // which `f32::min` would pass over
        };
        Self {
            name: name.to_owned(),
            shape: x.shape().to_vec(),
            sum,
            mean: sum / unmasked().count().max(1) as f64,
            norm: unmasked().map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt(),
            min: unmasked().fold(least, |min, x| if x < min { x } else { min }),
            max: unmasked().fold(most, |max, x| if x > max { x } else { max }),
        }
    }
}

#[cfg(test)]
mod tests {
    use gpt2::{Pretrained, SiteKind};

    use super::*;

    #[test]
    fn a_summary_leaves_out_what_is_masked() {
        let x = Tensor::new(&[1, 2, 2], vec![3.0, f32::NEG_INFINITY, -4.0, 0.0]);
        let summary = Summary::of("scores", &x);
        assert_eq!((summary.sum, summary.norm, summary.min, summary.max), (-1.0, 5.0, -4.0, 3.0));
        assert!((summary.mean + 1.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_cache_has_every_site_in_order_or_those_asked_for() {
        let tiny = Pretrained::tiny().unwrap();
        let ids = [48736, 5437, 373];
        let all = run_with_cache(&tiny.model, &ids).unwrap();
        let sites: Vec<Site> = all.iter().map(|(site, _)| site).collect();
        assert_eq!(sites, Site::all(12).collect::<Vec<_>>());
        assert_eq!(all.by_name("blocks.2.attn.hook_z").unwrap().shape(), [3, 4, 16]);

        let some = run_with_cache_of(&tiny.model, &ids, |site| matches!(site.kind, SiteKind::Z)).unwrap();
        assert_eq!(some.len(), 12);
        assert_eq!(some[SiteKind::Z.at(7)], all[SiteKind::Z.at(7)]);
        assert!(some.get(SiteKind::Q.at(7)).is_none());
        let mut fewer = some;
        fewer.retain(|site| site == SiteKind::Z.at(7));
        assert_eq!((fewer.len(), fewer.get(SiteKind::Z.at(6))), (1, None));
        assert_eq!(fewer[SiteKind::Z.at(7)], all[SiteKind::Z.at(7)]);
    }

    #[test]
    fn a_prompt_that_the_model_cannot_read_is_an_error() {
        let tiny = Pretrained::tiny().unwrap();
        assert!(run_with_cache(&tiny.model, &[]).is_err());
    }
}
