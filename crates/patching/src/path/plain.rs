//! The plain engine of path patching: the method as the module above has it, pass by pass.

use std::collections::HashMap;

use gpt2::Site;
use rayon::prelude::*;
use tensor::Tensor;

use super::{Ends, Head, Receivers, Task, rows_from};
use crate::{Patch, SiteKind};

/// The end for every sender, of two whole forward passes each.
pub fn run(task: &Task<'_>) -> Ends {
    let Task { paths, model, experiment, first_read, watch, .. } = *task;
    // 1. What all heads and MLPs do in either run.
    let cached = |ids: &[u32]| {
        let mut cache: HashMap<Site, Tensor> = HashMap::new();
        let x = model.transformer(ids, &mut |site, x| {
            watch.leave_if_stopped();
            if matches!(site.kind, SiteKind::Z | SiteKind::MlpOut) {
                cache.insert(site, x.clone());
            }
        });
        (rows_from(&x, first_read), cache)
    };
    let (source, source_cache) = cached(experiment.source());
    let (base, base_cache) = cached(experiment.base());

    let of_sender = |sender: &Head| {
        watch.leave_if_stopped();
        // 2. and 3. All heads are frozen but the sender; what do the receivers read?
        let z = Patch { pos: paths.pos, head: Some(sender.head), ..Patch::whole(SiteKind::Z, sender.layer) };
        let mut read: HashMap<Site, Tensor> = HashMap::new();
        let mut x = model.transformer(experiment.base(), &mut |site, x| match site.kind {
            SiteKind::Z => {
                *x = base_cache[&site].clone();
                if site.layer == sender.layer {
                    z.apply(&source_cache[&site], x);
                }
            }
            SiteKind::MlpOut if !paths.through_mlps => *x = base_cache[&site].clone(),
            SiteKind::Q | SiteKind::K | SiteKind::V => drop(read.insert(site, x.clone())),
            _ => watch.leave_if_stopped(),
        });
        if let Receivers::Heads(input, _) = paths.receivers {
            // 4. The base once more, with what the receivers read.
            x = model.transformer(experiment.base(), &mut |site, x| {
                watch.leave_if_stopped();
                let here = |head: &&Head| input.site(head.layer) == site;
                for receiver in task.heads.iter().filter(here) {
                    let [t, n_head, _] = x.dims();
                    for pos in 0..t {
                        let row = pos * n_head + receiver.head;
                        x.row_mut(row).copy_from_slice(read[&site].row(row));
                    }
                }
            });
        }
        (watch.progress)(1.0 / task.senders.len() as f64);
        rows_from(&x, first_read)
    };
    Ends { base, source, patched: task.senders.par_iter().map(of_sender).collect() }
}
