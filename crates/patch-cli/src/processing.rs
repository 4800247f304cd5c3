//! The options that rewrite a model's weights before a study looks at it ([`lens::processing`]).

use gpt2::tokenizer::parse_ids;
use gpt2::{Gpt2, Pretrained};
use grids::sha256;
use lens::processing::{Flags, process};

use crate::common::ModelArgs;
use crate::computation::{Computation, checksum_of_tokens};
use crate::export::{Checksums, MadeHere, NamedText, Provenance};
use crate::failure::Failure;
use crate::names;

/// The heading of these options in the help.
const HEADING: &str = "Weight processing (log probabilities stay as they are)";

/// Arguments of the studies that can look at processed weights ([`lens::processing`]).
#[derive(clap::Args)]
pub struct ProcessArgs {
    /// Take all five steps below; `default` is what TransformerLens does by itself: all but
    /// --refactor-factored
    #[arg(
        long,
        help_heading = HEADING,
        value_name = "all|default",
        value_parser = names::processing(),
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "all"
    )]
    process: Option<Flags>,

    /// Move each layer norm's weight and bias into the matrices that read it
    #[arg(long, help_heading = HEADING)]
    fold_ln: bool,

    /// Give everything that is written to the residual stream the mean 0
    #[arg(long, help_heading = HEADING)]
    center_writing: bool,

    /// Give the logits the mean 0 over the vocabulary
    #[arg(long, help_heading = HEADING)]
    center_unembed: bool,

    /// Move the values' biases to the attention's output
    #[arg(long, help_heading = HEADING)]
    fold_value_biases: bool,

    /// Make W_Q, W_K and W_V, W_O orthogonal factors of the same products
    #[arg(long, help_heading = HEADING)]
    refactor_factored: bool,
}

impl ProcessArgs {
    fn flags(&self) -> Flags {
        let set = self.process.unwrap_or(Flags::NONE);
        Flags {
            fold_ln: set.fold_ln || self.fold_ln,
            center_writing_weights: set.center_writing_weights || self.center_writing,
            center_unembed: set.center_unembed || self.center_unembed,
            fold_value_biases: set.fold_value_biases || self.fold_value_biases,
            refactor_factored_attn_matrices: set.refactor_factored_attn_matrices || self.refactor_factored,
        }
    }

    /// Loads the model, and takes the steps that were asked for. Its checksums are those on record.
    pub fn load(&self, args: &ModelArgs) -> Result<Studied, Failure> {
        let mut pretrained = args.load()?;
        let flags = self.flags();
        if flags != Flags::NONE {
            pretrained.model = process(&pretrained.model, flags);
        }
        Ok(Studied { processing: steps(flags), checksums: Checksums::on_record(&pretrained), pretrained })
    }

    /// As [`ProcessArgs::load`], with the checksums of all weights if the study is exported to files or
    /// printed as JSON.
    pub fn load_for_study(&self, args: &ModelArgs, exported: bool) -> Result<Studied, Failure> {
        let mut studied = self.load(args)?;
        if exported || args.json {
            studied.checksums = Checksums::of_all(&studied.pretrained)?;
        }
        Ok(studied)
    }
}

/// The steps by TransformerLens's names.
fn steps(flags: Flags) -> Vec<&'static str> {
    [
        (flags.fold_ln, "fold_ln"),
        (flags.center_writing_weights, "center_writing_weights"),
        (flags.center_unembed, "center_unembed"),
        (flags.fold_value_biases, "fold_value_biases"),
        (flags.refactor_factored_attn_matrices, "refactor_factored_attn_matrices"),
    ]
    .into_iter()
    .filter_map(|(taken, name)| taken.then_some(name))
    .collect()
}

/// A model that a study looks at.
pub struct Studied {
    /// The model, with processed weights if any step was asked for.
    pub pretrained: Pretrained,
    /// The steps that were taken.
    pub processing: Vec<&'static str>,
    /// The checksums of its weights.
    checksums: Checksums,
}

impl Studied {
    /// What is looked at.
    pub fn model(&self) -> &Gpt2 {
        &self.pretrained.model
    }

    /// What made numbers of this model and these prompts, and what determines them
    /// ([`crate::computation::computation`]). To be asked for after the work, beside which the checksums
    /// are computed.
    ///
    /// # Errors
    /// As [`Checksums::by_name`].
    pub fn provenance(
        &self,
        prompts: Vec<NamedText>,
        computation: Computation,
    ) -> Result<Provenance, Failure> {
        let processing = self.processing.iter().map(|step| (*step).to_owned());
        let provenance = Provenance {
            model_checksum: self.checksums.by_name()?,
            processing: processing.collect(),
            ..Provenance::new(&self.pretrained, prompts)
        };
        match self.checksums.are_complete {
            true => {
                let all = self.with_model(computation, &provenance);
                Ok(provenance.of_computation(all))
            }
            false => Ok(provenance),
        }
    }

    /// Adds to a study's computation what it owes to the model.
    fn with_model(&self, mut all: Computation, provenance: &Provenance) -> Computation {
        let Pretrained { model, tokenizer, .. } = &self.pretrained;
        let mut insert = |name: &str, value: String| {
            all.entry(name.to_owned()).or_insert(value);
        };
        let checksums: Vec<&String> = provenance.model_checksum.values().collect();
        insert(
            "weights",
            match checksums[..] {
                [one] => one.clone(),
                _ => sha256(checksums),
            },
        );
        insert("config", sha256([format!("{:?}", model.config)]));
        insert(
            "processing",
            match &self.processing[..] {
                [] => "none".to_owned(),
                steps => steps.join(", "),
            },
        );
        // (A model without a tokenizer has its prompts as ids.)
        let ids = |prompt: &NamedText| {
            let of_text = || tokenizer.encode(&prompt.text).ok();
            parse_ids(&prompt.text).ok().or_else(of_text).unwrap_or_default()
        };
        let ids: Vec<Vec<u32>> = provenance.prompts.iter().map(ids).collect();
        insert("tokens", checksum_of_tokens(ids.iter().map(Vec::as_slice)));
        all
    }

    /// Its name, and what was done to its weights.
    pub fn label(&self) -> String {
        match self.processing.as_slice() {
            [] => self.pretrained.name.clone(),
            steps => format!("{}, {}", self.pretrained.name, steps.join(", ")),
        }
    }
}
