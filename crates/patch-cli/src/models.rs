//! `patch-cli models`: the models that can be named, and which of them are here.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gpt2::Config;
use gpt2::locate::{DEFAULT, KNOWN, Known, Places, TINY, weights_in};
use gpt2::tokenizer::N_TOKENS;
use serde::Serialize;

use crate::failure::Failure;
use crate::screen;

/// Arguments of `models`.
#[derive(clap::Args)]
pub struct Args {
    /// Print one JSON array on stdout, and nothing else there
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    color: colorchoice_clap::Color,
}

/// A model with a name.
#[derive(Serialize)]
struct Model {
    name: String,
    /// What runs without `--model`.
    default: bool,
    /// Its sizes, of a known one.
    sizes: Option<Sizes>,
    /// Whether it is part of the program.
    built_in: bool,
    /// Where its weights are, the place that is used first.
    found: Vec<Found>,
    /// The command that fetches the weights, if they are not here.
    fetch: Option<String>,
}

#[derive(Serialize)]
struct Sizes {
    parameters: usize,
    n_layer: usize,
    n_head: usize,
    n_embd: usize,
    /// About how large the published weights are, in millions of bytes.
    megabytes: u64,
}

/// Weights on the disk.
#[derive(Serialize)]
struct Found {
    /// The file, or the index of several.
    path: PathBuf,
    bytes: u64,
}

/// Lists the models.
pub fn run(args: &Args) -> Result<(), Failure> {
    args.color.write_global();
    let models = list(&Places::from_env());
    if args.json {
        return screen::print_json(&models);
    }
    write_table(&mut screen::stdout(), &models)?;
    Ok(())
}

/// The known models, and after them those that are only found.
fn list(places: &Places) -> Vec<Model> {
    let default = places.find(DEFAULT).map_or(TINY, |_| DEFAULT);
    let known = KNOWN.iter().map(|known| {
        let found = found(places, known.name);
        let fetch = found.is_empty() && known.can_be_downloaded();
        Model {
            name: known.name.to_owned(),
            default: known.name == default,
            sizes: Some(Sizes::of(known)),
            built_in: known.name == TINY,
            found,
            fetch: fetch.then(|| format!("cargo xtask download-weights {}", known.name)),
        }
    });
    let others = places.other_names().into_iter().map(|name| Model {
        found: found(places, &name),
        name,
        default: false,
        sizes: None,
        built_in: false,
        fetch: None,
    });
    known.chain(others).collect()
}

impl Sizes {
    fn of(known: &Known) -> Self {
        let config = Config {
            vocab_size: N_TOKENS,
            block_size: known.block_size,
            n_layer: known.n_layer,
            n_head: known.n_head,
            n_embd: known.n_embd,
            ..Config::default()
        };
        Self {
            parameters: config.n_parameters(),
            n_layer: known.n_layer,
            n_head: known.n_head,
            n_embd: known.n_embd,
            megabytes: known.megabytes,
        }
    }
}

fn found(places: &Places, name: &str) -> Vec<Found> {
    // The tiny model's own folder is where the program was built from, not where it is read.
    if name == TINY {
        return Vec::new();
    }
    let folders = places.find_all(name).into_iter();
    folders
        .filter_map(|folder| {
            let path = weights_in(&folder)?;
            let bytes = size(&path);
            Some(Found { path, bytes })
        })
        .collect()
}

/// The bytes of a file of weights; of an index, those of all safetensors files beside it.
fn size(path: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    let is_weights = |path: &Path| path.extension().is_some_and(|ext| ext == "safetensors");
    if is_weights(path) {
        return length(path);
    }
    let beside = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let files = beside.into_iter().flatten().filter_map(Result::ok);
    files.map(|entry| entry.path()).filter(|path| is_weights(path)).map(|path| length(&path)).sum()
}

fn write_table(out: &mut impl Write, models: &[Model]) -> io::Result<()> {
    let width = models.iter().map(|model| model.name.len()).max();
    let width = width.unwrap_or(0).max("model".len());
    writeln!(
        out,
        "  {:width$}  {:>10}  {:>6}  {:>5}  {:>5}  {:>8}  weights",
        "model", "parameters", "layers", "heads", "width", "file"
    )?;
    for model in models {
        let mark = if model.default { '*' } else { ' ' };
        write!(out, "{mark} {:width$}  ", model.name)?;
        match &model.sizes {
            Some(sizes) => write!(
                out,
                "{:>10}  {:>6}  {:>5}  {:>5}  {:>8}",
                millions(sizes.parameters),
                sizes.n_layer,
                sizes.n_head,
                sizes.n_embd,
                file_size(model.found.first().map(|found| found.bytes), sizes.megabytes)
            )?,
            None => {
                let bytes = model.found.first().map(|found| found.bytes);
                write!(out, "{:>42}", file_size(bytes, 0))?;
            }
        }
        let place = match (&model.found.first(), &model.fetch) {
            (Some(found), _) => found.path.display().to_string(),
            (None, Some(fetch)) => format!("not here: {fetch}"),
            (None, None) => "in the program itself".to_owned(),
        };
        writeln!(out, "  {place}")?;
        for found in model.found.iter().skip(1) {
            let more = found.path.display();
            writeln!(out, "{:1$}also {more}", "", width + 46)?;
        }
    }
    writeln!(
        out,
        "\n* runs without --model. --model also takes a folder or a file of weights, and OWNER/NAME of \
         the hub, if the Python hub client has fetched it."
    )
}

fn millions(parameters: usize) -> String {
    match parameters as f64 / 1e6 {
        small if small < 10.0 => format!("{small:.1} M"),
        large => format!("{large:.0} M"),
    }
}

/// The size of the file that is here, or else about that of the published one.
fn file_size(bytes: Option<u64>, megabytes: u64) -> String {
    let bytes = bytes.unwrap_or(megabytes * 1_000_000) as f64;
    if bytes < 1e9 { format!("{:.0} MB", bytes / 1e6) } else { format!("{:.2} GB", bytes / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_parameters_are_those_that_everybody_knows() {
        let parameters: Vec<usize> = KNOWN.iter().map(|known| Sizes::of(known).parameters).collect();
        assert_eq!(parameters, [3_824_576, 124_439_808, 354_823_168, 774_030_080, 1_557_611_200, 81_912_576]);
    }

    #[test]
    fn sizes_are_written_with_their_units() {
        assert_eq!(millions(3_824_576), "3.8 M");
        assert_eq!(millions(1_557_611_200), "1558 M");
        assert_eq!(file_size(None, 548), "548 MB");
        assert_eq!(file_size(Some(6_431_829_964), 548), "6.43 GB");
    }
}
