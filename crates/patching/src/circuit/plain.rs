//! Circuits by hooks: a whole forward pass for each, in which every reader is handed what it is to read. It is to be
//! read, and the walk ([`gpt2::walk`]) is held to it.

use gpt2::graph::{Circuit, Edge, HeadInput, Reader};
use gpt2::{Gpt2, Head, Site, SiteKind};
use tensor::Tensor;

use super::Runs;
use super::runs::rows_from;
use crate::metric::Which;

/// The end of a run in which each reader reads the residual stream and what `added` gives it: it is asked about
/// each reader in turn, with what the writers before it have written.
fn run(model: &Gpt2, ids: &[u32], added: &mut dyn FnMut(Reader, &[Tensor]) -> Option<Tensor>) -> Tensor {
    let (n_head, last) = (model.config.n_head, model.h.len().saturating_sub(1));
    let mut written: Vec<Tensor> = Vec::new();
    let mut stream = Tensor::zeros(&[0, model.config.n_embd]);
    model.transformer(ids, &mut |Site { kind, layer }, x| {
        let mut read = |reader, stream: &Tensor, written: &[Tensor]| {
            added(reader, written).map(|mut read| {
                read.add_assign(stream);
                read
            })
        };
        match kind {
            SiteKind::Embed => written.push(x.clone()),
            SiteKind::ResidPre | SiteKind::ResidMid => stream = x.clone(),
            SiteKind::Q | SiteKind::K | SiteKind::V => {
                let input = HeadInput::ALL.into_iter().find(|input| input.site(layer).kind == kind);
                for (head, input) in (0..n_head).zip(input.into_iter().cycle()) {
                    let reader = Reader::Head(Head { layer, head }, input);
                    if let Some(read) = read(reader, &stream, &written) {
                        let made = model.read_rows(reader, &read); // (T, head_size)
                        (0..ids.len())
                            .for_each(|pos| x.row_mut(pos * n_head + head).copy_from_slice(made.row(pos)));
                    }
                }
            }
            SiteKind::Z => {
                let z = x.clone().reshape(&[ids.len(), model.config.n_embd]);
                written.extend((0..n_head).map(|head| model.h[layer].attn.written_by_head(head, &z)));
            }
            SiteKind::MlpOut => {
                if let Some(read) = read(Reader::Mlp(layer), &stream, &written) {
                    *x = model.read_rows(Reader::Mlp(layer), &read);
                }
                written.push(x.clone());
            }
            SiteKind::ResidPost if layer == last => {
                if let Some(read) = read(Reader::Logits, x, &written) {
                    *x = read;
                }
            }
            _ => {}
        }
    })
}

impl Runs<'_> {
    /// The metric of a run, from its end.
    fn measured(&self, end: &Tensor) -> f32 {
        let from = self.metric.first_position(self.experiment.n_tokens());
        let end = self.metric.read(self.model, &rows_from(end, from), self.experiment.base());
        self.metric.of(Which::Patched(0), &end, &self.clean)
    }

    /// The metric of the base run, as this way has it.
    pub(super) fn plain_base(&self) -> f32 {
        self.measured(&run(self.model, self.experiment.base(), &mut |_, _| None))
    }

    /// The metric of the base run with one edge cut: that reader alone reads what is put in the writer's place.
    pub(super) fn plain_without(&self, edge: Edge) -> f32 {
        let difference = self.difference(self.graph.place_of_writer(edge.writer));
        let end = run(self.model, self.experiment.base(), &mut |reader, _| {
            self.watch.leave_if_stopped();
            (reader == edge.reader).then(|| difference.clone())
        });
        self.measured(&end)
    }

    /// m(C): the metric of the base run in which all edges outside a circuit are cut.
    pub(super) fn plain_value(&self, circuit: &Circuit) -> f32 {
        let end = run(self.model, self.experiment.base(), &mut |reader, written| {
            self.watch.leave_if_stopped();
            let mut added = Tensor::zeros(written[0].shape());
            let cut = circuit
                .into_reader(reader)
                .iter()
                .zip(&self.other)
                .zip(written)
                .filter(|((kept, _), _)| !**kept);
            for ((_, other), now) in cut {
                let changes = other.data().iter().zip(now.data());
                added.data_mut().iter_mut().zip(changes).for_each(|(x, (other, now))| *x += other - now);
            }
            Some(added)
        });
        self.measured(&end)
    }
}
