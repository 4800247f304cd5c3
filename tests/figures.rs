//! Pictures and exports as a user makes and reads them.

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::util::{Folder, golden, largest_difference, numbers};

/// The main job with every export, in a folder.
fn exported() -> Folder {
    let folder = Folder::new();
    let args = [
        "--csv",
        "a.csv",
        "--npy",
        "a.npy",
        "--safetensors",
        "a.safetensors",
        "--json",
    ];
    let run = folder.tiny(&args).success();
    fs::write(folder.file("a.json"), &run.stdout).unwrap();
    folder
}

fn golden_grid() -> Vec<f32> {
    numbers(&golden("sweeps")[0]["sweeps"]["resid_post"]["values"])
}

#[test]
fn every_export_holds_the_golden_grid_and_what_made_it() {
    let folder = exported();
    let json: Value = serde_json::from_slice(&fs::read(folder.file("a.json")).unwrap()).unwrap();
    let grid = &json["grids"][0];
    assert_eq!(grid["name"], "resid_post");
    assert_eq!(grid["axes"][1]["name"], "pos");
    assert_eq!(grid["axes"][1]["labels"][1], " Smith");
    assert!(largest_difference(&numbers(&grid["values"]), &golden_grid()) < 1e-4);

    let array = fs::read(folder.file("a.npy")).unwrap();
    let floats = |bytes: &[u8]| -> Vec<f32> {
        let chunks = bytes.chunks_exact(4);
        chunks
            .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
            .collect()
    };
    assert_eq!(floats(&array[128..]), numbers(&grid["values"]));

    let file = fs::read(folder.file("a.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensor = tensors.tensor("resid_post").unwrap();
    assert_eq!(tensor.shape(), [12, 11]);
    assert_eq!(floats(tensor.data()), numbers(&grid["values"]));

    let table = fs::read_to_string(folder.file("a.csv")).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 133);
    assert_eq!(lines[0], "grid,layer,pos,pos_label,value");
    assert!(
        lines[2].starts_with("resid_post,0,1, Smith,-10.28"),
        "{}",
        lines[2]
    );

    for sidecar in ["a.csv.json", "a.npy.json"] {
        let words: Value =
            serde_json::from_slice(&fs::read(folder.file(sidecar)).unwrap()).unwrap();
        let provenance = &words["provenance"];
        assert_eq!(provenance["software"], "patch-cli");
        assert_eq!(provenance["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(provenance["model"], "tiny");
        let checksum = provenance["model_checksum"]["model.safetensors"].as_str();
        assert_eq!(checksum.unwrap().len(), 64);
        assert_eq!(provenance["command"][0], "--csv");
        let prompts = provenance["prompts"].as_array().unwrap();
        assert!(prompts.iter().any(|prompt| prompt["name"] == "corrupted"));
        assert_eq!(words["grids"][0]["value_label"], grid["value_label"]);
    }
}

#[test]
fn plot_draws_every_export_as_the_run_itself_drew_it() {
    let folder = exported();
    let first = fs::read(folder.file("heatmap.png")).unwrap();
    let run = |file: &str| {
        folder
            .run(["plot", file, "--out", "again.png"])
            .success()
            .stdout
    };
    let text = run("a.json");
    assert!(text.contains("+12.6 -10.3 +12.6"), "{text}");
    for file in ["a.csv", "a.npy", "a.safetensors"] {
        assert_eq!(run(file), text, "{file}");
        let again = fs::read(folder.file("again.png")).unwrap();
        assert_eq!(pixels(&again), pixels(&first), "{file}");
    }
}

/// The pixels of a PNG file.
fn pixels(bytes: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[test]
fn a_picture_says_what_made_it_as_png_and_as_svg() {
    let folder = Folder::new();
    folder.tiny(&["--out", "a.svg"]).success();
    let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
    assert!(svg.contains(
        "<title>Patching resid_post from the clean into the corrupted run (values)</title>"
    ));
    assert!(svg.contains("&quot;software&quot;:&quot;patch-cli&quot;"));
    assert!(svg.contains(">−10.3</text>"), "the values are in the cells");
    folder.tiny(&["--out", "a.png"]).success();
    let bytes = fs::read(folder.file("a.png")).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info();
    let info = reader.unwrap().info().clone();
    let texts = info.uncompressed_latin1_text.iter();
    let provenance = texts
        .filter(|chunk| chunk.keyword == "Provenance")
        .map(|chunk| serde_json::from_str::<Value>(&chunk.text).unwrap())
        .next()
        .unwrap();
    assert_eq!(
        provenance["command"],
        serde_json::json!(["--out", "a.png", "--model", "tiny"])
    );
    // Our own picture is replaced, whatever its form.
    folder
        .tiny(&["--out", "a.svg", "--title", "Another"])
        .success();
    let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
    assert!(svg.contains("<title>Another</title>"));
    folder
        .tiny(&["--out", "a.jpg"])
        .failure(2, &["a name that ends in .png or .svg instead of a.jpg"]);
}

#[test]
fn the_figures_options_change_the_figure() {
    let folder = exported();
    let plot = |more: &[&str]| {
        let args = [&["plot", "a.csv", "--out", "b.svg"], more].concat();
        let text = folder.run(args).success().stdout;
        (fs::read_to_string(folder.file("b.svg")).unwrap(), text)
    };
    let (plain, _) = plot(&[]);
    let (viridis, _) = plot(&["--cmap", "Viridis"]);
    assert!(viridis.contains("fill=\"#440154\"") && !plain.contains("#440154"));
    let (clipped, text) = plot(&["--vmin", "-1", "--vmax", "1"]);
    assert!(clipped.contains("Values beyond the scale"));
    assert!(text.contains("Values beyond the scale"));
    assert!(plain.contains(">−10.3<") && !plot(&["--cell-values", "never"]).0.contains(">−10.3<"));
    assert!(!plot(&["--title", ""]).0.contains("Patching resid_post"));
    let png = |scale: &str| {
        let args = ["plot", "a.csv", "--out", "c.png", "--scale", scale];
        folder.run(args).success();
        let bytes = fs::read(folder.file("c.png")).unwrap();
        png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap()
            .info()
            .width
    };
    assert_eq!(png("2"), 2 * png("1"));
    for (args, part) in [
        (
            ["--vmin", "3", "--vmax", "1"],
            "--vmin 3 must be less than --vmax 1",
        ),
        (
            ["--scale", "9", "--title", ""],
            "give a number from 0.25 to 8",
        ),
        (["--center", "inf", "--title", ""], "it is no finite number"),
        (
            ["--font", "a.csv", "--title", ""],
            "a.csv is no TrueType or OpenType font",
        ),
        (
            ["--font", "none.ttf", "--title", ""],
            "cannot read none.ttf",
        ),
        (
            ["--cmap", "virids", "--title", ""],
            "a similar value exists: 'viridis'",
        ),
        (
            ["--grid", "resid_pst", "--title", ""],
            "did you mean resid_post?",
        ),
        (
            ["--select", "layer=12", "--title", ""],
            "give one from 0 to 11",
        ),
        (["--select", "layer", "--title", ""], "such as layer=3"),
    ] {
        folder
            .run([&["plot", "a.csv"], &args[..]].concat())
            .failure(2, &[part]);
    }
}

#[test]
fn diff_finds_the_largest_difference_and_where_it_is() {
    let folder = exported();
    let same = folder
        .run(["diff", "a.csv", "a.npy", "--tolerance", "0"])
        .success();
    assert!(
        same.stdout.contains("resid_post: 132 values, all equal"),
        "{}",
        same.stdout
    );
    let table = fs::read_to_string(folder.file("a.csv")).unwrap();
    let changed = table.replacen("resid_post,0,2, was,12.", "resid_post,0,2, was,13.", 1);
    assert_ne!(changed, table);
    fs::write(folder.file("b.csv"), changed).unwrap();
    let json = folder
        .run([
            "diff", "a.csv", "b.csv", "--json", "--out", "d.png", "--csv", "d.csv",
        ])
        .success()
        .json();
    let difference = &json["differences"][0];
    assert!((difference["largest"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert_eq!(difference["at"], "layer 0, pos 2 ␣was");
    let values = numbers(&json["grids"][0]["values"]);
    assert!((values[2] - 1.0).abs() < 1e-5);
    assert_eq!(values.iter().filter(|&&value| value != 0.0).count(), 1);
    assert!(folder.file("d.png").exists() && folder.file("d.csv.json").exists());
    let run = folder.run(["diff", "a.csv", "b.csv", "--tolerance", "0.5"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("is more than --tolerance 0.5"),
        "{}",
        run.stderr
    );
    folder.tiny(&["--site", "z", "--csv", "z.csv"]).success();
    folder.run(["diff", "a.csv", "z.csv"]).failure(
        2,
        &["other axes: layer 12 × pos 11 in a.csv, layer 12 × head 4 in z.csv"],
    );
}

#[test]
fn an_export_that_cannot_be_written_stops_the_run_before_any_work_and_leaves_nothing() {
    let folder = Folder::new();
    fs::write(folder.file("mine.csv"), "a,b\n").unwrap();
    fs::write(folder.file("mine.safetensors"), "years of work").unwrap();
    for (args, code, part) in [
        (
            ["--csv", "mine.csv"],
            1,
            "mine.csv: it exists, and is not a file that patch-cli made",
        ),
        (
            ["--safetensors", "mine.safetensors"],
            1,
            "is not a file that patch-cli made",
        ),
        (
            ["--npy", "none/a.npy"],
            1,
            "cannot write none/a.npy: No such file or directory",
        ),
        (
            ["--npy", "a.csv"],
            2,
            "--npy a.csv: give a name that ends in .npy",
        ),
    ] {
        folder.tiny(&args).failure(code, &[part]);
    }
    assert_eq!(folder.files(), ["mine.csv", "mine.safetensors"]);
}

#[test]
fn colours_follow_the_conventions_of_the_environment() {
    let folder = exported();
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        let output = folder
            .command()
            .args(["plot", "a.csv"])
            .args(args)
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!run(&[], &[]).contains('\u{1b}'), "colours in a pipe");
    let forced = [("CLICOLOR_FORCE", "1")];
    assert!(run(&forced, &[]).contains("\u{1b}[48;5;"));
    let truecolor = [("CLICOLOR_FORCE", "1"), ("COLORTERM", "truecolor")];
    assert!(run(&truecolor, &[]).contains("\u{1b}[48;2;"));
    assert!(!run(&[("NO_COLOR", "1")], &[]).contains('\u{1b}'));
    assert!(run(&[("NO_COLOR", "1")], &["--color", "always"]).contains('\u{1b}'));
    assert!(!run(&forced, &["--color", "never"]).contains('\u{1b}'));
    // Without a terminal there are 80 columns.
    for text in [run(&[], &[]), folder.tiny(&["--top", "0"]).success().stdout] {
        let longest = text.lines().map(|line| line.chars().count()).max();
        assert!(longest <= Some(80), "{text}");
    }
}

#[test]
fn every_shell_has_its_completions_and_every_subcommand_its_man_page() {
    let folder = Folder::new();
    for (shell, part) in [
        ("bash", "complete -F _patch__cli"),
        ("zsh", "#compdef patch-cli"),
        ("fish", "complete -c patch-cli"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = folder.run(["completions", shell]).success().stdout;
        assert!(script.contains(part), "{shell}");
        assert!(script.contains("safetensors"), "{shell}");
    }
    folder
        .run(["completions", "bsh"])
        .failure(2, &["a similar value exists: 'bash'"]);
    for _ in 0..2 {
        folder.run(["man", "."]).success();
    }
    let pages = folder.files();
    assert!(pages.contains(&"patch-cli.1".to_owned()), "{pages:?}");
    let page = fs::read_to_string(folder.file("patch-cli-plot.1")).unwrap();
    assert!(
        page.contains("patch\\-cli\\-plot \\- ") && page.contains("\\-\\-cmap"),
        "{page}"
    );
    let help = folder.run(["--help"]).success().stdout;
    for page in &pages {
        let name = page.trim_start_matches("patch-cli-").trim_end_matches(".1");
        assert!(help.contains(name), "{name}");
    }
}

#[test]
fn the_help_fits_a_screen_and_has_examples() {
    let folder = Folder::new();
    let help = folder.run(["--help"]).success().stdout;
    assert!(help.lines().count() <= 55, "{help}");
    assert!(help.contains("Examples:\n  patch-cli\n"));
    let subcommands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    for line in subcommands.filter(|line| !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        if name == "help" {
            continue;
        }
        let of_subcommand = folder.run([name, "--help"]).success().stdout;
        let has_examples = of_subcommand.contains("Examples:\n");
        assert!(has_examples || name == "models", "{name}");
    }
    let whole = folder.run(["sweep", "--help"]).success().stdout;
    for option in ["--vmin", "--cell-values", "--threads", "--memory"] {
        assert!(whole.contains(option) && !help.contains(option), "{option}");
    }
}

#[test]
fn a_misspelt_name_is_answered_with_the_nearest_one() {
    let folder = Folder::new();
    for (args, part) in [
        (
            ["--site", "resid_pst"],
            "a similar value exists: 'resid_post'",
        ),
        (
            ["--direction", "denoisin"],
            "a similar value exists: 'denoising'",
        ),
        (
            ["--metric", "logit_dif"],
            "a similar value exists: 'logit_diff'",
        ),
        (["--model", "gpt2-smal"], "did you mean gpt2"),
        (["--model", "tinny"], "did you mean tiny?"),
        (["--modle", "tiny"], "a similar argument exists: '--model'"),
    ] {
        folder.run(args).failure(2, &[part]);
    }
    let strange = folder.run(["--model", "llama"]).failure(2, &["`llama`"]);
    assert!(!strange.stderr.contains("did you mean"));
    // TransformerLens's spelling is as good.
    let json = folder
        .tiny(&["--site", "hook_z", "--json"])
        .success()
        .json();
    assert_eq!(json["grids"][0]["name"], "z");
}
