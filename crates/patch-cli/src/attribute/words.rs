//! The report of `attribute`.

use patching::attribution::{errors, largest};
use patching::{Agreement, Endpoints, Method, SiteKind};
use report::Report;

use super::SCATTER;
use super::results::{Kind, Results};
use crate::export::{Grid, Study, place_in_words};
use crate::failure::Failure;
use crate::output::Output;
use crate::processing::Studied;
use crate::study::PICTURE;

impl Results<'_> {
    /// Everything that is said, and the pictures.
    pub fn report(&self, studied: &Studied, pictures: &[(&'static str, Output)]) -> Result<Report, Failure> {
        let study = self.study(studied)?;
        let mut report = studied.report()?;
        self.say_what(&mut report, studied, pictures)?;
        report.draw(PICTURE, &self.names().iter().map(String::as_str).collect::<Vec<_>>());
        report.show(PICTURE);
        let agreements = self.say_agreement(&mut report, &study)?;
        if let Some(scatter) = self.scatter(&study, &agreements) {
            report.draw_figure(SCATTER, scatter);
        }
        report.study = Some(study);
        Ok(report)
    }

    /// The method, the prompts and their unpatched runs.
    fn say_what(
        &self,
        report: &mut Report,
        studied: &Studied,
        pictures: &[(&'static str, Output)],
    ) -> Result<(), Failure> {
        let Self { args, method, pairs, .. } = self;
        let (model, direction) = (&studied.pretrained, args.pair.direction);
        let bos = args.model.bos(model)?;
        report.fact("bos", bos.is_some())?;
        report.fact("direction", direction.to_string())?;
        report.fact("method", method.to_string())?;
        if let Method::Ig { steps } = method {
            report.fact("steps", steps)?;
        }
        for (name, key) in [(PICTURE, "image"), (SCATTER, "scatter")] {
            if let Some((_, output)) = pictures.iter().find(|(picture, _)| *picture == name) {
                report.fact(key, output.path().display().to_string())?;
            }
        }
        if pairs.many {
            report.line(format!("{} pairs, the first of which is", pairs.list.len()));
        }
        let (clean, corrupted) = (pairs.first().clean.row(), pairs.first().corrupted.row());
        report.line(format!("clean      {clean}\ncorrupted  {corrupted}"));
        report.line(args.model.bos_in_words(model, bos));
        report.line(format!("\nmodel      {}", studied.label()));
        report.line(format!("method     {method}, {direction}"));
        report.line(format!("metric     {}", pairs.label));
        if pairs.many {
            report.line(format!("           {}", pairs.mean_in_words()));
        }
        pairs.say_ends(report, &self.ends, args.engine.engine)?;
        report.fact("base_metric", Endpoints::mean(&self.ends, |ends| ends.base))?;
        report.fact("source_metric", Endpoints::mean(&self.ends, Endpoints::source))?;
        Ok(())
    }

    /// The largest predictions of each site, beside the exact numbers if there are any, and how well they agree:
    /// in words, which are given back.
    fn say_agreement(&self, report: &mut Report, study: &Study) -> Result<Vec<String>, Failure> {
        let (mut agreements, mut words) = (Vec::new(), Vec::new());
        for &site in &self.sites {
            let Some(predicted) = study.grid(&self.name(Kind::Attribution, site)) else { continue };
            let Some(exact) = study.grid(&self.name(Kind::Exact, site)) else {
                say_largest(report, site, predicted, self.args.top);
                continue;
            };
            let exact = self.method.predicts(&exact.values);
            let agreement = Agreement::of(&exact, &predicted.values);
            let line = format!(
                "{site}: Pearson {:.4}, Spearman {:.4}, largest error {:.4}, over {} cells",
                agreement.pearson, agreement.spearman, agreement.largest_error, agreement.n
            );
            report.line(format!("\n{line}"));
            say_disagreement(report, &exact, predicted, self.args.top);
            words.push(line);
            agreements.push(agreement);
        }
        let mut fact = |key: &str, of: fn(&Agreement) -> f64| match &agreements[..] {
            [] => Ok(()),
            [agreement] if self.sites.len() == 1 => report.fact(key, of(agreement)),
            several => report.fact(key, several.iter().map(of).collect::<Vec<f64>>()),
        };
        fact("pearson", |agreement| agreement.pearson)?;
        fact("spearman", |agreement| agreement.spearman)?;
        fact("largest_error", |agreement| agreement.largest_error)?;
        Ok(words)
    }
}

fn say_largest(report: &mut Report, site: SiteKind, predicted: &Grid, top: usize) {
    report.line(format!("\nlargest predicted effects, {site}"));
    for cell in largest(&predicted.values, top) {
        report.line(format!("{:>+9.4}  {}", predicted.values[cell], place_in_words(predicted, cell)));
    }
}

fn say_disagreement(report: &mut Report, exact: &[f32], predicted: &Grid, top: usize) {
    report.line("predicted     exact  where they disagree most");
    for cell in largest(&errors(exact, &predicted.values), top) {
        let place = place_in_words(predicted, cell);
        report.line(format!("{:>+9.4} {:>+9.4}  {place}", predicted.values[cell], exact[cell]));
    }
}
