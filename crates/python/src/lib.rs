//! The native half of the Python package `gpt2_patching`: arguments in, plain data out.
//!
//! One file a subject. `running.rs` computes without the interpreter's lock, and says how work is stopped; `study.rs`
//! is what every study returns. The other files turn arguments into calls of the libraries. Nothing is computed here.
//! What users call is in `python/gpt2_patching`, which has the documentation.

mod attribute;
mod circuit;
mod failure;
mod looking;
mod metric;
mod model;
mod pairs;
mod path;
mod running;
mod study;
mod sweep;

/// The native half of gpt2_patching.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::attribute::attribute;
    #[pymodule_export]
    use crate::circuit::{Circuit, circuit, judge, read_circuit};
    #[pymodule_export]
    use crate::looking::{composition, detect_heads, head_scores, logit_lens, score_text};
    #[pymodule_export]
    use crate::metric::Metric;
    #[pymodule_export]
    use crate::model::{Model, site_name, site_names};
    #[pymodule_export]
    use crate::pairs::{Pairs, PromptSet};
    #[pymodule_export]
    use crate::path::path_patch;
    #[pymodule_export]
    use crate::study::Study;
    #[pymodule_export]
    use crate::sweep::{ablate, sweep, sweep_ends};

    #[pymodule_init]
    fn version(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
