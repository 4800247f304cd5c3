//! What every study returns: grids by name, with what made them, their pictures and their files.

use std::fs;
use std::path::{Path, PathBuf};

use figures::{Figure, FigureOptions, render_png, render_svg, scene};
use files::Part;
use grids::{Format, Grid, NamedText, Provenance, words_beside, write_csv, write_npy, write_safetensors};
use numpy::{PyArray1, PyArrayDyn, PyArrayMethods as _};
use patching::Endpoints;
use pyo3::prelude::*;
use report::Report;
use serde::Serialize;

use crate::failure::Failure;
use crate::metric::Ready;
use crate::model::Model;
use crate::pairs::Pairs;

/// The name of a study's main picture.
const PICTURE: &str = "picture";

/// What files say of their maker. (`patch-cli plot` and `diff` read them.)
const SOFTWARE: &str = "gpt2_patching";

/// The largest PNG that is painted.
const MOST_PIXELS: f32 = 3e8;

/// An axis: its name, the places along it, and their labels.
type Axis = (String, Vec<usize>, Vec<String>);

/// What a study came to.
#[pyclass(frozen, module = "gpt2_patching._native")]
pub struct Study {
    report: Report,
    /// The grids that are drawn, the most important first.
    drawn: Vec<String>,
}

impl Study {
    /// A study of these grids, of which some are drawn; all of them if none are named.
    pub fn new(report: Report, drawn: Vec<String>) -> Self {
        let mut report = report;
        report.draw(PICTURE, &drawn.iter().map(String::as_str).collect::<Vec<_>>());
        Self { report, drawn }
    }

    /// A study with a picture that is not of its grids.
    pub fn with_figure(mut report: Report, figure: impl Into<Figure>) -> Self {
        report.draw_figure(PICTURE, figure);
        Self { report, drawn: Vec::new() }
    }

    fn study(&self) -> Result<&grids::Study, Failure> {
        self.report.study.as_ref().ok_or_else(|| Failure::bug("a study without grids"))
    }

    fn grid_of(&self, name: Option<&str>) -> Result<&Grid, Failure> {
        let study = self.study()?;
        let main = self.drawn.first().map(String::as_str);
        let Some(name) = name.or(main) else {
            return study.grids.first().ok_or_else(|| Failure::bug("a study without grids"));
        };
        study.grid(name).ok_or_else(|| {
            Failure::value(format!("there is no grid \"{name}\"; give one of {}", study.names()))
        })
    }

    /// The picture in a form.
    fn rendered(&self, is_svg: bool, scale: Option<f32>) -> Result<Vec<u8>, Failure> {
        let figure = self.report.figure(PICTURE)?.ok_or_else(|| Failure::bug("a study without a picture"))?;
        let figure = figure.bounded();
        let options =
            FigureOptions { scale: scale.unwrap_or(figures::DEFAULT_SCALE), ..FigureOptions::default() };
        let metadata = [
            ("Software", format!("{SOFTWARE} {}", env!("CARGO_PKG_VERSION"))),
            ("Title", figure.title().to_owned()),
            ("Description", figure.subtitle().join("\n")),
            ("Provenance", serde_json::to_string(&self.study()?.provenance)?),
        ]
        .map(|(key, text)| (key.to_owned(), text));
        let scene = scene(&figure, &options);
        let [width, height] = [scene.width, scene.height].map(|length| (length * options.scale).ceil());
        if !is_svg && width * height > MOST_PIXELS {
            return Err(Failure::value(format!(
                "the picture would have {width} × {height} pixels, more than can be painted: give a smaller scale \
                 than {}, or save it as .svg",
                options.scale
            )));
        }
        let bytes = match is_svg {
            true => render_svg(&scene, &options.fonts, &metadata).map(String::into_bytes),
            false => render_png(&scene, &options.fonts, options.scale, &metadata),
        };
        bytes.map_err(|error| Failure::bug(format!("cannot encode the picture: {error}")))
    }

    /// What is written to a file of this name, with the file of words beside it if it has one.
    fn files(
        &self,
        path: &Path,
        grid: Option<&str>,
        scale: Option<f32>,
    ) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
        let study = self.study()?;
        study.check()?;
        let here = path.to_owned();
        let extension = path.extension().and_then(|it| it.to_str()).map(str::to_ascii_lowercase);
        match (extension.as_deref(), Format::of(path)) {
            (Some("png"), _) => Ok(vec![(here, self.rendered(false, scale)?)]),
            (Some("svg"), _) => Ok(vec![(here, self.rendered(true, scale)?)]),
            (_, Some(Format::Csv)) => {
                Ok(vec![(words_beside(path), study.words()?.into_bytes()), (here, write_csv(study)?)])
            }
            (_, Some(Format::Npy)) => {
                let grid = self.grid_of(grid)?;
                let study = study.only(std::slice::from_ref(&grid.name));
                Ok(vec![(words_beside(path), study.words()?.into_bytes()), (here, write_npy(grid)?)])
            }
            (_, Some(Format::Safetensors)) => Ok(vec![(here, write_safetensors(study)?)]),
            (Some("json"), _) => Ok(vec![(here, self.json()?.into_bytes())]),
            _ => Err(Failure::value(format!(
                "give a name that ends in .png, .svg, .json, .csv, .npy or .safetensors instead of {}",
                path.display()
            ))),
        }
    }
}

#[pymethods]
impl Study {
    /// The heading.
    #[getter]
    fn title(&self) -> Result<&str, Failure> {
        Ok(&self.study()?.title)
    }

    /// The lines under the heading.
    #[getter]
    fn subtitle(&self) -> Result<Vec<String>, Failure> {
        Ok(self.study()?.subtitle.clone())
    }

    /// The names of all grids.
    #[getter]
    fn names(&self) -> Result<Vec<String>, Failure> {
        Ok(self.study()?.grids.iter().map(|grid| grid.name.clone()).collect())
    }

    /// The name of the main grid.
    #[getter]
    fn main(&self) -> Result<&str, Failure> {
        Ok(&self.grid_of(None)?.name)
    }

    /// The numbers of a grid.
    fn values<'py>(&self, py: Python<'py>, name: &str) -> Result<Bound<'py, PyArrayDyn<f32>>, Failure> {
        let grid = self.grid_of(Some(name))?;
        Ok(PyArray1::from_slice(py, &grid.values).reshape(grid.shape())?)
    }

    /// The axes of a grid, each as its name, places and labels; what a value is; and the lines that explain it.
    fn words(&self, name: &str) -> Result<(Vec<Axis>, String, Vec<String>), Failure> {
        let grid = self.grid_of(Some(name))?;
        let axis = |axis: &grids::AxisLabels| {
            let places = (0..axis.labels.len()).map(|index| axis.place(index)).collect();
            (axis.name.clone(), places, axis.labels.clone())
        };
        Ok((grid.axes.iter().map(axis).collect(), grid.value_label.clone(), grid.legend.clone()))
    }

    /// Everything, as the command line prints it with --json.
    fn json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string(&self.report.json())?)
    }

    /// The picture as PNG.
    #[pyo3(signature = (scale=None))]
    fn png(&self, py: Python<'_>, scale: Option<f32>) -> Result<Vec<u8>, Failure> {
        py.detach(|| self.rendered(false, scale))
    }

    /// The picture as SVG.
    fn svg(&self, py: Python<'_>) -> Result<String, Failure> {
        let bytes = py.detach(|| self.rendered(true, None))?;
        String::from_utf8(bytes).map_err(|error| Failure::bug(error.to_string()))
    }

    /// Writes a file in the form that its name ends in. Files appear whole; an earlier one is replaced.
    #[pyo3(signature = (path, grid=None, scale=None))]
    fn save(
        &self,
        py: Python<'_>,
        path: PathBuf,
        grid: Option<&str>,
        scale: Option<f32>,
    ) -> Result<(), Failure> {
        py.detach(|| {
            let mut parts = Vec::new();
            for (path, bytes) in self.files(&path, grid, scale)? {
                let at = |error: std::io::Error| {
                    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                };
                parts.push(Part::with_bytes(&path, &bytes).map_err(at)?);
            }
            let may_replace = |path: &Path| Ok(fs::symlink_metadata(path)?.is_file());
            files::publish_all(parts, may_replace).map_err(|(path, error)| {
                std::io::Error::new(error.kind(), format!("{}: {error}", path.display())).into()
            })
        })
    }
}

/// What an ending says of many pairs: the metric of their unpatched runs.
pub struct Ends<'a> {
    /// Of each pair.
    pub ends: &'a [Endpoints],
    /// The metric of each pair.
    pub metrics: &'a [Ready<'a>],
}

/// How JSON shows a pair.
#[derive(Serialize)]
struct PairReport<'a> {
    line: usize,
    clean: &'a report::Prompt,
    corrupted: &'a report::Prompt,
    a: Option<report::metric::AnswersReport>,
    b: Option<report::metric::AnswersReport>,
    clean_metric: f32,
    corrupted_metric: f32,
}

/// A report on a model.
pub fn report_on(model: &Model) -> Result<Report, Failure> {
    let mut report = Report::new();
    report.fact("model", &model.pretrained.name)?;
    report.fact("processing", &model.processing)?;
    Ok(report)
}

/// What made numbers of this model and these prompts.
pub fn provenance(model: &Model, prompts: Vec<NamedText>, computation: &[(&str, String)]) -> Provenance {
    let named = |(name, value): &(&str, String)| ((*name).to_owned(), value.clone());
    Provenance {
        software: SOFTWARE.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        model: model.pretrained.name.clone(),
        processing: model.processing.clone(),
        prompts,
        ..Provenance::default()
    }
    .of_computation(computation.iter().map(named).collect())
}

/// What JSON says of pairs and of where their unpatched runs lie.
pub fn say_ends(report: &mut Report, pairs: &Pairs, Ends { ends, metrics }: Ends<'_>) -> Result<(), Failure> {
    let shown = metrics.iter().zip(ends).map(|(it, ends)| pairs.shown(&it.named).shown_unpatched(*ends));
    let shown: Vec<[f32; 2]> = shown.collect();
    let is_normalized = metrics[0].named.scale.is_normalized();
    let mean = |run: usize| match is_normalized {
        true => [1.0, 0.0][run],
        false => shown.iter().map(|pair| pair[run]).sum::<f32>() / shown.len() as f32,
    };
    report.fact("direction", pairs.direction.to_string())?;
    report.fact("metric", metrics[0].report()?)?;
    report.fact("clean_metric", mean(0))?;
    report.fact("corrupted_metric", mean(1))?;
    let rows = pairs.list.iter().zip(metrics).zip(&shown);
    let pair = |((pair, metric), &[clean_metric, corrupted_metric]): ((_, &Ready<'_>), &[f32; 2])| {
        let pair: &crate::pairs::ReadyPair = pair;
        PairReport {
            line: pair.pair.line,
            clean: &pair.clean,
            corrupted: &pair.corrupted,
            a: metric.named.a.report(),
            b: metric.named.b.report(),
            clean_metric,
            corrupted_metric,
        }
    };
    Ok(report.fact("pairs", rows.map(pair).collect::<Vec<_>>())?)
}

/// A study of pairs: of a set the means, and with them their intervals and every pair.
pub fn of_pairs(
    title: &str,
    (pairs, provenance): (&Pairs, Provenance),
    by_pair: Vec<Grid>,
    averages: Vec<[Grid; 3]>,
    scale: &str,
) -> (Vec<String>, grids::Study) {
    let first = pairs.first();
    let mut subtitle = match pairs.many {
        true => vec![format!("mean over {} pairs, the first: {}", pairs.list.len(), first.clean.text)],
        false => vec![format!("clean: {}", first.clean.text), format!("corrupted: {}", first.corrupted.text)],
    };
    let model = [&[provenance.model.clone()][..], &provenance.processing].concat();
    subtitle.push(format!("model: {}, {}", model.join(", "), pairs.direction));
    let means: Vec<Grid> = averages.iter().map(|[mean, ..]| mean.clone()).collect();
    let drawn = if pairs.many { &means } else { &by_pair };
    let drawn = drawn.iter().map(|grid| grid.name.clone()).collect();
    let intervals = averages.into_iter().flat_map(|[_, low, high]| [low, high]);
    let study = grids::Study {
        provenance,
        numbers_sha256: None,
        title: format!("{title} ({scale})"),
        subtitle,
        grids: means.into_iter().chain(intervals).chain(by_pair).collect(),
    };
    (drawn, study)
}

/// A study of one prompt, or of none.
pub fn of_model(
    model: &Model,
    title: &str,
    about: Vec<String>,
    prompts: &[(&str, &str)],
    grids: Vec<Grid>,
) -> grids::Study {
    let named: Vec<NamedText> = prompts
        .iter()
        .map(|(name, text)| NamedText { name: (*name).to_owned(), text: (*text).to_owned() })
        .collect();
    let lines = prompts.iter().map(|(name, text)| format!("{name}: {text}"));
    let label = [&[model.pretrained.name.clone()][..], &model.processing].concat().join(", ");
    grids::Study {
        provenance: provenance(model, named, &[("study", title.to_owned())]),
        title: title.to_owned(),
        subtitle: about.into_iter().chain(lines).chain([format!("model: {label}")]).collect(),
        numbers_sha256: None,
        grids,
    }
}
