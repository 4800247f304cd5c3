//! One activation, or one piece of it, that is put into another run.

use std::fmt;
use std::ops::Range;

use tensor::Tensor;

use crate::{Site, SiteKind};

/// What one axis of an activation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Axis {
    /// The block, from 0.
    Layer,
    /// The position of a token, from 0.
    Pos,
    /// The attention head within its layer, from 0.
    Head,
    /// The position that attends.
    Dest,
    /// The position that is attended to.
    Src,
    /// The neuron of an MLP's hidden layer, from 0.
    Neuron,
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Layer => "layer",
            Self::Pos => "pos",
            Self::Head => "head",
            Self::Dest => "dest",
            Self::Src => "src",
            Self::Neuron => "neuron",
        })
    }
}

impl SiteKind {
    /// The kinds that can be patched: all but those of the layer norms.
    pub const PATCHABLE: [Self; 16] = [
        Self::ResidPre,
        Self::ResidMid,
        Self::ResidPost,
        Self::AttnOut,
        Self::MlpOut,
        Self::Z,
        Self::Q,
        Self::K,
        Self::V,
        Self::Pattern,
        Self::AttnScores,
        Self::Result,
        Self::MlpPre,
        Self::MlpPost,
        Self::Embed,
        Self::PosEmbed,
    ];

    /// The axes along which an activation of this kind can be cut into pieces, the layer first (the
    /// embeddings have one, 0); none for a kind that cannot be patched.
    pub fn axes(self) -> &'static [Axis] {
        use Axis::{Dest, Head, Layer, Neuron, Pos, Src};
        match self {
            Self::Embed | Self::PosEmbed | Self::ResidPre | Self::ResidMid | Self::ResidPost => &[Layer, Pos],
            Self::AttnOut | Self::MlpOut => &[Layer, Pos],
            Self::Z | Self::Q | Self::K | Self::V | Self::Result => &[Layer, Pos, Head],
            Self::AttnScores | Self::Pattern => &[Layer, Head, Dest, Src],
            Self::MlpPre | Self::MlpPost => &[Layer, Pos, Neuron],
            Self::Ln1Scale | Self::Ln1Normalized | Self::Ln2Scale | Self::Ln2Normalized => &[],
            Self::LnFinalScale | Self::LnFinalNormalized => &[],
        }
    }

    /// The axes of the usual sweep: layer × position, or layer × head.
    pub fn default_axes(self) -> &'static [Axis] {
        match self.axes() {
            [Axis::Layer, Axis::Pos, Axis::Neuron] => &[Axis::Layer, Axis::Pos],
            axes @ ([] | [_, _]) => axes,
            _ => &[Axis::Layer, Axis::Head],
        }
    }

    /// Whether it is the heads' scores or patterns, of the shape `(n_head, T, T)`.
    pub fn is_of_pairs(self) -> bool {
        matches!(self, Self::AttnScores | Self::Pattern)
    }
}

/// One piece of one activation: where an axis is not named, all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Patch {
    /// The kind of activation.
    pub site: SiteKind,
    /// The layer.
    pub layer: usize,
    /// The position, of an activation that has one.
    pub pos: Option<usize>,
    /// The head, of an activation that has one.
    pub head: Option<usize>,
    /// The attending position, of a pattern.
    pub dest: Option<usize>,
    /// The position attended to, of a pattern.
    pub src: Option<usize>,
    /// The neuron, of an MLP's hidden layer.
    pub neuron: Option<usize>,
}

impl Patch {
    /// A whole activation: every position and head.
    pub fn whole(site: SiteKind, layer: usize) -> Self {
        Self { site, layer, pos: None, head: None, dest: None, src: None, neuron: None }
    }

    /// One position of a layer's activation.
    pub fn at_pos(site: SiteKind, layer: usize, pos: usize) -> Self {
        Self { pos: Some(pos), ..Self::whole(site, layer) }
    }

    /// The same patch narrowed to one place on one axis.
    pub fn narrowed(mut self, axis: Axis, index: usize) -> Self {
        match axis {
            Axis::Layer => self.layer = index,
            Axis::Pos => self.pos = Some(index),
            Axis::Head => self.head = Some(index),
            Axis::Dest => self.dest = Some(index),
            Axis::Src => self.src = Some(index),
            Axis::Neuron => self.neuron = Some(index),
        }
        self
    }

    /// The site in the model.
    pub fn site(&self) -> Site {
        self.site.at(self.layer)
    }

    /// The positions of a prompt of `t` tokens at which the patch may change what the residual stream
    /// gets from this layer (for keys and values also those further right, which attend to them).
    pub fn dests(&self, t: usize) -> Range<usize> {
        match self.site {
            SiteKind::K | SiteKind::V => self.pos.unwrap_or(0)..t,
            kind if kind.is_of_pairs() => range(self.dest, t),
            _ => range(self.pos, t),
        }
    }

    /// The heads whose activation the patch changes.
    pub fn heads(&self, n_head: usize) -> Range<usize> {
        range(self.head, n_head)
    }

    /// Puts this piece of the source's activation into the base's.
    ///
    /// # Panics
    /// If the two activations have different shapes, or the piece is outside of them.
    #[track_caller]
    pub fn apply(&self, source: &Tensor, base: &mut Tensor) {
        assert!(source.shape() == base.shape(), "patch {:?} into {:?}", source.shape(), base.shape());
        let base = base.data_mut();
        for piece in self.pieces(source.shape()) {
            base[piece.clone()].copy_from_slice(&source.data()[piece]);
        }
    }
}

impl Patch {
    /// Sets this piece of an activation, or of its gradient, to 0.
    ///
    /// # Panics
    /// If the piece is outside of it.
    #[track_caller]
    pub fn clear(&self, x: &mut Tensor) {
        for piece in self.pieces(x.shape()) {
            x.data_mut()[piece].fill(0.0);
        }
    }

    /// Where the numbers of this piece lie in an activation of this shape, in ascending order.
    ///
    /// # Panics
    /// If an activation of this shape cannot be patched.
    #[track_caller]
    pub fn pieces(&self, shape: &[usize]) -> Vec<Range<usize>> {
        let mut pieces = Vec::new();
        let mut add = |row: usize, row_len: usize, columns: Range<usize>| {
            pieces.push(row * row_len + columns.start..row * row_len + columns.end);
        };
        match *shape {
            // (T, C)
            [t, c] => range(self.pos, t).for_each(|pos| add(pos, c, range(self.neuron, c))),
            // (n_head, T, T): head, dest, src
            [n_head, t, _] if self.site.is_of_pairs() => {
                for head in range(self.head, n_head) {
                    range(self.dest, t).for_each(|dest| add(head * t + dest, t, range(self.src, t)));
                }
            }
            // (T, n_head, head_size)
            [t, n_head, head_size] => {
                for pos in range(self.pos, t) {
                    range(self.head, n_head)
                        .for_each(|head| add(pos * n_head + head, head_size, 0..head_size));
                }
            }
            _ => panic!("an activation of shape {shape:?} cannot be patched"),
        }
        pieces
    }
}

/// One index, or all of them.
fn range(one: Option<usize>, all: usize) -> Range<usize> {
    match one {
        Some(i) => i..i + 1,
        None => 0..all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(patch: Patch, shape: &[usize]) -> Vec<usize> {
        let n = shape.iter().product();
        let mut base = Tensor::zeros(shape);
        patch.apply(&Tensor::new(shape, vec![1.0; n]), &mut base);
        (0..n).filter(|&i| base.data()[i] == 1.0).collect()
    }

    #[test]
    fn a_patch_changes_its_own_piece_and_nothing_else() {
        let whole = |site| Patch::whole(site, 0);
        assert_eq!(changed(Patch::at_pos(SiteKind::ResidPost, 0, 1), &[3, 2]), [2, 3]);
        let z = whole(SiteKind::Z);
        assert_eq!(changed(z.narrowed(Axis::Head, 1), &[2, 2, 2]), [2, 3, 6, 7]);
        assert_eq!(changed(z.narrowed(Axis::Head, 1).narrowed(Axis::Pos, 1), &[2, 2, 2]), [6, 7]);
        let pattern = whole(SiteKind::Pattern).narrowed(Axis::Head, 1);
        assert_eq!(changed(pattern, &[2, 2, 2]), [4, 5, 6, 7]);
        assert_eq!(changed(pattern.narrowed(Axis::Dest, 1), &[2, 2, 2]), [6, 7]);
        assert_eq!(changed(pattern.narrowed(Axis::Dest, 1).narrowed(Axis::Src, 0), &[2, 2, 2]), [6]);
        assert_eq!(changed(pattern.narrowed(Axis::Src, 0), &[2, 2, 2]), [4, 6]);
        let neuron = whole(SiteKind::MlpPost).narrowed(Axis::Neuron, 2);
        assert_eq!(changed(neuron, &[2, 3]), [2, 5]);
        assert_eq!(changed(neuron.narrowed(Axis::Pos, 1), &[2, 3]), [5]);
    }
}
