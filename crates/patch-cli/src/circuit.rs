//! `patch-cli circuit`: the edges that carry an answer, and how good a circuit they make ([`patching::circuit`]).

mod words;

use std::path::{Path, PathBuf};
use std::time::Instant;

use figures::page::{CircuitPage, render_circuit_page};
use gpt2::Gpt2;
use gpt2::graph::{Circuit, Edge, Graph};
use patching::circuit::judge::{Trial, Verdict, Wanted};
use patching::circuit::ranking::Known;
use patching::circuit::{By, Found, Method, Order, Replacement, Runs, Scores, Selection, acdc, file, pruned};
use patching::{Endpoints, Scale, Watch};
use serde::Serialize;
use visible::visible_line;

use crate::common::ModelArgs;
use crate::export::ExportArgs;
use crate::failure::Failure;
use crate::figure::FigureArgs;
use crate::input::read_file;
use crate::metric::MetricArgs;
use crate::names;
use crate::output::{MAKER, Output};
use crate::page::{made_by, page_output};
use crate::pairs::{PairArgs, Pairs, ReadyPair, SetArgs};
use crate::processing::ProcessArgs;
use crate::running::{EngineArgs, Interrupt, progress_bar};
use crate::study::{Outputs, PICTURE, Work, pictures};

const HELP: &str = "\
An edge is what one reader (the queries of a head, an MLP, the logits) hears of one writer (the token embeddings,
a head, an MLP). Where an edge is cut, its reader hears what the writer writes in the other run. The score of an
edge is the change of the metric if it is cut; a circuit keeps the edges that carry the answer and cuts all others.

Examples:
  patch-cli circuit --direction noising --html circuit.html
  patch-cli circuit --method exact --edges 100 --absolute --graph circuit.json
  patch-cli circuit --method acdc --threshold 0.05 --direction noising
  patch-cli circuit --prompt-set ioi --count 20 --direction noising --edges 200 --judge";

/// The name of the picture of the scores against the exact effects.
const SCATTER: &str = "scatter";

/// How many edges are chosen if nothing else is asked for.
const EDGES: usize = 50;

/// With how many random sets of nodes completeness is asked.
const SUBSETS: usize = 10;

/// The largest file of a circuit that is read: several times the one of GPT-2 XL.
const MAX_GRAPH_BYTES: u64 = 1 << 30;

/// Arguments of `circuit`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// eap: the gradient in the base run; eap-ig: averaged between the token embeddings of both runs;
    /// eap-ig-activations: between the outputs of each layer; clean-corrupted: of both runs; exact: every edge is cut by
    /// itself; acdc: edges are cut one after the other
    #[arg(long, default_value_t, value_parser = names::circuit_methods(), conflicts_with = "from")]
    method: Method,

    /// Number of runs of eap-ig, and of each output of eap-ig-activations [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: Option<u32>,

    /// What a reader hears where an edge is cut: the source run's output, zeros, or the output's mean over positions
    #[arg(long, default_value_t, value_name = "WHAT", value_parser = names::replacements())]
    ablation: Replacement,

    /// Read scores and circuit from a file in the form of EAP-IG and MIB
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Write scores and circuit to a file in that form
    #[arg(long, value_name = "FILE")]
    graph: Option<PathBuf>,

    /// Keep N edges [default: 50]
    #[arg(long, help_heading = "Choice", value_name = "N", conflicts_with = "threshold")]
    edges: Option<usize>,

    /// Keep edges of at least this score; of acdc: cut edges that move the metric by less
    #[arg(long, help_heading = "Choice", value_name = "T", allow_negative_numbers = true)]
    threshold: Option<f32>,

    /// Choose by magnitude, not by the change towards the source run's metric
    #[arg(long, help_heading = "Choice")]
    absolute: bool,

    /// Choose edge by edge from the logits on, always the best into what is there already
    #[arg(long, help_heading = "Choice", requires = "edges")]
    greedy: bool,

    /// In which order acdc tests the edges into a reader
    #[arg(long, help_heading = "Choice", default_value_t, value_parser = names::orders())]
    order: Order,

    /// Judge the circuit: faithfulness over the number of edges (CPR, CMD), completeness, minimality
    #[arg(long, help_heading = "Verdict")]
    judge: bool,

    /// Also run every edge exactly, and compare the scores with that
    #[arg(long, help_heading = "Verdict")]
    exact: bool,

    /// Compare the ranking with known heads or edges: ioi, greater-than (of GPT-2 small), or a file of names
    #[arg(long, help_heading = "Verdict", value_name = "NAME|FILE")]
    known: Option<String>,

    #[command(flatten)]
    pair: PairArgs,

    #[command(flatten)]
    metric: MetricArgs,

    #[command(flatten)]
    engine: EngineArgs,

    /// Number of edges to list
    #[arg(long, value_name = "K", default_value_t = 10)]
    top: usize,

    /// File of the picture (.png or .svg)
    #[arg(long, value_name = "FILE", default_value = "circuit.png")]
    out: PathBuf,

    /// File of the picture of scores against exact effects [default with --exact: circuit-scatter.png]
    #[arg(long, value_name = "FILE", requires = "exact")]
    scatter: Option<PathBuf>,

    /// Write a page for a browser in which edges and nodes answer to the mouse
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write the circuit for Graphviz
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,

    #[command(flatten)]
    set: SetArgs,

    #[command(flatten)]
    figure: FigureArgs,

    #[command(flatten)]
    export: ExportArgs,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

/// What was found.
struct Results {
    graph: Graph,
    method: Method,
    /// The unpatched runs of each pair.
    ends: Vec<Endpoints>,
    by: By,
    /// The mean over the pairs.
    scores: Scores,
    /// Of each pair.
    by_pair: Vec<Scores>,
    exact: Option<Scores>,
    /// What was chosen, and what is left of it.
    chosen: usize,
    selection: Option<Selection>,
    circuit: Circuit,
    acdc: Option<Found>,
    verdict: Verdict,
    known: Option<Known>,
}

/// How long each part took, in seconds; `total` counts from the start of the process.
#[derive(Serialize)]
struct Seconds {
    load: f64,
    circuit: f64,
    total: f64,
}

/// Finds a circuit, prints what came out and draws the picture.
pub fn run(args: &Args, start: Instant) -> Result<(), Failure> {
    let method = args.method()?;
    let pictures = args.pictures()?;
    let options = args.figure.options()?;
    let files = [&args.graph, &args.dot];
    let [graph_file, dot_file] = files.map(|path| path.as_deref().map(Output::prepare).transpose());
    let (graph_file, dot_file) = (graph_file?, dot_file?);
    let page = args.html.as_deref().map(page_output).transpose()?;
    let exports = args.export.prepare(1 + usize::from(args.exact))?;
    let studied = args.process.load_for_study(&args.model, args.export.is_wanted())?;
    let model = &studied.pretrained;
    let graph = Graph::of(&model.model.config);
    let given = args.given(graph)?;
    let known = args.known(graph)?;
    let pairs = args.pair.ready(&args.set, &args.metric, (&args.model, Scale::Change), model)?;
    if pairs.first().metric.scale != Scale::Change {
        return Err(Failure::Input(
            "the scores of edges are changes of the metric: leave out --as and normalised metrics".to_owned(),
        ));
    }
    args.model.warn_of_unknown_tokens(model, &pairs.ids());
    let load = start.elapsed().as_secs_f64();

    let before = Instant::now();
    let results = args.find(&model.model, &pairs, method, (given, known))?;
    let seconds = before.elapsed().as_secs_f64();

    let mut report = results.report(args, &pairs, &studied, &pictures)?;
    let figure = results.figure(args, &pairs, &studied);
    let mut texts: Vec<(Output, String)> = Vec::new();
    if let Some(output) = graph_file {
        texts.push((output, file::to_json(&results.scores, &results.circuit, model.model.config.n_embd)?));
    }
    if let Some(output) = dot_file {
        texts.push((output, figures::dot(&figure)));
    }
    report.draw_figure(PICTURE, figure.clone());
    let outputs = Outputs { options, pictures, exports, texts, page };
    outputs.write(&report)?;
    if let (Some(page), Some(study)) = (&outputs.page, &report.study) {
        let rows = made_by(&study.provenance, &model.model.config);
        let provenance =
            rows.into_iter().map(|(name, value)| (name.to_owned(), visible_line(&value))).collect();
        let shown = CircuitPage { provenance, figure, fonts: outputs.options.fonts.clone() };
        page.write(render_circuit_page(&shown, MAKER)?.as_bytes())?;
    }
    let total = start.elapsed().as_secs_f64();
    report.fact("seconds", Seconds { load, circuit: seconds, total })?;
    let done = format!("a circuit of {} edges", results.circuit.len());
    outputs.print(&report, args.model.json, Some(Work { done, seconds, start }))
}

impl Args {
    /// The method, with its number of steps; options that it has no use for are refused.
    fn method(&self) -> Result<Method, Failure> {
        let refuse = |given: bool, message: String| if given { Err(Failure::Input(message)) } else { Ok(()) };
        let is_acdc = self.method == Method::Acdc && self.from.is_none();
        refuse(
            is_acdc && self.edges.is_some(),
            "--edges is not for --method acdc: give --threshold T".to_owned(),
        )?;
        refuse(
            is_acdc && self.threshold.is_none(),
            "--method acdc needs --threshold T, for example 0.05".to_owned(),
        )?;
        refuse(!is_acdc && self.order != Order::default(), "--order is for --method acdc".to_owned())?;
        refuse(is_acdc && self.exact, "--exact compares scores of edges, and acdc has none".to_owned())?;
        refuse(self.threshold.is_some_and(f32::is_nan), "--threshold is not a number".to_owned())?;
        match (self.method, self.steps) {
            (method, None) => Ok(method),
            (Method::Predict(prediction), Some(steps)) if prediction.with_steps(steps as usize).is_some() => {
                Ok(prediction.with_steps(steps as usize).map_or(self.method, Method::Predict))
            }
            (method, Some(_)) => Err(Failure::Input(format!("--steps is not for --method {method}"))),
        }
    }

    /// Where the pictures go, by their names.
    fn pictures(&self) -> Result<Vec<(&'static str, Output)>, Failure> {
        let path = self.scatter.as_deref().unwrap_or(Path::new("circuit-scatter.png"));
        pictures([(PICTURE, &*self.out)].into_iter().chain(self.exact.then_some((SCATTER, path))))
    }

    /// The scores and the circuit of the file that is to be read.
    fn given(&self, graph: Graph) -> Result<Option<(Scores, Circuit)>, Failure> {
        let Some(path) = &self.from else { return Ok(None) };
        let failed = |reason: String| Failure::Input(format!("{}: {reason}", path.display()));
        let text = String::from_utf8(read_file(path, MAX_GRAPH_BYTES)?)
            .map_err(|error| failed(error.to_string()))?;
        file::from_json(&text, graph).map(Some).map_err(|error| failed(error.to_string()))
    }

    /// What the ranking is compared with.
    fn known(&self, graph: Graph) -> Result<Option<Known>, Failure> {
        let Some(name) = &self.known else { return Ok(None) };
        let read = |text: &str| {
            Known::read(text, graph).map_err(|error| Failure::Input(format!("--known {name}: {error}")))
        };
        if let Some(text) = Known::named(name) {
            return read(text).map(Some);
        }
        let bytes = read_file(name.as_ref(), MAX_GRAPH_BYTES)?;
        read(&String::from_utf8_lossy(&bytes)).map(Some)
    }

    /// How edges are chosen by their scores; none if that is done already.
    fn selection(&self) -> Option<Selection> {
        match (self.threshold, self.edges) {
            (Some(least), _) => Some(Selection::Threshold(least)),
            (None, Some(n)) if self.greedy => Some(Selection::Greedy(n)),
            (None, Some(n)) => Some(Selection::Top(n)),
            (None, None) => self.from.is_none().then_some(Selection::Top(EDGES)),
        }
    }

    /// The scores, the circuit, and the verdict on it.
    fn find(
        &self,
        model: &Gpt2,
        pairs: &Pairs,
        method: Method,
        (given, known): (Option<(Scores, Circuit)>, Option<Known>),
    ) -> Result<Results, Failure> {
        let graph = Graph::of(&model.config);
        let interrupt = Interrupt::listen()?;
        let n_parts = pairs.list.len() * (2 + usize::from(self.exact));
        let (bar, progress) = progress_bar(n_parts, n_parts * graph.edges().count());
        let watch = Watch { progress: &progress, stop: interrupt.flag() };
        let search = Search { args: self, model, pairs, method, interrupt: &interrupt, watch };
        let Scored { ends, mut by_pair, exact } = search.scored()?;
        let by = if self.absolute { By::Magnitude } else { By::towards_source(Endpoints::means(&ends)) };
        let exact_mean = (!exact.is_empty()).then(|| Scores::mean(&exact));
        let mut found = None;
        let (scores, chosen) = match (given, method) {
            (Some((scores, circuit)), _) => {
                let chosen = self.selection().map_or(circuit, |selection| selection.circuit(&scores, by));
                (scores, chosen)
            }
            (None, Method::Acdc) => {
                let (of_acdc, scores) = search.acdc(by)?;
                let circuit = of_acdc.circuit.clone();
                found = Some(of_acdc);
                (scores, circuit)
            }
            (None, _) => {
                if method == Method::Exact {
                    by_pair = exact;
                }
                let scores = Scores::mean(&by_pair);
                let chosen = self.selection().unwrap_or(Selection::Top(EDGES)).circuit(&scores, by);
                (scores, chosen)
            }
        };
        let circuit = pruned(&chosen);
        let wanted = Wanted {
            curve: (self.judge && found.is_none()).then_some(by),
            subsets: if self.judge { SUBSETS } else { 0 },
            minimality: self.judge,
            seed: self.set.seed,
        };
        let verdict = search.verdict(&Trial::of(&circuit, &scores, wanted))?;
        bar.finish_and_clear();
        Ok(Results {
            graph,
            method,
            ends,
            by,
            scores,
            by_pair,
            exact: exact_mean.filter(|_| self.exact),
            chosen: chosen.len(),
            selection: self.selection().filter(|_| found.is_none()),
            circuit,
            acdc: found,
            verdict,
            known,
        })
    }
}

/// What is run, and how it is watched.
struct Search<'a> {
    args: &'a Args,
    model: &'a Gpt2,
    pairs: &'a Pairs,
    method: Method,
    interrupt: &'a Interrupt,
    watch: Watch<'a>,
}

/// The scores of each pair.
struct Scored {
    ends: Vec<Endpoints>,
    by_pair: Vec<Scores>,
    /// The exact ones, if they are wanted.
    exact: Vec<Scores>,
}

impl<'a> Search<'a> {
    fn stopped(&self) -> Failure {
        self.interrupt.stopped("stopped: nothing was written".to_owned())
    }

    /// The two runs of a pair.
    fn runs(&self, pair: &'a ReadyPair) -> Result<Runs<'a>, Failure> {
        let metric = pair.metric.metric();
        let runs = Runs::new(self.model, pair.experiment(), metric, self.args.ablation, self.watch)?;
        let runs = runs.ok_or_else(|| self.stopped())?;
        self.pairs.check_ends(pair, self.model, runs.ends())?;
        Ok(runs)
    }

    /// Scores all edges in each pair, unless that is done already or the method has no scores.
    fn scored(&self) -> Result<Scored, Failure> {
        let all: Vec<Edge> = Graph::of(&self.model.config).edges().collect();
        let mut scored = Scored { ends: Vec::new(), by_pair: Vec::new(), exact: Vec::new() };
        let is_given = self.args.from.is_some();
        for pair in &self.pairs.list {
            let runs = self.runs(pair)?;
            scored.ends.push(runs.ends());
            if let (false, Method::Predict(prediction)) = (is_given, self.method) {
                scored.by_pair.push(runs.predict(prediction)?.ok_or_else(|| self.stopped())?);
            }
            if self.args.exact || !is_given && self.method == Method::Exact {
                let measured = runs.measure(&all, self.args.engine.engine());
                scored.exact.push(measured.ok_or_else(|| self.stopped())?);
            }
        }
        Ok(scored)
    }

    /// What ACDC leaves, scored by what each of its edges does by itself.
    fn acdc(&self, by: By) -> Result<(Found, Scores), Failure> {
        let runs = self.pairs.list.iter().map(|pair| self.runs(pair)).collect::<Result<Vec<_>, _>>()?;
        let (threshold, engine) = (self.args.threshold.unwrap_or_default(), self.args.engine.engine());
        let found = acdc(&runs, threshold, by, self.args.order, engine).ok_or_else(|| self.stopped())?;
        let left: Vec<Edge> = found.circuit.edges().collect();
        let measured = runs.iter().map(|runs| runs.measure(&left, engine)).collect::<Option<Vec<_>>>();
        Ok((found, Scores::mean(&measured.ok_or_else(|| self.stopped())?)))
    }

    fn verdict(&self, trial: &Trial) -> Result<Verdict, Failure> {
        let of_pair = |pair| {
            let values = self.runs(pair)?.values(trial.circuits(), self.args.engine.engine());
            values.into_iter().collect::<Option<Vec<f32>>>().ok_or_else(|| self.stopped())
        };
        let values: Vec<Vec<f32>> = self.pairs.list.iter().map(of_pair).collect::<Result<_, _>>()?;
        Ok(trial.verdict(&values))
    }
}
