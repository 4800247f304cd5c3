//! Checks what is published of patching whole blocks, and of its prediction.

use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Gpt2, Pretrained};
use patching::prompts::{Bootstrap, Pair, Part, PromptSet, average_on};
use patching::{
    Agreement, Direction, Endpoints, Engine, Grid, Method, Metric, Scale, SiteKind, Sweep, attribute,
};

use super::published::{BLOCKS_TOLERANCE, Blocks};
use super::{Check, Lines};
use crate::failure::Failure;

/// The names of the three numbers of a cell.
const NAMES: [&str; 3] = ["exact", "atp", "relp"];

/// Checks the sweeps of some sites, and what `atp` and `relp` predict of them.
pub fn check_blocks(
    model: &Pretrained,
    processed: &Gpt2,
    blocks: &[Blocks],
    lines: &mut Lines,
) -> Result<(), Failure> {
    let pairs = PromptSet::ioi_tutorial().tokenize(model, Some(END_OF_TEXT), Direction::Denoising)?;
    for Blocks { site, cells, pearson } in blocks {
        let means = means(processed, &pairs, *site)?;
        lines.group(&format!("{site} patched, mean of the eight prompts, normalised"))?;
        for ((layer, pos), figures) in cells {
            for ((name, figure), mean) in NAMES.iter().zip(figures).zip(&means) {
                let got = f64::from(mean.at(&[*layer, *pos]));
                let check = Check::number(figure, got, BLOCKS_TOLERANCE);
                lines.add(&format!("{name}, layer {layer}, position {pos}"), check)?;
            }
        }
        for ((name, mean), figure) in NAMES.iter().zip(&means).skip(1).zip(pearson) {
            let agreement = Agreement::of(&means[0].values, &mean.values);
            let check = Check::number(figure, agreement.pearson, BLOCKS_TOLERANCE);
            lines.add(&format!("Pearson's correlation, {name}"), check)?;
        }
    }
    Ok(())
}

/// The mean over some pairs of the sweep of a site, and of its predictions by `atp` and `relp`.
pub fn means(model: &Gpt2, pairs: &[Pair], site: SiteKind) -> Result<[Grid; 3], Failure> {
    let mut done: [Vec<(Grid, Endpoints)>; 3] = Default::default();
    for pair in pairs {
        let metric = Metric::LogitDiff { a: &pair.a, b: &pair.b };
        let sweep = [Sweep::over(&pair.experiment, site)];
        let outcome = sweep[0].run(model, metric, Engine::default(), &|_| {});
        let ends = outcome.ends(pair.experiment.direction());
        done[0].push((outcome.grid, ends));
        for (done, method) in done[1..].iter_mut().zip([Method::Atp, Method::Relp]) {
            for predicted in attribute(model, &sweep, metric, method, &|_| {})? {
                done.push((predicted.values()?, ends));
            }
        }
    }
    let mean = |done: &Vec<(Grid, Endpoints)>| {
        let parts = pairs.iter().zip(done);
        let parts: Vec<Part<'_>> =
            parts.map(|(pair, (grid, ends))| Part::new(pair, grid).with_ends(*ends)).collect();
        // (The interval is not looked at.)
        let interval = Bootstrap { resamples: 1, ..Bootstrap::default() };
        average_on(Scale::Normalized, &parts, None, interval).map(|average| average.mean)
    };
    let [exact, atp, relp] = &done;
    Ok([mean(exact)?, mean(atp)?, mean(relp)?])
}
