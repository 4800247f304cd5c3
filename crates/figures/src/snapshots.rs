//! Reviewed figures: what is printed and painted today has to be what somebody looked at and found
//! good. The reviewed texts and pictures stand beside this file in `snapshots/`; escape characters are
//! written as `␛` there. After a change that is meant, `UPDATE_SNAPSHOTS=1 cargo test -p figures
//! snapshot` writes them anew, to be looked at before they are committed.

use std::fs;
use std::path::PathBuf;

use super::circuit::{Edge, Input, Node};
use super::figure::{Figure, Heatmap, LineChart, Series, Sheet};
use super::image::paint;
use super::*;

/// How far the mean channel of a picture may be off, of 255; shapes are painted in floats, and
/// machines round alike but for the last bit.
const MEAN_TOLERANCE: f64 = 0.05;
/// How far a single channel may be off.
const LARGEST_TOLERANCE: u8 = 24;

fn heatmap() -> Heatmap {
    Heatmap {
        title: "Patching resid_post: clean into corrupted".into(),
        subtitle: vec!["clean: Michelle Jones, 日本 and مرحبا".into()],
        values: (0..15)
            .map(|place| match place {
                7 => f32::NAN,
                _ => (place as f32 - 7.0) * 0.4,
            })
            .collect(),
        rows: (0..3).map(|row| row.to_string()).collect(),
        columns: ["Michelle", " Jones", " 日本", "\n", " مرحبا"].map(str::to_owned).to_vec(),
        row_axis: "layer".into(),
        column_axis: "position and token".into(),
        value_label: "logit(\" Smith\") − logit(\" Jones\")".into(),
        center: Some(0.0),
        highlight_columns: vec![1],
        highlight_label: "the prompts differ here".into(),
        legend: vec!["Blue: towards Smith; red: towards Jones.".into()],
        ..Heatmap::default()
    }
}

fn chart() -> LineChart {
    let series = |name: &str, values: [f32; 5]| Series { name: name.into(), values: values.to_vec() };
    LineChart {
        title: "Logit of the answer after each layer".into(),
        series: vec![
            series(" Smith", [0.0, 1.0, 2.5, 2.0, 4.0]),
            series(" Jones", [1.0, -1.0, f32::NAN, -1.5, -2.0]),
        ],
        columns: (0..5).map(|layer| layer.to_string()).collect(),
        column_axis: "layer".into(),
        series_axis: "answer".into(),
        value_label: "logit".into(),
        center: Some(0.0),
        highlight_columns: vec![3],
        highlight_label: "here the answer is decided".into(),
        ..LineChart::default()
    }
}

fn scatter() -> Scatter {
    let points = |phase: f32, slope: f32| {
        let point = |i: usize| {
            let exact = (i as f32 * 0.7 + phase).sin() * 3.0 + 1.0;
            [exact, slope * exact + (i as f32 * 2.3).cos() * 0.3]
        };
        let mut points: Vec<[f32; 2]> = (0..60).map(point).collect();
        points[7] = [f32::NAN, 1.0];
        points
    };
    Scatter {
        title: "Predicted against exact".into(),
        subtitle: vec!["Pearson 0.98, Spearman 0.97".into()],
        x_label: "exact change of logit(\" Smith\") − logit(\" Jones\")".into(),
        y_label: "predicted change".into(),
        groups: vec![("resid_post".into(), points(0.0, 0.9)), ("mlp_out".into(), points(1.0, 0.5))],
        legend: vec!["On the line the prediction is right.".into()],
    }
}

/// A loss over the steps of a training.
fn curve() -> LineChart {
    let points = 60;
    let values = |fall: f32| (1..=points).map(|point| 7.0 * (-fall * point as f32).exp() + 0.4).collect();
    let mut series = vec![
        Series { name: "text".into(), values: values(0.15) },
        Series { name: "repeated tokens".into(), values: values(0.05) },
    ];
    series[1].values[30] = f32::NAN;
    LineChart {
        title: "Training".into(),
        subtitle: vec!["seed 1, 6000 of 6000 steps".into()],
        series,
        columns: (1..=points).map(|point| (100 * point).to_string()).collect(),
        scale: (1..=points).map(|point| 100.0 * point as f32).collect(),
        column_axis: "step".into(),
        series_axis: "batches".into(),
        value_label: "loss, nats a token".into(),
        center: Some(0.0),
        ..LineChart::default()
    }
}

fn attention(title: &str, slope: f32) -> Heatmap {
    let tokens = ["Michelle", " Jones", " was", " a"].map(str::to_owned);
    let weight = |place: usize| {
        let (dest, src) = (place / 4, place % 4);
        if src > dest { 0.0 } else { (slope * src as f32 + 1.0) / 4.0 }
    };
    Heatmap {
        title: title.into(),
        values: (0..16).map(weight).collect(),
        rows: tokens.to_vec(),
        columns: tokens.to_vec(),
        row_axis: "dest, which attends".into(),
        column_axis: "src, which is attended to".into(),
        value_label: "attention".into(),
        color_map: ColorMap::Viridis,
        rows_are_tokens: true,
        ..Heatmap::default()
    }
}

fn sheet(compact: bool) -> Sheet {
    let titles: &[&str] = match compact {
        true => &["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"],
        false => &["head 0", "head 1"],
    };
    let panels = titles.iter().enumerate();
    Sheet {
        title: "Attention of layer 5".into(),
        panels: panels.map(|(index, title)| attention(title, index as f32 * 0.1)).collect(),
        columns: if compact { 3 } else { 2 },
        shared_range: true,
        compact,
        legend: vec!["Bright: much attention.".into()],
        ..Sheet::default()
    }
}

/// More rows than a screen has.
fn tall() -> Heatmap {
    Heatmap {
        rows: (0..51).map(|row| format!("L{}H{}", row / 12, row % 12)).collect(),
        values: (0..51 * 3).map(|place| (place % 7) as f32 - 3.0).collect(),
        columns: ["a", " b", " c"].map(str::to_owned).to_vec(),
        row_axis: "layer and head".into(),
        ..heatmap()
    }
}

fn file(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    folder.join("src/snapshots").join(name)
}

fn updating() -> bool {
    std::env::var_os("UPDATE_SNAPSHOTS").is_some()
}

#[track_caller]
fn check_text(name: &str, figure: impl Into<Figure>, color: TerminalColor, width: usize) {
    let mut out = Vec::new();
    write_figure(&mut out, &figure.into(), TerminalStyle { color, width }).unwrap();
    check_string(&format!("{name}.txt"), String::from_utf8(out).unwrap().replace('\x1b', "␛"));
}

#[track_caller]
fn check_string(name: &str, text: String) {
    let path = file(name);
    if updating() {
        fs::write(&path, &text).unwrap();
    }
    let reviewed = fs::read_to_string(&path).unwrap_or_default().replace('\r', "");
    assert!(
        text == reviewed,
        "{} is not what is printed now (UPDATE_SNAPSHOTS=1 writes it):\n{text}",
        path.display()
    );
}

#[track_caller]
fn check_picture(name: &str, figure: impl Into<Figure>) {
    let options = FigureOptions { scale: 1.0, ..FigureOptions::default() };
    let picture = paint(&scene(&figure.into(), &options), &options.fonts, options.scale);
    let path = file(&format!("{name}.png"));
    let bytes = encode_png(&picture, options.scale, &[]).unwrap();
    if updating() {
        fs::write(&path, &bytes).unwrap();
    }
    let reviewed = fs::read(&path).unwrap_or_default();
    let now = std::env::temp_dir().join(format!("patch-cli-{name}.png"));
    let fail = |why: String| {
        fs::write(&now, &bytes).unwrap();
        panic!(
            "{} is not what is painted now, {} ({why}): look at both; UPDATE_SNAPSHOTS=1 replaces it",
            path.display(),
            now.display()
        )
    };
    let mut reader = match png::Decoder::new(std::io::Cursor::new(&reviewed)).read_info() {
        Ok(reader) => reader,
        Err(error) => return fail(error.to_string()),
    };
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut pixels).unwrap();
    if (frame.width, frame.height) != picture.dimensions() {
        return fail(format!("{:?} pixels", picture.dimensions()));
    }
    let differences = pixels.iter().zip(picture.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let largest = differences.clone().max().unwrap_or(0);
    let mean = differences.map(f64::from).sum::<f64>() / pixels.len() as f64;
    if mean > MEAN_TOLERANCE || largest > LARGEST_TOLERANCE {
        fail(format!("mean difference {mean:.3}, largest {largest}"));
    }
}

#[test]
fn the_heatmap_snapshot_is_what_is_painted() {
    check_picture("heatmap", heatmap());
}

#[test]
fn the_line_chart_snapshot_is_what_is_painted() {
    check_picture("lines", chart());
}

#[test]
fn the_scatter_snapshot_is_what_is_painted() {
    check_picture("scatter", scatter());
}

#[test]
fn the_curve_snapshot_is_what_is_painted() {
    check_picture("curve", curve());
}

#[test]
fn the_sheet_snapshot_is_what_is_painted() {
    check_picture("sheet", sheet(false));
}

#[test]
fn the_contact_sheet_snapshot_is_what_is_painted() {
    check_picture("contact_sheet", sheet(true));
}

/// Two layers: a previous-token head, an induction head that reads it as key, and an MLP that is against it.
fn circuit() -> CircuitFigure {
    let nodes = [("input", 0), ("a0.h1", 1), ("a0.h3", 1), ("m0", 2), ("a1.h0", 3), ("m1", 4), ("logits", 5)];
    let edges = [
        (0, 1, Some(Input::V), 0.31),
        (0, 2, Some(Input::K), -0.12),
        (0, 3, None, 0.2),
        (1, 3, None, 0.08),
        (1, 4, Some(Input::K), 0.84),
        (2, 4, Some(Input::Q), f32::NAN),
        (3, 4, Some(Input::V), 0.45),
        (0, 4, Some(Input::V), 0.52),
        (3, 5, None, -0.4),
        (4, 6, None, 1.31),
        (5, 6, None, -0.66),
        (0, 6, None, 0.05),
    ];
    let label = |name: &str| if name == "a1.h0" { "a1.h0 induction" } else { "" }.to_owned();
    CircuitFigure {
        title: "The 12 edges of the circuit of \"Michelle Jones\"".into(),
        subtitle: vec!["clean: Michelle Jones, 日本".into()],
        nodes: nodes.map(|(name, row)| Node { name: name.into(), row, label: label(name) }).to_vec(),
        edges: edges.map(|(from, to, input, score)| Edge { from, to, input, score }).to_vec(),
        score_label: "change of logit(\" Jones\") − logit(\" Smith\")".into(),
        legend: vec!["Blue: towards Jones; red: towards Smith.".into()],
        ..CircuitFigure::default()
    }
}

#[test]
fn the_circuit_snapshot_is_what_is_painted() {
    check_picture("circuit", circuit());
}

#[test]
fn the_dot_snapshot_is_what_is_written() {
    let mut figure = circuit();
    figure.title += " \\ {a|b}";
    figure.nodes[1].label = "a \"quoted\" <name>\n{of|two}".to_owned();
    check_string("circuit.dot", dot(&figure));
}

#[test]
fn the_circuit_snapshot_is_what_is_written_as_svg() {
    let fonts = Fonts::default();
    let scene = scene(&circuit().into(), &FigureOptions::default());
    check_string("circuit.svg", render_svg(&scene, &fonts, &[]).unwrap());
}

#[test]
fn the_text_snapshots_are_what_is_printed_without_colours() {
    use TerminalColor::None as Plain;
    check_text("circuit_plain", circuit(), Plain, 80);
    check_text("heatmap_plain", heatmap(), Plain, 80);
    check_text("heatmap_plain_narrow", heatmap(), Plain, 32);
    check_text("lines_plain", chart(), Plain, 80);
    check_text("scatter_plain", scatter(), Plain, 80);
    check_text("sheet_plain", sheet(false), Plain, 80);
    check_text("contact_sheet_plain", sheet(true), Plain, 80);
}

#[test]
fn the_text_snapshots_are_what_is_printed_in_256_colours() {
    check_text("heatmap_256", heatmap(), TerminalColor::Ansi256, 80);
    check_text("contact_sheet_256", sheet(true), TerminalColor::Ansi256, 80);
}

#[test]
fn the_text_snapshots_are_what_is_printed_in_true_colours() {
    use TerminalColor::Truecolor;
    check_text("heatmap_truecolor", heatmap(), Truecolor, 80);
    check_text("circuit_truecolor", circuit(), Truecolor, 80);
    check_text("heatmap_truecolor_narrow", heatmap(), Truecolor, 32);
    check_text("lines_truecolor", chart(), Truecolor, 80);
    check_text("sheet_truecolor", sheet(false), Truecolor, 80);
    check_text("contact_sheet_truecolor", sheet(true), Truecolor, 80);
    check_text("tall_truecolor", tall(), Truecolor, 80);
}

#[test]
fn no_printed_line_of_any_figure_is_longer_than_the_terminal_is_wide() {
    let long_title = Sheet { title: "A very long title that has to be wrapped ".repeat(4), ..sheet(true) };
    let figures: [Figure; 9] = [
        heatmap().into(),
        circuit().into(),
        scatter().into(),
        chart().into(),
        curve().into(),
        sheet(false).into(),
        sheet(true).into(),
        tall().into(),
        long_title.into(),
    ];
    for figure in figures {
        for width in [32, 47, 80, 200] {
            for color in [TerminalColor::None, TerminalColor::Ansi256, TerminalColor::Truecolor] {
                let mut out = Vec::new();
                write_figure(&mut out, &figure, TerminalStyle { color, width }).unwrap();
                let text = String::from_utf8(out).unwrap();
                for line in text.lines() {
                    let mut parts = line.split('\x1b');
                    let first = parts.next().unwrap_or_default().to_owned();
                    let shown = parts
                        .filter_map(|part| part.split_once('m'))
                        .fold(first, |text, (_, shown)| text + shown);
                    let columns = unicode_width::UnicodeWidthStr::width(shown.as_str());
                    assert!(columns <= width, "{width} {color:?}: {shown:?}");
                }
            }
        }
    }
}
