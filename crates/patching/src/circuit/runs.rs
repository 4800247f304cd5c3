//! The two runs that circuits are made of: what every writer writes in the base run, and what is put in its place.

use std::collections::HashMap;

use gpt2::graph::{Edge, Graph, Reader};
use gpt2::walk::{BASE, Plan, SOURCE, Walk};
use gpt2::{Activations, Gpt2, Kernel, Site, SiteKind};
use tensor::Tensor;

use super::Replacement;
use crate::metric::{End, Which};
use crate::{Endpoints, Error, Experiment, Metric, Watch};

/// What writers write in a run, `(T, C)` each, in the order of the graph; and the activations that it was made of.
pub(super) struct Written {
    pub outputs: Vec<Tensor>,
    pub sites: HashMap<Site, Tensor>,
}

/// The base run of an experiment, and what stands in for each of its writers where an edge is cut.
pub struct Runs<'a> {
    pub(super) model: &'a Gpt2,
    pub(super) experiment: &'a Experiment,
    pub(super) metric: Metric<'a>,
    pub(super) watch: Watch<'a>,
    pub(super) replacement: Replacement,
    pub(super) graph: Graph,
    /// The base run.
    pub(super) base: Written,
    pub(super) activations: Activations,
    /// The source run, where it is what is put in.
    pub(super) source: Written,
    /// What is put in the place of each writer's output, `(T, C)`.
    pub(super) other: Vec<Tensor>,
    /// The first position at which it differs.
    pub(super) first: usize,
    pub(super) clean: End<'static>,
    /// The last row of the clean run's end, `(C)`.
    pub(super) clean_end: Vec<f32>,
    ends: Endpoints,
}

impl<'a> Runs<'a> {
    /// Runs both prompts; none if it was stopped.
    ///
    /// # Errors
    /// If the experiment is an ablation or has edits that stay: neither has a circuit here.
    ///
    /// # Panics
    /// If the metric is a loss at positions that the prompts do not have.
    pub fn new(
        model: &'a Gpt2,
        experiment: &'a Experiment,
        metric: Metric<'a>,
        replacement: Replacement,
        watch: Watch<'a>,
    ) -> Result<Option<Self>, Error> {
        if experiment.replaced_by().is_some() || !experiment.lasting().is_empty() {
            return Err(Error::NoCircuit);
        }
        Ok(watch.unless_stopped(|| Self::run(model, experiment, metric, replacement, watch)))
    }

    fn run(
        model: &'a Gpt2,
        experiment: &'a Experiment,
        metric: Metric<'a>,
        replacement: Replacement,
        watch: Watch<'a>,
    ) -> Self {
        let graph = Graph::of(&model.config);
        let (source, _) = written(model, experiment.source(), watch);
        let (base, activations) = written(model, experiment.base(), watch);
        let (other, first) = match replacement {
            Replacement::Source => (source.outputs.clone(), experiment.differing_positions()[0]),
            Replacement::Zero => (base.outputs.iter().map(|x| Tensor::zeros(x.shape())).collect(), 0),
            Replacement::Mean => (base.outputs.iter().map(mean_over_positions).collect(), 0),
        };
        // The ends are those of the walk, from which circuits will differ: equal runs have equal bits.
        let between = || watch.leave_if_stopped();
        let plan = Plan {
            source: Some(experiment.source()),
            first_read: metric.first_position(experiment.n_tokens()),
            between: &between,
            ..Plan::of(experiment.base())
        };
        let mut walk = Walk::new(model, plan);
        walk.run(|_| {});
        let walked = walk.ends();
        let [source_end, base_end] = [SOURCE, BASE].map(|run| walked.of_run(run));
        let read = |end: &Tensor| metric.read(model, end, experiment.base());
        let [clean_end, corrupted_end] = experiment.direction().clean_and_corrupted(source_end, base_end);
        let clean = read(&clean_end);
        let of = |which, end| metric.of(which, end, &clean);
        let ends = Endpoints::new(
            experiment.direction(),
            of(Which::Clean, &clean),
            of(Which::Corrupted, &read(&corrupted_end)),
        );
        Self {
            model,
            experiment,
            metric,
            watch,
            replacement,
            graph,
            base,
            activations,
            source,
            other,
            first,
            clean,
            clean_end: clean_end.row(clean_end.n_rows() - 1).to_vec(),
            ends,
        }
    }

    /// The graph of the model.
    pub fn graph(&self) -> Graph {
        self.graph
    }

    /// The metric of the unpatched runs.
    pub fn ends(&self) -> Endpoints {
        self.ends
    }

    /// What a writer's output changes by where an edge from it is cut, `(T, C)`.
    pub(super) fn difference(&self, writer: usize) -> Tensor {
        let mut difference = self.other[writer].clone();
        let base = self.base.outputs[writer].data();
        difference.data_mut().iter_mut().zip(base).for_each(|(x, base)| *x -= base);
        difference
    }

    /// The residual stream that a reader reads in the base run, `(T, C)`.
    pub(super) fn stream(&self, reader: Reader) -> &Tensor {
        let last = self.graph.n_layer.saturating_sub(1);
        let site = match reader {
            Reader::Head(head, _) => SiteKind::ResidPre.at(head.layer),
            Reader::Mlp(layer) => SiteKind::ResidMid.at(layer),
            Reader::Logits => SiteKind::ResidPost.at(last),
        };
        self.activations.get(site).unwrap_or_else(|| unreachable!("{site} is kept for the backward pass"))
    }

    /// What a reader reads, from [`Runs::first`] on, if one edge to it is cut: `(T', C)`.
    pub(super) fn read_without(&self, edge: Edge) -> Tensor {
        let writer = self.graph.place_of_writer(edge.writer);
        let mut rows = rows_from(self.stream(edge.reader), self.first);
        let [base, other] = [&self.base.outputs, &self.other].map(|of| of[writer].data());
        let changes = other.iter().zip(base).skip(self.first * rows.row_len());
        rows.data_mut().iter_mut().zip(changes).for_each(|(x, (other, base))| *x += other - base);
        rows
    }
}

/// Runs a prompt, and keeps what its writers write.
fn written(model: &Gpt2, ids: &[u32], watch: Watch<'_>) -> (Written, Activations) {
    let mut sites = HashMap::new();
    let activations = model.record(Kernel::Fast, ids, &mut |site, x| {
        watch.leave_if_stopped();
        if matches!(site.kind, SiteKind::Embed | SiteKind::Z | SiteKind::MlpOut) {
            sites.insert(site, x.clone());
        }
    });
    let mut outputs = vec![sites[&SiteKind::Embed.at(0)].clone()];
    for (layer, block) in model.h.iter().enumerate() {
        let z = sites[&SiteKind::Z.at(layer)].clone().reshape(&[ids.len(), model.config.n_embd]);
        outputs.extend((0..block.attn.n_head).map(|head| block.attn.written_by_head(head, &z)));
        outputs.push(sites[&SiteKind::MlpOut.at(layer)].clone());
    }
    (Written { outputs, sites }, activations)
}

/// The mean row, at every position.
fn mean_over_positions(x: &Tensor) -> Tensor {
    let ([t, c], mut mean) = (x.dims(), Tensor::zeros(&[x.row_len()]));
    x.add_rows_to(&mut mean);
    mean.scale(1.0 / t as f32);
    Tensor::new(&[t, c], mean.data().repeat(t))
}

/// The rows of a matrix from one on.
pub(super) fn rows_from(x: &Tensor, first: usize) -> Tensor {
    let c = x.row_len();
    Tensor::new(&[x.n_rows() - first, c], x.data()[first * c..].to_vec())
}
