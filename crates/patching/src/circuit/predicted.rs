//! Every edge's effect at once, predicted from gradients.

use gpt2::graph::{Edge, Reader};
use gpt2::{Activations, Gradients, Kernel, Rules, Site, SiteKind};
use rayon::prelude::*;
use std::collections::HashMap;
use tensor::{Tensor, dot};

use super::{Prediction, Replacement, Runs, Scores};
use crate::Error;

impl Runs<'_> {
    /// For each edge the predicted change of the metric if it is cut: Σ (other − now) · ∂M/∂(what its reader
    /// reads) over positions and components. None if it was stopped.
    ///
    /// # Errors
    /// If the metric has no gradient; or if the gradient is taken between the two prompts, and something else than
    /// the source run's outputs is put in.
    pub fn predict(&self, prediction: Prediction) -> Result<Option<Scores>, Error> {
        self.metric.check_gradient()?;
        if prediction != Prediction::Eap && self.replacement != Replacement::Source {
            return Err(Error::NotBetweenRuns { prediction: prediction.name() });
        }
        self.watch.unless_stopped(|| self.predicted(prediction)).transpose()
    }

    fn predicted(&self, prediction: Prediction) -> Result<Scores, Error> {
        let gradients = match prediction {
            Prediction::Eap => self.gradients(&self.activations)?,
            Prediction::CleanCorrupted => {
                let source = self.model.record(Kernel::Fast, self.experiment.source(), &mut |_, _| {});
                self.mean_gradient(vec![Box::new(move || source.clone())], true)?
            }
            Prediction::EapIg { steps } => {
                let run = |k: usize| self.between(SiteKind::Embed.at(0), k as f32 / steps as f32);
                self.mean_gradient((0..steps).map(|k| boxed(move || run(k))).collect(), false)?
            }
            Prediction::EapIgActivations { steps } => {
                let layers = 0..self.graph.n_layer;
                let sites = layers.flat_map(|layer| [SiteKind::Z.at(layer), SiteKind::MlpOut.at(layer)]);
                let sites = [SiteKind::Embed.at(0)].into_iter().chain(sites);
                let run = |site: Site, k: usize| self.between(site, k as f32 / steps as f32);
                let runs = sites.flat_map(|site| (1..=steps).map(move |k| boxed(move || run(site, k))));
                self.mean_gradient(runs.collect(), false)?
            }
        };
        Ok(self.score(&gradients))
    }

    /// The mean gradient of some runs, and of the base run too if it is one of them.
    fn mean_gradient(
        &self,
        runs: Vec<Box<dyn Fn() -> Activations + '_>>,
        and_base: bool,
    ) -> Result<Vec<Tensor>, Error> {
        let n = runs.len() + usize::from(and_base);
        let mut sum = if and_base { self.gradients(&self.activations)? } else { Vec::new() };
        for run in runs {
            self.watch.leave_if_stopped();
            let gradients = self.gradients(&run())?;
            if sum.is_empty() {
                sum = gradients;
            } else {
                sum.iter_mut().zip(&gradients).for_each(|(sum, dx)| sum.add_assign(dx));
            }
            (self.watch.progress)(1.0 / n as f64);
        }
        sum.iter_mut().for_each(|dx| dx.scale(1.0 / n as f32));
        Ok(sum)
    }

    /// The base run with one activation a part of the way from the source run's to its own.
    fn between(&self, site: Site, share: f32) -> Activations {
        self.model.record(Kernel::Fast, self.experiment.base(), &mut |here, x| {
            self.watch.leave_if_stopped();
            if here == site {
                // (In an earlier activation nothing is changed, so this is the base run's own.)
                let source = self.source.sites[&site].data();
                x.data_mut()
                    .iter_mut()
                    .zip(source)
                    .for_each(|(x, source)| *x = source + share * (*x - source));
            }
        })
    }

    /// The gradient of the metric with respect to what each reader reads, `(T, C)` each.
    fn gradients(&self, activations: &Activations) -> Result<Vec<Tensor>, Error> {
        let base = self.experiment.base();
        let dend = self.metric.gradient_of_end(self.model, &activations.end, base, &self.clean_end)?;
        let mut kept: HashMap<Site, Tensor> = HashMap::new();
        let mut keep = |site: Site, dx: &Tensor| {
            self.watch.leave_if_stopped();
            let kinds =
                [SiteKind::Q, SiteKind::K, SiteKind::V, SiteKind::Ln2Normalized, SiteKind::LnFinalNormalized];
            if kinds.contains(&site.kind) {
                kept.insert(Site { layer: site.layer, kind: site.kind }, dx.clone());
            }
        };
        let to = Gradients { hook: Some(&mut keep), parameters: None };
        self.model.backward(activations, dend, &Rules::default(), to);
        let readers: Vec<Reader> = self.graph.readers().collect();
        let gradient = |reader: &Reader| {
            let dmade = match *reader {
                Reader::Head(head, input) => {
                    let dx = &kept[&input.site(head.layer)]; // (T, n_head, head_size)
                    let rows = (0..base.len()).flat_map(|pos| dx.row(pos * self.graph.n_head + head.head));
                    Tensor::new(&[base.len(), dx.row_len()], rows.copied().collect())
                }
                Reader::Mlp(layer) => kept[&SiteKind::Ln2Normalized.at(layer)].clone(),
                Reader::Logits => kept[&SiteKind::LnFinalNormalized.at(0)].clone(),
            };
            self.model.reader_backward(activations, *reader, &dmade)
        };
        Ok(readers.par_iter().map(gradient).collect())
    }

    fn score(&self, gradients: &[Tensor]) -> Scores {
        let differences: Vec<Tensor> =
            (0..self.graph.n_writers()).into_par_iter().map(|writer| self.difference(writer)).collect();
        let edges: Vec<Edge> = self.graph.edges().collect();
        let score = |edge: &Edge| {
            let difference = &differences[self.graph.place_of_writer(edge.writer)];
            let gradient = &gradients[self.graph.place_of_reader(edge.reader)];
            let of_row = |pos: usize| f64::from(dot(difference.row(pos), gradient.row(pos)));
            (self.first..difference.n_rows()).map(of_row).sum::<f64>() as f32
        };
        Scores::of(self.graph, &edges, &edges.par_iter().map(score).collect::<Vec<f32>>())
    }
}

fn boxed<'a>(run: impl Fn() -> Activations + 'a) -> Box<dyn Fn() -> Activations + 'a> {
    Box::new(run)
}
