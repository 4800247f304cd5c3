//! One activation, or one piece of it, that is put into the other run.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use gpt2::Site;
use tensor::Tensor;

use crate::Axis;

/// The kinds of activation that can be patched, each in every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// The residual stream as it enters a block.
    ResidPre,
    /// The residual stream between attention and MLP.
    ResidMid,
    /// The residual stream as it leaves a block.
    ResidPost,
    /// What attention adds to the residual stream.
    AttnOut,
    /// What the MLP adds to the residual stream.
    MlpOut,
    /// What a head has gathered.
    Z,
    /// A head's queries.
    Q,
    /// A head's keys.
    K,
    /// A head's values.
    V,
    /// A head's attention pattern.
    Pattern,
}

impl SiteKind {
    /// All kinds.
    pub const ALL: [Self; 10] = [
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
    ];

    /// The site of this kind in one layer.
    pub fn at(self, layer: usize) -> Site {
        match self {
            Self::ResidPre => Site::ResidPre(layer),
            Self::ResidMid => Site::ResidMid(layer),
            Self::ResidPost => Site::ResidPost(layer),
            Self::AttnOut => Site::AttnOut(layer),
            Self::MlpOut => Site::MlpOut(layer),
            Self::Z => Site::Z(layer),
            Self::Q => Site::Q(layer),
            Self::K => Site::K(layer),
            Self::V => Site::V(layer),
            Self::Pattern => Site::Pattern(layer),
        }
    }

    /// The axes along which an activation of this kind can be cut into pieces, the layer first. A
    /// sweep runs along some or all of them.
    pub fn axes(self) -> &'static [Axis] {
        match self {
            Self::ResidPre | Self::ResidMid | Self::ResidPost | Self::AttnOut | Self::MlpOut => {
                &[Axis::Layer, Axis::Pos]
            }
            Self::Z | Self::Q | Self::K | Self::V => &[Axis::Layer, Axis::Pos, Axis::Head],
            Self::Pattern => &[Axis::Layer, Axis::Head, Axis::Dest, Axis::Src],
        }
    }

    /// The axes of the usual sweep: layer × position, or layer × head.
    pub fn default_axes(self) -> &'static [Axis] {
        match self.axes() {
            axes @ [_, _] => axes,
            _ => &[Axis::Layer, Axis::Head],
        }
    }
}

impl fmt::Display for SiteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ResidPre => "resid_pre",
            Self::ResidMid => "resid_mid",
            Self::ResidPost => "resid_post",
            Self::AttnOut => "attn_out",
            Self::MlpOut => "mlp_out",
            Self::Z => "z",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Pattern => "pattern",
        })
    }
}

impl FromStr for SiteKind {
    type Err = String;

    /// The name of a kind; TransformerLens's spelling `hook_resid_post` is taken as well.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = lower.strip_prefix("hook_").unwrap_or(&lower);
        Self::ALL.into_iter().find(|kind| kind.to_string() == name).ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(SiteKind::to_string).collect();
            format!("there is no site \"{text}\"; give one of {}", all.join(", "))
        })
    }
}

/// A head by its layer and its number there, both from 0. As text it is `5.1`: head 1 of layer 5. `L5H1`
/// (TransformerLens) and `a5.h1` (circuits) are read as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Head {
    /// The layer.
    pub layer: usize,
    /// The head within its layer.
    pub head: usize,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.layer, self.head))
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
            true => text.parse().ok(),
            false => None,
        };
        let lower = text.to_ascii_lowercase();
        let lower = lower.strip_prefix(['l', 'a']).unwrap_or(&lower);
        let parts = [".h", ".", "h"].iter().find_map(|between| lower.split_once(between));
        match parts.map(|(layer, head)| (digits(layer), digits(head))) {
            Some((Some(layer), Some(head))) => Ok(Self { layer, head }),
            _ => Err(format!(
                "invalid head \"{text}\": expected LAYER.HEAD, such as 5.1 for head 1 of layer 5"
            )),
        }
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
}

impl Patch {
    /// A whole activation: every position and head.
    pub fn whole(site: SiteKind, layer: usize) -> Self {
        Self { site, layer, pos: None, head: None, dest: None, src: None }
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
        }
        self
    }

    /// The site in the model.
    pub fn site(&self) -> Site {
        self.site.at(self.layer)
    }

    /// The positions of a prompt of `t` tokens at which the patch may change what the residual stream
    /// gets from this layer (for keys and values also those further right, which attend to them).
    pub(crate) fn dests(&self, t: usize) -> Range<usize> {
        match self.site {
            SiteKind::K | SiteKind::V => self.pos.unwrap_or(0)..t,
            SiteKind::Pattern => range(self.dest, t),
            _ => range(self.pos, t),
        }
    }

    /// The heads whose activation the patch changes.
    pub(crate) fn heads(&self, n_head: usize) -> Range<usize> {
        range(self.head, n_head)
    }

    /// Puts this piece of the source's activation into the base's.
    ///
    /// # Panics
    /// If the two activations have different shapes, or the piece is outside of them.
    #[track_caller]
    pub fn apply(&self, source: &Tensor, base: &mut Tensor) {
        assert!(source.shape() == base.shape(), "patch {:?} into {:?}", source.shape(), base.shape());
        match *source.shape() {
            // (T, C)
            [t, _] => {
                for pos in range(self.pos, t) {
                    base.row_mut(pos).copy_from_slice(source.row(pos));
                }
            }
            // (n_head, T, T): head, dest, src
            [n_head, t, _] if self.site == SiteKind::Pattern => {
                for head in range(self.head, n_head) {
                    for dest in range(self.dest, t) {
                        let row = head * t + dest;
                        let src = range(self.src, t);
                        base.row_mut(row)[src.clone()].copy_from_slice(&source.row(row)[src]);
                    }
                }
            }
            // (T, n_head, head_size)
            [t, n_head, _] => {
                for pos in range(self.pos, t) {
                    for head in range(self.head, n_head) {
                        let row = pos * n_head + head;
                        base.row_mut(row).copy_from_slice(source.row(row));
                    }
                }
            }
            _ => panic!("an activation of shape {:?} cannot be patched", source.shape()),
        }
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
    fn heads_are_read_in_the_spellings_of_other_tools() {
        let head = Head { layer: 9, head: 11 };
        for text in ["9.11", "L9H11", "l9h11", "a9.h11", "A9.H11", "9h11", "L9.11"] {
            assert_eq!(text.parse(), Ok(head), "{text}");
        }
        assert_eq!(head.to_string(), "9.11");
        for text in ["", "9", "L9", "9.", ".1", "h1", "9.-1", "+9.1", "m9", "9.1.2", "aL9H1", "９.1"] {
            let error = text.parse::<Head>().unwrap_err();
            assert!(error.contains("expected LAYER.HEAD"), "{text}: {error}");
        }
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
    }

    #[test]
    fn sites_are_read_by_their_names_and_transformer_lenss() {
        for kind in SiteKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert_eq!("hook_z".parse(), Ok(SiteKind::Z));
        let error = "resid".parse::<SiteKind>().unwrap_err();
        assert!(error.contains("\"resid\"; give one of resid_pre, resid_mid"), "{error}");
    }
}
