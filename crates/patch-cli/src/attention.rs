//! `patch-cli attention`: where heads look.

use crate::export::{AxisLabels, Grid};
use crate::study::{PICTURE, StudyArgs, checked};
use gpt2::{Site, SiteKind};
use lens::ActivationCache;
use lens::cache::run_with_cache_of;
use lens::heads::stripe_mean;
use patching::Head;

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::processing::ProcessArgs;

/// Arguments of `attention`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Text to run
    text: String,

    /// The heads to show, as LAYER.HEAD: 5.1 or 5.1,4.2
    #[arg(long, value_name = "HEAD,…", value_delimiter = ',')]
    head: Vec<Head>,

    /// Show all heads, small and without words
    #[arg(long, conflicts_with = "head")]
    all: bool,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    study: StudyArgs,

    #[command(flatten)]
    process: ProcessArgs,
}

const HELP: &str = "\
A row is the position that attends, a column the one it attends to; each row is softmax(q·k / √head_size)
and adds up to 1.

Examples:
  patch-cli attention 'Michelle Jones was a top-notch student. Michelle' --head 8.3
  patch-cli attention 'Michelle Jones was a top-notch student. Michelle' --all --out heads.png";

/// Runs the text and shows the patterns of the heads.
pub fn run(args: &Args) -> Result<(), Failure> {
    let heads = args.heads();
    if heads.is_empty() && !args.all {
        return Err(Failure::Input(
            "which heads? give them with --head 5.1,4.2 (LAYER.HEAD), or --all for all of them, small"
                .to_owned(),
        ));
    }
    let outputs = args.study.prepare(&[], heads.len().max(1))?;
    let studied = (args.process).load_for_study(&args.model, args.study.export.is_wanted())?;
    let model = &studied.pretrained;
    for head in &heads {
        checked(*head, model)?;
    }
    let prompt = args.model.prompt(model, &args.text)?;
    args.model.warn_of_unknown_tokens(model, &prompt.ids);

    let is_of = |layer| args.all || heads.iter().any(|head| head.layer == layer);
    let wanted = |site: Site| site.kind == SiteKind::Pattern && is_of(site.layer);
    let cache = run_with_cache_of(studied.model(), &prompt.ids, wanted)?;
    let tokens = |name: &str| AxisLabels::new(name, prompt.tokens.iter().cloned());
    let config = &model.model.config;
    let grids = match args.all {
        true => vec![Grid {
            name: "pattern".to_owned(),
            axes: vec![
                AxisLabels::indices("layer", config.n_layer),
                AxisLabels::indices("head", config.n_head),
                tokens("dest"),
                tokens("src"),
            ],
            values: (cache.iter()).flat_map(|(_, pattern)| pattern.data()).copied().collect(),
            ..Grid::default()
        }],
        false => (heads.iter())
            .map(|head| Grid {
                name: head.to_string(),
                title: format!("head {head}"),
                axes: vec![tokens("dest"), tokens("src")],
                values: cache[SiteKind::Pattern.at(head.layer)] // (n_head, T, T)
                    .at(head.head)
                    .to_rows()
                    .concat(),
                ..Grid::default()
            })
            .collect(),
    };
    let grids = grids.into_iter().map(|grid| Grid { value_label: "attention".to_owned(), ..grid });
    let title = match heads.as_slice() {
        [] => "Attention of all heads, layer.head".to_owned(),
        [head] => format!("Attention of head {head}"),
        _ => "Attention".to_owned(),
    };
    let prompts = [("prompt", args.text.as_str())];
    let study = studied.study(&title, &[], &prompts, grids.collect())?;

    let bos = args.model.bos(model)?;
    let mut report = studied.report()?;
    report.fact("bos", bos.is_some())?;
    report.prompt(&prompt)?;
    report.line(format!("{}\n{}", prompt.row(), prompt.id_row()));
    report.line(args.model.bos_in_words(model, bos));
    report.study = Some(study);
    report.draw(PICTURE, &[]);
    if args.all {
        report.line(table(&cache));
    } else {
        report.show(PICTURE);
    }
    outputs.finish(&report, args.model.json)
}

impl Args {
    /// The heads that were asked for, each once; none if all are.
    fn heads(&self) -> Vec<Head> {
        let mut heads: Vec<Head> = Vec::new();
        for head in &self.head {
            if !heads.contains(head) {
                heads.push(*head);
            }
        }
        heads
    }
}

/// Where each head looks, in three numbers: all patterns would fill hundreds of lines.
fn table(cache: &ActivationCache) -> String {
    let mut table = format!(
        "\nmean attention to\n{:<6}{:>11}{:>16}{:>7}\n",
        "head", "first token", "previous token", "itself"
    );
    for (layer, (_, pattern)) in cache.iter().enumerate() {
        for head in 0..pattern.shape()[0] {
            let pattern = pattern.at(head); // (T, T)
            let [previous, itself] = [-1, 0].map(|offset| stripe_mean(pattern, offset));
            let rows = pattern.to_rows();
            let first = rows.iter().map(|row| row[0]).sum::<f32>() / rows.len() as f32;
            let name = Head { layer, head };
            table += &format!("{name:<6}{first:>11.3}{previous:>16.3}{itself:>7.3}\n");
        }
    }
    table + "\nThe patterns themselves: --out FILE.png, or --head LAYER.HEAD for one here."
}
