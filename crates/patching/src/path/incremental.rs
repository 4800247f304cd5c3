//! The incremental engine of path patching: two walks over the rows of all senders together
//! ([`gpt2::walk`]), the first with everything frozen that the method freezes, the second from the receivers on.

use gpt2::SiteKind;
use gpt2::walk::{BASE, Edit, Fork, Frozen, Plan, Read, Reader, SOURCE, Value, Walk};
use tensor::Tensor;

use super::Task;
use crate::incremental::{Ends, rows_together};
use crate::metric::{End, Which};
use crate::{Measured, Patch};

/// The metric of every sender. The senders are processed in chunks, so that about `memory` bytes are held
/// beyond the weights (but at least as much as one sender needs).
pub fn run(task: &Task<'_>, memory: usize) -> Measured {
    let Task { paths, model, experiment, metric, watch, .. } = *task;
    let t = experiment.n_tokens();
    let mut measured = Measured::nothing(task.senders.len());
    let plan = Plan {
        source: Some(experiment.source()),
        first_read: metric.first_position(t),
        between: &|| watch.leave_if_stopped(),
        ..Plan::of(experiment.base())
    };
    // The two unpatched runs.
    let Some(unpatched) = watch.unless_stopped(|| walked(task, plan)) else {
        return measured;
    };
    let [source, base] = [SOURCE, BASE].map(|run| unpatched.of_run(run));
    let read = |rows: &Tensor| metric.read(model, rows, experiment.base());
    let (source, base) = (read(&source), read(&base));
    let [clean, corrupted] = experiment.direction().clean_and_corrupted(&source, &base);
    measured.clean = metric.of(Which::Clean, clean, clean);
    measured.corrupted = metric.of(Which::Corrupted, corrupted, clean);

    let readers = paths.receivers.readers();
    let per_chunk = (rows_together(model, t, memory) / t).max(1);
    let senders: Vec<usize> = (0..task.senders.len()).collect();
    for chunk in senders.chunks(per_chunk) {
        let forks: Vec<Fork<'_>> = chunk.iter().map(|&i| fork_of(task.senders[i])).collect();
        let frozen = Frozen { attention: true, mlps: !paths.through_mlps };
        let first = Plan { forks: &forks, frozen, readers: &readers, ..plan };
        let ends = watch.unless_stopped(|| match readers.last() {
            None => walked(task, first),
            Some(last) => {
                // What the receivers read, in the place of their own.
                let mut walk = Walk::new(model, Plan { first_read: 0, ..first });
                (0..=last.layer).for_each(|layer| walk.block(layer, None));
                let forks = heard(&walk.into_reads(), &readers, chunk.len());
                walked(task, Plan { source: None, forks: &forks, ..plan })
            }
        });
        let Some(ends) = ends else { break };
        measure(
            task,
            &Ends { ends: &ends, cells: chunk, prompt: experiment.base() },
            [&base, clean],
            &mut measured,
        );
        (watch.progress)(chunk.len() as f64 / task.senders.len() as f64);
    }
    measured
}

fn walked(task: &Task<'_>, plan: Plan<'_>) -> gpt2::walk::Ends {
    let mut walk = Walk::new(task.model, plan);
    walk.run(|_| {});
    walk.ends()
}

/// The base run with the sender's activation of the source run.
fn fork_of(sender: Patch) -> Fork<'static> {
    Fork { edits: vec![Edit { patch: sender, value: Value::Source }] }
}

/// For each of `n` senders the base run with what its receivers have read, at all positions: where the sender
/// changes nothing they read what they do in the base run, whatever an earlier receiver makes of the stream.
fn heard(reads: &[Read], readers: &[Reader], n: usize) -> Vec<Fork<'static>> {
    let of_base: Vec<&Read> = reads.iter().filter(|read| read.fork.is_none()).collect();
    let edits = |fork: usize| {
        let own = reads.iter().filter(move |read| read.fork == Some(fork));
        own.filter_map(|read| {
            let Reader { site, layer, head } = readers[read.reader];
            let mut rows = of_base.iter().find(|base| base.reader == read.reader)?.rows.clone();
            for i in 0..read.rows.n_rows() {
                rows.row_mut(read.first + i).copy_from_slice(read.rows.row(i));
            }
            let patch = Patch { head, ..Patch::whole(site, layer) };
            Some(Edit { patch, value: Value::Rows { first: 0, rows } })
        })
    };
    // (Reads are in the order of the layers, so the edits are too.)
    (0..n).map(|fork| Fork { edits: edits(fork).collect() }).collect()
}

/// Writes the metric of a chunk's senders; one that changes nothing leaves the base run as it is.
fn measure(task: &Task<'_>, ends: &Ends<'_>, [base, clean]: [&End<'_>; 2], measured: &mut Measured) {
    let differing = ends.cells();
    for &cell in ends.cells.iter().filter(|cell| !differing.contains(cell)) {
        measured.values[cell] = Some(task.metric.of(Which::Patched(cell), base, clean));
    }
    ends.measure(task.model, task.metric, clean, &mut measured.values, task.watch);
}

impl super::Receivers {
    /// The receivers as readers of the stream, by layer; none for the logits.
    pub(super) fn readers(&self) -> Vec<Reader> {
        match self {
            Self::Logits => Vec::new(),
            Self::Heads(input, heads) => {
                let mut heads = heads.clone();
                heads.sort_unstable();
                heads.dedup();
                let reader = |head: gpt2::Head| {
                    let site = input.site(head.layer).kind;
                    Reader { site, layer: head.layer, head: Some(head.head) }
                };
                heads.into_iter().map(reader).collect()
            }
            Self::Mlps(layers) => {
                let mut layers = layers.clone();
                layers.sort_unstable();
                layers.dedup();
                let reader = |layer| Reader { site: SiteKind::MlpOut, layer, head: None };
                layers.into_iter().map(reader).collect()
            }
        }
    }
}
