//! What is published of GPT-2 small, for [`verify`](super).
//!
//! Figures stand here as they were printed, and hold to 0.6 of the last printed digit: half of one
//! is the rounding, and the rest is for `f32` sums in another order.
//!
//! A later study adds its published numbers here.

use patching::SiteKind;

/// A prompt, with `<|endoftext|>` in front or not, and what is published of the next token.
pub struct NextToken {
    pub prompt: &'static str,
    pub bos: bool,
    pub figures: &'static [Figure],
}

/// One published figure of the next token.
pub enum Figure {
    /// The logit of a token above the mean of all logits, as TransformerLens prints it, which
    /// centres the unembedding.
    Logit(&'static str, &'static str),
    /// The probability of a token in percent.
    Percent(&'static str, &'static str),
    /// The probability of a token.
    Prob(&'static str, &'static str),
    /// The logit of the first token minus that of the second.
    LogitDiff([&'static str; 2], &'static str),
    /// The most likely token.
    MostLikely(&'static str),
    /// So many of the most likely tokens are those whose probabilities stand here.
    NoOtherAmong(usize),
}

use Figure::{Logit, LogitDiff, MostLikely, NoOtherAmong, Percent, Prob};

/// The figures of single prompts, from the notebooks and documentation of TransformerLens and
/// Hugging Face transformers.
pub const NEXT_TOKEN: [NextToken; 4] = [
    NextToken {
        prompt: MAIN_PROMPT,
        bos: false,
        figures: &[
            Prob(" was", "0.1634"),
            Prob(" Jones", "0.1396"),
            Prob("'s", "0.0806"),
            Prob(" had", "0.0491"),
            Prob(" is", "0.0229"),
            Prob(" and", "0.0227"),
            Prob(",", "0.0222"),
            Prob(" said", "0.0134"),
            Prob(" has", "0.0120"),
            Prob(" also", "0.0117"),
            Prob(" came", "0.0091"),
            Prob(" told", "0.0084"),
            Prob(" didn", "0.0070"),
            Prob(" knew", "0.0067"),
            Prob(" went", "0.0061"),
            Prob(" would", "0.0061"),
            Prob(" worked", "0.0055"),
            Prob(" did", "0.0054"),
            Prob(" Obama", "0.0053"),
            Prob(" wasn", "0.0050"),
            NoOtherAmong(20),
            MostLikely(" was"),
        ],
    },
    NextToken {
        prompt: "After John and Mary went to the store, John gave a bottle of milk to",
        bos: true,
        figures: &[
            Logit(" Mary", "18.09"),
            Percent(" Mary", "70.07"),
            Logit(" the", "15.38"),
            Logit(" John", "15.35"),
            Logit(" them", "15.25"),
            MostLikely(" Mary"),
        ],
    },
    NextToken {
        prompt: "Her name was Alex Hart. When Alex",
        bos: true,
        figures: &[
            Logit(" was", "16.23"),
            Percent(" was", "27.03"),
            Logit(" Hart", "15.53"),
            Percent(" Hart", "13.43"),
            Logit(" died", "14.35"),
            Logit(" came", "14.05"),
            Logit(" told", "14.04"),
            MostLikely(" was"),
        ],
    },
    NextToken { prompt: "Famous computer scientist Alan", bos: true, figures: &[MostLikely(" Turing")] },
];

/// The clean prompt of the main job.
pub const MAIN_PROMPT: &str = "Michelle Jones was a top-notch student. Michelle";

/// The indirect objects of TransformerLens's notebook, `<|endoftext|>` in front.
pub const INDIRECT_OBJECTS: [NextToken; 8] = [
    indirect_object(
        "When John and Mary went to the shops, John gave the bag to",
        &[LogitDiff([" Mary", " John"], "3.337")],
    ),
    indirect_object(
        "When John and Mary went to the shops, Mary gave the bag to",
        &[LogitDiff([" John", " Mary"], "3.202")],
    ),
    indirect_object(
        "When Tom and James went to the park, James gave the ball to",
        &[LogitDiff([" Tom", " James"], "2.709")],
    ),
    indirect_object(
        "When Tom and James went to the park, Tom gave the ball to",
        &[LogitDiff([" James", " Tom"], "3.797")],
    ),
    indirect_object(
        "When Dan and Sid went to the shops, Sid gave an apple to",
        &[LogitDiff([" Dan", " Sid"], "1.720")],
    ),
    indirect_object(
        "When Dan and Sid went to the shops, Dan gave an apple to",
        &[LogitDiff([" Sid", " Dan"], "5.281")],
    ),
    indirect_object(
        "After Martin and Amy went to the park, Amy gave a drink to",
        &[LogitDiff([" Martin", " Amy"], "2.601")],
    ),
    indirect_object(
        "After Martin and Amy went to the park, Martin gave a drink to",
        &[LogitDiff([" Amy", " Martin"], "5.767")],
    ),
];

/// Their mean.
pub const INDIRECT_OBJECTS_MEAN: &str = "3.5519";

const fn indirect_object(prompt: &'static str, figures: &'static [Figure]) -> NextToken {
    NextToken { prompt, bos: true, figures }
}

/// What greedy sampling writes after a text, without `<|endoftext|>`.
pub const GREEDY_TEXT: [&str; 2] = ["Today, I", "'m going to be doing a lot of research on this. I"];

/// What greedy sampling writes after the tokens of "The dog", as token ids.
pub const GREEDY_IDS: (&[u32], &[u32]) = (
    &[464, 3290],
    &[373, 1043, 287, 257, 2214, 1474, 262, 16246, 286, 2688, 290, 2688, 27262, 13, 198, 198, 464, 3290],
);

/// Random tokens twice over, all drawn from the whole vocabulary, and what is published of a model's
/// log probabilities and heads.
pub struct Repeated {
    pub seq_len: usize,
    pub bos: bool,
    /// How many sequences to average over.
    pub batch: usize,
    pub figures: &'static [RepeatFigure],
}

/// One published figure on repeated tokens, and how far another draw of tokens may lie from it:
/// which tokens those were is not published.
pub enum RepeatFigure {
    /// A head's score of a name that [`lens::heads::HeadScores::all`] has.
    Score { name: &'static str, head: (usize, usize), figure: &'static str, spread: f64 },
    /// The mean log probability of the first (0) or the second copy (1).
    LogProb(usize, &'static str, f64),
    /// The accuracy on the first (0) or the second copy (1).
    Accuracy(usize, &'static str, f64),
}

use RepeatFigure::{Accuracy, LogProb};

/// Random tokens of the induction article (50, one sequence) and of TransformerLens's Main Demo (100).
pub const REPEATED: [Repeated; 2] = [
    Repeated {
        seq_len: 50,
        bos: true,
        batch: 8,
        figures: &[
            LogProb(0, "-13.898", 1.0),
            LogProb(1, "-0.644", 0.4),
            Accuracy(0, "0.0", 0.02),
            Accuracy(1, "0.93", 0.07),
            score("induction", (5, 5), "0.91", 0.04),
        ],
    },
    Repeated {
        seq_len: 100,
        bos: false,
        batch: 4,
        figures: &[
            score("previous", (4, 11), "0.992142", 0.01),
            score("previous", (3, 7), "0.528597", 0.05),
            score("duplicate", (0, 5), "0.703457", 0.05),
            score("duplicate", (3, 0), "0.677566", 0.05),
            score("induction", (5, 1), "0.93061", 0.03),
            score("induction", (6, 9), "0.925779", 0.03),
            score("induction", (5, 5), "0.925597", 0.03),
            score("induction", (7, 10), "0.903781", 0.03),
            score("induction", (7, 2), "0.850993", 0.04),
        ],
    },
];

const fn score(name: &'static str, head: (usize, usize), figure: &'static str, spread: f64) -> RepeatFigure {
    RepeatFigure::Score { name, head, figure, spread }
}

/// The K-composition circuit of a previous-token head and an induction head, over all tokens, with
/// TransformerLens's default processing: the share of the tokens that find their own copy.
pub const INDUCTION_CIRCUIT: ((usize, usize), (usize, usize), &str) = ((4, 11), (5, 5), "0.2283");

/// The direct logit attribution of the indirect objects' mean logit difference, with
/// TransformerLens's default processing: layer, head and share, from its Exploratory Analysis Demo.
pub const HEAD_SHARES: [((usize, usize), &str); 6] = [
    ((9, 9), "2.98545"),
    ((10, 7), "-1.89865"),
    ((9, 6), "1.38449"),
    ((11, 10), "-0.970236"),
    ((10, 0), "0.560869"),
    ((10, 10), "0.480218"),
];

/// What is published of patching the blocks of the eight indirect objects ([`INDIRECT_OBJECTS`]), with
/// `<|endoftext|>` in front and TransformerLens's default processing: the clean activation put into the corrupted
/// run, whose names are swapped; means over the eight prompts on the scale on which the clean runs' mean is 1 and the
/// corrupted runs' is 0.
pub struct Blocks {
    pub site: SiteKind,
    /// Layer and position, the exact number, and what `atp` and `relp` predict.
    pub cells: [((usize, usize), [&'static str; 3]); 3],
    /// Pearson's correlation of the two predictions with the exact numbers, over all layers and positions.
    pub pearson: [&'static str; 2],
}

/// From the outputs of the notebooks beside arXiv 2508.21258 (FarnoushRJ/RelP, attribution_patching.ipynb and
/// lrp_patching.ipynb), which hold every cell; the correlations follow from these. (The correlations in table 1 of
/// that paper are of other prompts, which are not published: 0.753, 0.979 and 0.195 of atp, 0.968, 0.962 and 0.992
/// of relp.)
pub const BLOCKS: [Blocks; 3] = [
    Blocks {
        site: SiteKind::ResidPre,
        cells: [
            ((4, 10), ["0.9949", "0.1719", "0.3968"]),
            ((8, 14), ["0.3187", "0.2842", "0.3206"]),
            ((10, 14), ["1.0048", "1.1414", "1.2186"]),
        ],
        pearson: ["0.7350", "0.8733"],
    },
    Blocks {
        site: SiteKind::AttnOut,
        cells: [
            ((5, 10), ["0.3521", "0.2781", "0.3184"]),
            ((8, 14), ["0.5697", "0.6302", "0.6804"]),
            ((11, 14), ["-0.4062", "-0.4128", "-0.4144"]),
        ],
        pearson: ["0.9819", "0.9807"],
    },
    Blocks {
        site: SiteKind::MlpOut,
        cells: [
            ((0, 10), ["0.8508", "0.0364", "0.2271"]),
            ((5, 10), ["0.0965", "0.0659", "0.0898"]),
            ((9, 14), ["0.0316", "0.0356", "0.0374"]),
        ],
        pearson: ["0.4362", "0.9408"],
    },
];

/// How far a number of [`BLOCKS`] may lie from the published one, which was computed in `f32` on a GPU: sums of
/// thousands of terms, divided by a difference of 7 logits.
pub const BLOCKS_TOLERANCE: f64 = 1e-3;
