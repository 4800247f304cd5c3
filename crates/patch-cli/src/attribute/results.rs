//! The grids of `attribute`: what was predicted, what is exact, and the magnitudes.

use figures::Scatter;
use patching::{Attributed, Endpoints, Method, Outcome, SiteKind};

use super::Args;
use crate::export::{Grid, Study};
use crate::failure::Failure;
use crate::given;
use crate::metric::NamedMetric;
use crate::pairs::{Pairs, ReadyPair, missing_in_words, unpatched_in_words};
use crate::processing::Studied;
use crate::selection::{axis_labels, sites_in_words};

/// What came out, site by site.
pub struct Results<'a> {
    pub args: &'a Args,
    pub method: Method,
    pub pairs: &'a Pairs,
    pub sites: Vec<SiteKind>,
    /// The unpatched runs of each pair.
    pub ends: Vec<Endpoints>,
    /// For each kind the grids of each pair, site by site.
    kinds: Vec<(Kind, Vec<Vec<Done>>)>,
}

/// One of the grids of a pair.
struct Done {
    grid: patching::Grid,
    ends: Endpoints,
    missing: usize,
}

/// What is shown of each site.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Attribution,
    Exact,
    /// The mean of the absolute predictions, over many pairs.
    Magnitude,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Attribution => "attribution",
            Self::Exact => "exact",
            Self::Magnitude => "magnitude",
        }
    }
}

impl<'a> Results<'a> {
    /// The grids on the scales of their pairs.
    pub fn new(
        args: &'a Args,
        method: Method,
        pairs: &'a Pairs,
        (predicted, exact): (&[Vec<Attributed>], Option<Vec<Vec<Outcome>>>),
    ) -> Result<Self, Failure> {
        let mut kinds = vec![(Kind::Attribution, scaled(pairs, predicted)?)];
        if let Some(exact) = exact {
            kinds.push((Kind::Exact, exact_on_scale(pairs, exact)?));
        }
        if pairs.many {
            let done = |it: &Attributed| Done { grid: it.magnitudes(), ends: it.ends(), missing: it.missing };
            let magnitudes = predicted.iter().map(|of_pair| of_pair.iter().map(done).collect()).collect();
            kinds.push((Kind::Magnitude, magnitudes));
        }
        let ends = predicted.iter().flat_map(|of_pair| of_pair.first()).map(Attributed::ends).collect();
        Ok(Self { args, method, pairs, sites: args.selection.kinds(), ends, kinds })
    }

    /// What a grid is called: by its kind, and where there are several sites by its site.
    pub fn name(&self, kind: Kind, site: SiteKind) -> String {
        match self.sites.len() {
            1 => kind.name().to_owned(),
            _ => format!("{}_{site}", kind.name()),
        }
    }

    /// The names of the grids that are drawn, site by site.
    pub fn names(&self) -> Vec<String> {
        let of_site = |&site: &SiteKind| self.kinds.iter().map(move |(kind, _)| self.name(*kind, site));
        self.sites.iter().flat_map(of_site).collect()
    }

    /// All grids, with what made them.
    pub fn study(&self, studied: &Studied) -> Result<Study, Failure> {
        let (mut by_pair, mut averages) = (Vec::new(), Vec::new());
        for (i, &site) in self.sites.iter().enumerate() {
            for (kind, done) in &self.kinds {
                let done: Vec<&Done> = done.iter().map(|of_pair| &of_pair[i]).collect();
                if self.pairs.many {
                    averages.push(self.average(*kind, site, &done)?);
                }
                // (Of one pair, the magnitude is the absolute value of its attribution.)
                if *kind != Kind::Magnitude {
                    let pairs = self.pairs.list.iter().zip(done);
                    by_pair.extend(pairs.map(|(pair, done)| self.of_pair(*kind, site, pair, done)));
                }
            }
        }
        let (args, sites) = (self.args, sites_in_words(&self.sites));
        let facts = [
            ("site", sites.clone()),
            ("method", format!("{:?}", self.method)),
            ("given", given::in_words(&args.given)),
        ];
        let bos = args.model.bos(&studied.pretrained)?;
        let computation = self.pairs.computation(bos, args.engine.engine, &args.set, facts);
        let provenance = self.pairs.provenance(studied, computation)?;
        let base = args.pair.base_name();
        let title = format!("Attribution ({}) of {sites} patched into the {base} run", self.method);
        let (_, study) = self.pairs.studies(&title, provenance, by_pair, averages);
        Ok(study)
    }

    /// The words around a grid.
    fn words(&self, kind: Kind, site: SiteKind, label: String, metric: &NamedMetric) -> Grid {
        Grid {
            name: self.name(kind, site),
            title: format!("{}, {site}", kind.name()),
            value_label: match kind {
                Kind::Attribution => format!("predicted {label}"),
                Kind::Exact => label,
                Kind::Magnitude => format!("magnitude of the predicted {label}"),
            },
            center: metric.center(),
            legend: metric.colors(self.args.pair.base_name()).into_iter().collect(),
            ..Grid::default()
        }
    }

    /// The mean over the pairs, and the ends of its interval.
    fn average(&self, kind: Kind, site: SiteKind, done: &[&Done]) -> Result<[Grid; 3], Failure> {
        let words = self.words(kind, site, self.pairs.label.clone(), &self.pairs.first().metric);
        let words = self.pairs.with_missing(words, done.iter().map(|done| done.missing));
        let of_pairs = done.iter().map(|done| (&done.grid, done.ends));
        self.pairs.average(&self.args.set, of_pairs, words)
    }

    fn of_pair(&self, kind: Kind, site: SiteKind, pair: &ReadyPair, done: &Done) -> Grid {
        let metric = self.pairs.metric_of_pair(pair);
        let words = self.words(kind, site, metric.label(), &metric);
        let unpatched = unpatched_in_words(metric.shown_unpatched(done.ends));
        let legend = words.legend.into_iter().chain([unpatched]).chain(missing_in_words(done.missing));
        Grid {
            name: self.pairs.name_of_grid(&self.name(kind, site), pair),
            axes: axis_labels(&done.grid.axes, &done.grid.places, &pair.base().tokens),
            values: done.grid.values.clone(),
            legend: legend.collect(),
            ..words
        }
    }

    /// The predictions against the exact numbers of a study; none if it has no exact ones. The points of one site
    /// are grouped by layer, those of several by site.
    pub fn scatter(&self, study: &Study, agreements: &[String]) -> Option<Scatter> {
        let mut scatter = Scatter {
            title: study.title.clone(),
            subtitle: study.subtitle.iter().chain(agreements).cloned().collect(),
            legend: vec!["On the line the prediction is exact.".to_owned()],
            ..Scatter::default()
        };
        for &site in &self.sites {
            let predicted = study.grid(&self.name(Kind::Attribution, site))?;
            let exact = study.grid(&self.name(Kind::Exact, site))?;
            let mut exact = exact.clone();
            exact.values = self.method.predicts(&exact.values);
            scatter.x_label = format!("exact: {}", exact.value_label);
            scatter.y_label.clone_from(&predicted.value_label);
            match self.sites.len() {
                1 => scatter.groups = Scatter::by_layer(&exact, predicted),
                _ => scatter.groups.push((site.to_string(), Scatter::points(&exact, predicted))),
            }
        }
        Some(scatter)
    }
}

/// The predictions of each pair on its scale.
fn scaled(pairs: &Pairs, predicted: &[Vec<Attributed>]) -> Result<Vec<Vec<Done>>, Failure> {
    let of_pair = |(pair, predicted): (&ReadyPair, &Vec<Attributed>)| {
        let scale = pairs.metric_of_pair(pair).scale;
        let done = |attributed: &Attributed| {
            let grid = attributed.on(scale)?;
            Ok(Done { grid, ends: attributed.ends(), missing: attributed.missing })
        };
        predicted.iter().map(done).collect()
    };
    pairs.list.iter().zip(predicted).map(of_pair).collect()
}

/// The exact numbers of each pair on its scale.
fn exact_on_scale(pairs: &Pairs, exact: Vec<Vec<Outcome>>) -> Result<Vec<Vec<Done>>, Failure> {
    let of_pair = |(pair, outcomes): (&ReadyPair, Vec<Outcome>)| {
        let scale = pairs.metric_of_pair(pair).scale;
        let done = |mut outcome: Outcome| {
            let ends = outcome.ends(pairs.direction);
            scale.apply(&mut outcome.grid.values, ends)?;
            Ok(Done { grid: outcome.grid, ends, missing: outcome.missing })
        };
        outcomes.into_iter().map(done).collect()
    };
    pairs.list.iter().zip(exact).map(of_pair).collect()
}
