//! The incremental engine of path patching: the rows of all senders walk through the layers together,
//! and only from the receivers on is anything run again.

use std::collections::HashMap;

use gpt2::model::{Hooks, Mlp};
use gpt2::{Site, SiteKind};
use rayon::prelude::*;
use tensor::{Tensor, linear};

use super::{Ends, Head, HeadInput, Receivers, Task, rows_from};

/// How many rows of width C are held for each row of the walk, at the most: the residual stream, its
/// normalised form, a packed copy, and what the MLP adds.
const HELD: usize = 4;

/// The end for every sender. The senders are worked off in chunks, so that about `memory` bytes are held
/// beyond the weights and the activations of the two runs (but never less than one sender takes).
pub fn run(task: &Task<'_>, memory: usize) -> Ends {
    let Task { paths, model, experiment, heads, first_read, watch, .. } = *task;
    let input = match paths.receivers {
        Receivers::Logits => None,
        Receivers::Heads(input, _) => Some(input),
    };
    // What step 4 begins with, and what freezing needs.
    let mut cache: HashMap<Site, Tensor> = HashMap::new();
    let base = model.transformer(experiment.base(), &mut |site, x| {
        watch.leave_if_stopped();
        let is_receivers = |layer| heads.iter().any(|head| head.layer == layer);
        let layer = site.layer;
        let is_kept = match site.kind {
            SiteKind::ResidPre => is_receivers(layer),
            SiteKind::Q | SiteKind::K | SiteKind::V => {
                is_receivers(layer) && input.is_some_and(|input| input.site(layer) == site)
            }
            SiteKind::Z | SiteKind::AttnOut | SiteKind::ResidMid => true,
            SiteKind::MlpOut => !paths.through_mlps,
            _ => false,
        };
        if is_kept {
            cache.insert(site, x.clone());
        }
    });
    let mut source_z: HashMap<Site, Tensor> = HashMap::new();
    let source = model.transformer(experiment.source(), &mut |site, x| {
        watch.leave_if_stopped();
        if matches!(site.kind, SiteKind::Z) {
            source_z.insert(site, x.clone());
        }
    });
    let base = rows_from(&base, first_read);

    // Where a sender can change the stream, and where anybody reads it.
    let (t, c) = (experiment.n_tokens(), model.config.n_embd);
    let positions: Vec<usize> = (experiment.differing_positions()[0]..t)
        .filter(|&pos| paths.pos.is_none_or(|only| only == pos))
        .filter(|&pos| paths.receivers != Receivers::Logits || pos >= first_read)
        .collect();
    let is_heard = |sender: &Head| !positions.is_empty() && paths.is_heard(sender.layer);
    let heard: Vec<Head> = task.senders.iter().copied().filter(is_heard).collect();
    let walk = Walk { task, base: &cache, base_end: &base, source_z: &source_z, positions: &positions };
    let inner = model.config.inner_size();
    let floats_a_sender = positions.len() * (HELD * c + heads.len() * model.config.head_size());
    let floats = (memory / size_of::<f32>()).saturating_sub(Mlp::ROWS_TOGETHER * (2 * inner + 2 * c));
    let chunk_size = (floats / floats_a_sender.max(1)).max(1);

    // What no receiver hears leaves the base as it is.
    let mut patched = vec![base.clone(); task.senders.len()];
    for chunk in heard.chunks(chunk_size) {
        let one_done = || (watch.progress)(1.0 / heard.len() as f64);
        for (sender, end) in chunk.iter().zip(walk.ends(chunk, &one_done)) {
            patched[sender.layer * model.config.n_head + sender.head] = end;
        }
    }
    if heard.is_empty() {
        (watch.progress)(1.0);
    }
    Ends { base, source: rows_from(&source, first_read), patched }
}

/// The way of senders' changes along the frozen residual stream.
struct Walk<'a> {
    task: &'a Task<'a>,
    /// Activations of the base run.
    base: &'a HashMap<Site, Tensor>,
    /// The end of the base run.
    base_end: &'a Tensor,
    /// z of the source run.
    source_z: &'a HashMap<Site, Tensor>,
    /// The positions of the rows that each sender has in the matrix, in order.
    positions: &'a [usize],
}

impl Walk<'_> {
    /// The end for each of these senders, which are sorted by layer and heard by some receiver. `one_done`
    /// is told of each of them.
    fn ends(&self, senders: &[Head], one_done: &(dyn Fn() + Sync)) -> Vec<Tensor> {
        let Task { paths, model, heads, first_read, watch, .. } = *self.task;
        let c = model.config.n_embd;
        // The residual stream: of each sender that has joined, a row for each position.
        let mut x: Vec<f32> = Vec::new();
        let mut reads: Vec<Read> = Vec::new();
        let first_layer = senders.first().map_or(0, |sender| sender.layer);
        let end = heads.last().map_or(model.config.n_layer, |head| head.layer);
        for layer in first_layer..=end {
            watch.leave_if_stopped();
            if let Receivers::Heads(input, _) = paths.receivers {
                x = self.read(layer, input, x, &mut reads);
            }
            if layer == end {
                break;
            }
            self.add_base(SiteKind::AttnOut.at(layer), &mut x);
            for sender in senders.iter().filter(|sender| sender.layer == layer) {
                x.extend(self.born(*sender));
            }
            match paths.through_mlps {
                true => x = self.add_mlp(layer, x),
                false => self.add_base(SiteKind::MlpOut.at(layer), &mut x),
            }
        }

        let of_sender: &(dyn Fn(usize) -> Tensor + Sync) = match paths.receivers {
            Receivers::Logits => {
                let x = Tensor::new(&[x.len() / c, c], x);
                let x = model.ln_f.forward_rows(&x);
                &move |index| {
                    let mut end = self.base_end.clone();
                    for (i, pos) in self.positions.iter().enumerate() {
                        let row = x.row(index * self.positions.len() + i);
                        end.row_mut(pos - first_read).copy_from_slice(row);
                    }
                    end
                }
            }
            Receivers::Heads(input, _) => {
                drop(x);
                let reads = &reads;
                &move |index| self.run_again(index, senders[index], input, reads)
            }
        };
        let of_sender = |index: usize| {
            let end = of_sender(index);
            one_done();
            end
        };
        (0..senders.len()).into_par_iter().map(of_sender).collect()
    }

    /// The rows of a sender after attention in its layer: the base's, and its change to them,
    /// (z_source − z_base) W_O.
    fn born(&self, Head { layer, head }: Head) -> Vec<f32> {
        let (model, site) = (self.task.model, SiteKind::Z.at(layer));
        let (c, head_size) = (model.config.n_embd, model.config.head_size());
        let (source, base) = (&self.source_z[&site], &self.base[&site]);
        let change = self.positions.iter().flat_map(|pos| {
            let row = pos * model.config.n_head + head;
            let pair = source.row(row).iter().zip(base.row(row));
            pair.map(|(source, base)| source - base)
        });
        let change = Tensor::new(&[self.positions.len(), head_size], change.collect());
        let w = model.h[layer].attn.c_proj.weight.view();
        let w = w.rows(head * head_size..(head + 1) * head_size); // (head_size, C)
        let mut rows = linear(&change, w, &vec![0.0; c]).into_data();
        self.add_base(SiteKind::ResidMid.at(layer), &mut rows);
        rows
    }

    /// Adds the base's rows of a site to every sender's.
    fn add_base(&self, site: Site, x: &mut [f32]) {
        let c = self.task.model.config.n_embd;
        let base = &self.base[&site];
        x.par_chunks_exact_mut(c).enumerate().for_each(|(i, row)| {
            let base = base.row(self.positions[i % self.positions.len()]);
            row.iter_mut().zip(base).for_each(|(x, b)| *x += b);
        });
    }

    /// Adds what a layer's MLP makes of every row.
    fn add_mlp(&self, layer: usize, x: Vec<f32>) -> Vec<f32> {
        let model = self.task.model;
        let (block, c) = (&model.h[layer], model.config.n_embd);
        let mut x = Tensor::new(&[x.len() / c, c], x);
        let normalized = block.ln_2.forward_rows(&x);
        x.add_assign(&block.mlp.forward_rows(&normalized));
        x.into_data()
    }

    /// What the receivers of a layer read in the stream as it enters the block.
    fn read(&self, layer: usize, input: HeadInput, x: Vec<f32>, reads: &mut Vec<Read>) -> Vec<f32> {
        let here = |head: &&Head| head.layer == layer;
        let mut receivers = self.task.heads.iter().filter(here).peekable();
        if receivers.peek().is_none() || x.is_empty() {
            return x;
        }
        let model = self.task.model;
        let (block, c) = (&model.h[layer], model.config.n_embd);
        let head_size = model.config.head_size();
        let x = Tensor::new(&[x.len() / c, c], x);
        let normalized = block.ln_1.forward_rows(&x);
        for &receiver in receivers {
            let third = match input {
                HeadInput::Q => 0,
                HeadInput::K => 1,
                HeadInput::V => 2,
            };
            let start = third * c + receiver.head * head_size;
            let columns = start..start + head_size;
            let weight = block.attn.c_attn.weight.view().columns(columns.clone());
            let rows = linear(&normalized, weight, &block.attn.c_attn.bias.data()[columns]);
            reads.push(Read { receiver, rows });
        }
        x.into_data()
    }

    /// Step 4: the base run from the first receiver on that hears the sender, with what the receivers
    /// read in the place of their own.
    fn run_again(&self, index: usize, sender: Head, input: HeadInput, reads: &[Read]) -> Tensor {
        let model = self.task.model;
        let heard = || reads.iter().filter(|read| read.receiver.layer > sender.layer);
        let first = heard().map(|read| read.receiver.layer).min();
        let first = first.unwrap_or_else(|| unreachable!("only senders that are heard have rows"));
        let mut x = self.base[&SiteKind::ResidPre.at(first)].clone();
        let mut hook = |site: Site, x: &mut Tensor| {
            self.task.watch.leave_if_stopped();
            for read in heard().filter(|read| input.site(read.receiver.layer) == site) {
                let [t, n_head, _] = x.dims();
                for pos in 0..t {
                    // Where the sender changes nothing, a receiver reads what it does in the base run,
                    // whatever an earlier receiver has made of the stream.
                    let row = pos * n_head + read.receiver.head;
                    let own = match self.positions.binary_search(&pos) {
                        Ok(i) => read.rows.row(index * self.positions.len() + i),
                        Err(_) => self.base[&site].row(row),
                    };
                    x.row_mut(row).copy_from_slice(own);
                }
            }
        };
        for layer in first..model.config.n_layer {
            x = model.h[layer].forward(x, &mut Hooks { hook: &mut hook, layer });
        }
        let x = model.ln_f.forward_rows(&x);
        rows_from(&x, self.task.first_read)
    }
}

/// What one receiver reads of each sender that has joined before its layer.
struct Read {
    receiver: Head,
    /// The head's query, key or value for each row of the matrix, `(senders · positions, head_size)`.
    rows: Tensor,
}
