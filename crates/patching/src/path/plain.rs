//! The plain engine of path patching: the method as the parent module describes it, pass by pass.

use std::collections::HashMap;

use gpt2::{Site, SiteKind};
use rayon::prelude::*;
use tensor::Tensor;

use super::Task;
use crate::metric::Which;
use crate::{Measured, Patch};

/// The metric of every sender, of two whole forward passes each.
pub fn run(task: &Task<'_>) -> Measured {
    let Task { paths, model, experiment, metric, watch, .. } = *task;
    let from = metric.first_position(experiment.n_tokens());
    let read_metric = |x: &Tensor| {
        let rows = (from..x.n_rows()).flat_map(|row| x.row(row)).copied().collect();
        metric.read(model, &Tensor::new(&[x.n_rows() - from, x.row_len()], rows), experiment.base())
    };
    // 1. The outputs of embeddings, heads and MLPs in either run.
    let cached = |ids: &[u32]| {
        let mut cache: HashMap<Site, Tensor> = HashMap::new();
        let x = model.transformer(ids, &mut |site, x| {
            watch.leave_if_stopped();
            if matches!(site.kind, SiteKind::Embed | SiteKind::Z | SiteKind::MlpOut) {
                cache.insert(site, x.clone());
            }
        });
        (read_metric(&x), cache)
    };
    let (source, source_cache) = cached(experiment.source());
    let (base, base_cache) = cached(experiment.base());
    let [clean, corrupted] = experiment.direction().clean_and_corrupted(&source, &base);

    let readers = paths.receivers.readers();
    let of_sender = |(i, sender): (usize, &Patch)| {
        // 2. and 3. Everything is frozen but the sender; what do the receivers read?
        let mut read: HashMap<Site, Tensor> = HashMap::new();
        let mut x = model.transformer(experiment.base(), &mut |site, x| {
            watch.leave_if_stopped();
            if matches!(site.kind, SiteKind::Q | SiteKind::K | SiteKind::V | SiteKind::MlpOut) {
                read.insert(site, x.clone());
            }
            let is_frozen = site.kind == SiteKind::Z || site.kind == SiteKind::MlpOut && !paths.through_mlps;
            if is_frozen {
                *x = base_cache[&site].clone();
            }
            if site == sender.site() {
                sender.apply(&source_cache[&site], x);
            }
        });
        if !readers.is_empty() {
            // 4. The base once more, with what the receivers read.
            x = model.transformer(experiment.base(), &mut |site, x| {
                watch.leave_if_stopped();
                for reader in readers.iter().filter(|reader| reader.site.at(reader.layer) == site) {
                    let piece = Patch { head: reader.head, ..Patch::whole(reader.site, reader.layer) };
                    piece.apply(&read[&site], x);
                }
            });
        }
        (watch.progress)(1.0 / task.senders.len() as f64);
        metric.of(Which::Patched(i), &read_metric(&x), clean)
    };
    let unless_stopped = |sender| watch.unless_stopped(|| of_sender(sender));
    Measured {
        values: task.senders.par_iter().enumerate().map(unless_stopped).collect(),
        clean: metric.of(Which::Clean, clean, clean),
        corrupted: metric.of(Which::Corrupted, corrupted, clean),
        ..Measured::nothing(0)
    }
}
