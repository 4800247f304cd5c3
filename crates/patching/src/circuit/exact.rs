//! Every edge's effect, measured: a sweep whose forks leave the base run at readers.
//!
//! A cut edge changes what one reader makes (the queries of a head, say), and nothing before it. So for each edge
//! the reader's activation is computed from what it would read, and put into the base run; from there on
//! [`gpt2::walk`] computes only the rows that can change, of many edges together.

use gpt2::graph::{Circuit, Edge, Reader};
use gpt2::walk::{self, BASE, Edit, Fork, Plan, Value, Walk, Wiring};
use gpt2::{Patch, SiteKind};
use rayon::prelude::*;

use super::{Runs, Scores};
use crate::Engine;
use crate::incremental::{Ends, rows_together};
use crate::metric::Which;

impl Runs<'_> {
    /// For each of these edges by how much the metric changes if it alone is cut; NaN for one whose run has no metric.
    /// None if it was stopped.
    pub fn measure(&self, edges: &[Edge], engine: Engine) -> Option<Scores> {
        let mut values: Vec<Option<f32>> = vec![None; edges.len()];
        let mut base = self.ends().base;
        match engine {
            Engine::Plain => {
                base = self.watch.unless_stopped(|| self.plain_base()).unwrap_or(f32::NAN);
                let of_edge = |edge: &Edge| {
                    (self.watch.progress)(1.0 / edges.len() as f64);
                    self.watch.unless_stopped(|| self.plain_without(*edge))
                };
                values = edges.par_iter().map(of_edge).collect();
            }
            Engine::Incremental { memory } => self.measure_together(edges, memory, &mut values),
        }
        let changes: Option<Vec<f32>> = values.into_iter().map(|value| Some(value? - base)).collect();
        Some(Scores::of(self.graph, edges, &changes?))
    }

    fn measure_together(&self, edges: &[Edge], memory: usize, values: &mut [Option<f32>]) {
        let t = self.experiment.n_tokens();
        let per_chunk = (rows_together(self.model, t, memory) / (t - self.first)).max(1);
        // Edges of one layer together, so that their runs are equally long.
        let mut order: Vec<usize> = (0..edges.len()).collect();
        order.sort_by_key(|&edge| self.graph.place_of_reader(edges[edge].reader));
        for chunk in order.chunks(per_chunk) {
            let walked = self.watch.unless_stopped(|| {
                let fork = |&edge: &usize| {
                    self.watch.leave_if_stopped();
                    self.fork_without(edges[edge])
                };
                let forks: Vec<Fork<'_>> = chunk.par_iter().map(fork).collect();
                self.walked(Plan { forks: &forks, ..Plan::of(self.experiment.base()) })
            });
            let Some(ends) = walked else { return };
            self.evaluate(&ends, chunk, values);
            (self.watch.progress)(chunk.len() as f64 / edges.len() as f64);
        }
    }

    /// The ends of a walk, which can be stopped.
    fn walked(&self, plan: Plan<'_>) -> walk::Ends {
        let between = || self.watch.leave_if_stopped();
        let first_read = self.metric.first_position(self.experiment.n_tokens());
        let mut walk = Walk::new(self.model, Plan { first_read, between: &between, ..plan });
        walk.run(|_| {});
        walk.ends()
    }

    /// The base run with what a reader makes if one edge to it is cut.
    fn fork_without(&self, edge: Edge) -> Fork<'static> {
        let last = self.graph.n_layer.saturating_sub(1);
        let read = self.read_without(edge); // (T', C)
        let (patch, rows) = match edge.reader {
            Reader::Head(head, input) => {
                let patch =
                    Patch { head: Some(head.head), ..Patch::whole(input.site(head.layer).kind, head.layer) };
                (patch, self.model.read_rows(edge.reader, &read))
            }
            Reader::Mlp(layer) => {
                (Patch::whole(SiteKind::MlpOut, layer), self.model.read_rows(edge.reader, &read))
            }
            Reader::Logits => (Patch::whole(SiteKind::ResidPost, last), read),
        };
        Fork { edits: vec![Edit { patch, value: Value::Rows { first: self.first, rows } }] }
    }

    /// Writes the metric of each fork of a walk to its place; one that is the base run has the base run's.
    pub(super) fn evaluate(&self, ends: &walk::Ends, places: &[usize], values: &mut [Option<f32>]) {
        let (model, metric) = (self.model, self.metric);
        let base = metric.read(model, &ends.of_run(BASE), self.experiment.base());
        let ends = Ends { ends, cells: places, prompt: self.experiment.base() };
        let differing = ends.cells();
        for &place in places.iter().filter(|place| !differing.contains(place)) {
            values[place] = Some(metric.of(Which::Patched(place), &base, &self.clean));
        }
        ends.measure(model, metric, &self.clean, values, self.watch);
    }

    /// m(C) of each circuit: the metric of the base run in which all edges outside it are cut. None for those that
    /// were not reached before a stop.
    pub fn values(&self, circuits: &[Circuit], engine: Engine) -> Vec<Option<f32>> {
        match engine {
            Engine::Plain => {
                let value = |circuit| self.watch.unless_stopped(|| self.plain_value(circuit));
                circuits.par_iter().map(value).collect()
            }
            Engine::Incremental { memory } => {
                let whole = Circuit::whole(self.graph);
                let mut values = Vec::new();
                for chunk in circuits.chunks(self.together(0, memory)) {
                    values.extend(self.values_beside(&whole, chunk));
                    (self.watch.progress)(chunk.len() as f64 / circuits.len() as f64);
                }
                values
            }
        }
    }

    /// How many circuits that differ from the base run's from a layer on are run together.
    pub(super) fn together(&self, layer: usize, memory: usize) -> usize {
        let (t, c) = (self.experiment.n_tokens() - self.first, self.model.config.n_embd);
        let kept = (self.graph.n_layer - layer) * (self.graph.n_head + 1) * t * c * size_of::<f32>();
        (memory / kept.max(1)).min(rows_together(self.model, t, memory) / t).max(1)
    }

    /// m of some circuits, which are run beside another: the more readers they have in common with it at the front of
    /// the model, the less there is to do.
    pub(super) fn values_beside(&self, base: &Circuit, circuits: &[Circuit]) -> Vec<Option<f32>> {
        let mut values = vec![None; circuits.len()];
        let wiring = Wiring { other: &self.other, first: self.first, base, forks: circuits };
        let plan = Plan { wiring: Some(wiring), ..Plan::of(self.experiment.base()) };
        let Some(ends) = self.watch.unless_stopped(|| self.walked(plan)) else { return values };
        let places: Vec<usize> = (0..circuits.len()).collect();
        self.evaluate(&ends, &places, &mut values);
        values
    }
}
