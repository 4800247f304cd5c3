//! Pictures and exports as a user makes and reads them.

use std::fs;

use safetensors::SafeTensors;
use serde_json::Value;

use crate::util::{Folder, golden_case, largest_difference, numbers};

/// The main job with every export, in a folder.
fn exported() -> Folder {
    let folder = Folder::new();
    let args = ["--csv", "a.csv", "--npy", "a.npy", "--safetensors", "a.safetensors", "--json"];
    let run = folder.tiny(&args).success();
    fs::write(folder.file("a.json"), &run.stdout).unwrap();
    folder
}

fn golden_grid() -> Vec<f32> {
    numbers(&golden_case("sweeps", "surname, denoising")["sweeps"]["resid_post"]["values"])
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
        chunks.map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect()
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
    assert!(lines[2].starts_with("resid_post,0,1, Smith,-10.28"), "{}", lines[2]);

    for sidecar in ["a.csv.json", "a.npy.json"] {
        let words: Value = serde_json::from_slice(&fs::read(folder.file(sidecar)).unwrap()).unwrap();
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
    let run = |file: &str| folder.run(["plot", file, "--out", "again.png"]).success().stdout;
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
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[test]
fn a_picture_says_what_made_it_as_png_and_as_svg() {
    let folder = Folder::new();
    folder.tiny(&["--out", "a.svg"]).success();
    let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
    assert!(
        svg.contains("<title>Patching resid_post from the clean into the corrupted run (values)</title>")
    );
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
    assert_eq!(provenance["command"], serde_json::json!(["--out", "a.png", "--model", "tiny"]));
    // Our own picture is replaced, whatever its form.
    folder.tiny(&["--out", "a.svg", "--title", "Another"]).success();
    let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
    assert!(svg.contains("<title>Another</title>"));
    folder.tiny(&["--out", "a.jpg"]).failure(2, &["a name that ends in .png or .svg instead of a.jpg"]);
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
        png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap().info().width
    };
    assert_eq!(png("2"), 2 * png("1"));
    for (args, part) in [
        (["--vmin", "3", "--vmax", "1"], "--vmin 3 must be less than --vmax 1"),
        (["--scale", "9", "--title", ""], "give a number from 0.25 to 8"),
        (["--center", "inf", "--title", ""], "not a finite number"),
        (["--font", "a.csv", "--title", ""], "a.csv is not a TrueType or OpenType font"),
        (["--font", "none.ttf", "--title", ""], "cannot read none.ttf"),
        (["--cmap", "virids", "--title", ""], "a similar value exists: 'viridis'"),
        (["--grid", "resid_pst", "--title", ""], "did you mean resid_post?"),
        (["--select", "layer=12", "--title", ""], "give one from 0 to 11"),
        (["--select", "layer", "--title", ""], "such as layer=3"),
    ] {
        folder.run([&["plot", "a.csv"], &args[..]].concat()).failure(2, &[part]);
    }
}

#[test]
fn diff_finds_the_largest_difference_and_where_it_is() {
    let folder = exported();
    let same = folder.run(["diff", "a.csv", "a.npy", "--tolerance", "0"]).success();
    assert!(same.stdout.contains("resid_post: 132 values, all equal"), "{}", same.stdout);
    let table = fs::read_to_string(folder.file("a.csv")).unwrap();
    let changed = table.replacen("resid_post,0,2, was,12.", "resid_post,0,2, was,13.", 1);
    assert_ne!(changed, table);
    fs::write(folder.file("b.csv"), changed).unwrap();
    let json =
        folder.run(["diff", "a.csv", "b.csv", "--json", "--out", "d.png", "--csv", "d.csv"]).success().json();
    let difference = &json["differences"][0];
    assert!((difference["largest"].as_f64().unwrap() - 1.0).abs() < 1e-5);
    assert_eq!(difference["at"], "layer 0, pos 2 ␣was");
    let values = numbers(&json["grids"][0]["values"]);
    assert!((values[2] - 1.0).abs() < 1e-5);
    assert_eq!(values.iter().filter(|&&value| value != 0.0).count(), 1);
    assert!(folder.file("d.png").exists() && folder.file("d.csv.json").exists());
    let run = folder.run(["diff", "a.csv", "b.csv", "--tolerance", "0.5"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("is more than --tolerance 0.5"), "{}", run.stderr);
    folder.tiny(&["--site", "z", "--csv", "z.csv"]).success();
    folder
        .run(["diff", "a.csv", "z.csv"])
        .failure(2, &["different axes: layer 12 × pos 11 in a.csv, layer 12 × head 4 in z.csv"]);
}

#[test]
fn an_unwritable_export_stops_the_run_and_leaves_nothing() {
    let folder = Folder::new();
    fs::write(folder.file("mine.csv"), "a,b\n").unwrap();
    fs::write(folder.file("mine.safetensors"), "years of work").unwrap();
    for (args, code, part) in [
        (["--csv", "mine.csv"], 1, "mine.csv: it exists, and is not a file that patch-cli made"),
        (["--safetensors", "mine.safetensors"], 1, "is not a file that patch-cli made"),
        (["--npy", "none/a.npy"], 1, "cannot write none/a.npy: No such file or directory"),
        (["--npy", "a.csv"], 2, "--npy a.csv: give a name that ends in .npy"),
    ] {
        folder.tiny(&args).failure(code, &[part]);
    }
    assert_eq!(folder.files(), ["mine.csv", "mine.safetensors"]);
}

#[test]
fn a_difference_does_not_replace_what_is_compared() {
    let folder = exported();
    let before = fs::read(folder.file("a.csv")).unwrap();
    fs::create_dir(folder.file("sub")).unwrap();
    for name in ["a.csv", "sub/../a.csv"] {
        folder.run(["diff", "a.npy", "a.csv", "--csv", name]).failure(2, &["one of the two files"]);
    }
    assert_eq!(fs::read(folder.file("a.csv")).unwrap(), before);
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
fn every_shell_has_completions_and_every_subcommand_a_man_page() {
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
    folder.run(["completions", "bsh"]).failure(2, &["a similar value exists: 'bash'"]);
    for _ in 0..2 {
        folder.run(["man", "."]).success();
    }
    let pages = folder.files();
    assert!(pages.contains(&"patch-cli.1".to_owned()), "{pages:?}");
    let page = fs::read_to_string(folder.file("patch-cli-plot.1")).unwrap();
    assert!(page.contains("patch\\-cli\\-plot \\- ") && page.contains("\\-\\-cmap"), "{page}");
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
    let subcommands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
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
        (["--site", "resid_pst"], "a similar value exists: 'resid_post'"),
        (["--direction", "denoisin"], "a similar value exists: 'denoising'"),
        (["--metric", "logit_dif"], "a similar value exists: 'logit_diff'"),
        (["--model", "gpt2-smal"], "did you mean gpt2"),
        (["--model", "tinny"], "did you mean tiny?"),
        (["--modle", "tiny"], "a similar argument exists: '--model'"),
    ] {
        folder.run(args).failure(2, &[part]);
    }
    let strange = folder.run(["--model", "llama"]).failure(2, &["`llama`"]);
    assert!(!strange.stderr.contains("did you mean"));
    // TransformerLens's spelling is accepted too.
    let json = folder.tiny(&["--site", "hook_z", "--json"]).success().json();
    assert_eq!(json["grids"][0]["name"], "z");
}

#[test]
fn a_picture_names_the_characters_that_no_font_has() {
    let folder = Folder::new();
    let draw = |text: &str, file: &str| {
        let run = folder.tiny(&["attention", text, "--head", "0.1", "--out", file]).success();
        assert!(folder.file(file).exists(), "{file}");
        let notes = run.stderr.lines();
        let notes = notes.filter(|line| line.starts_with("note: "));
        notes.map(str::to_owned).collect::<Vec<String>>()
    };
    let japanese = "猫は犬を追いかけた、猫は";
    let [png] = &draw(japanese, "a.png")[..] else { panic!("not one note") };
    let named = "note: a.png: the fonts lack 猫 (U+732B), は (U+306F), 犬 (U+72AC), を (U+3092), ";
    assert!(png.starts_with(named), "{png}");
    assert!(png.contains(" and 2 more: boxes with their codes") && png.contains("--font FILE"));
    assert_eq!(png.matches('猫').count(), 1);
    let [svg] = &draw(japanese, "a.svg")[..] else { panic!("not one note") };
    assert!(svg.contains("the viewer takes them from its own fonts"), "{svg}");
    // DejaVu has Arabic, and what cannot be seen is written as its code.
    for text in ["The cat sat", "طارد القط الكلب", "a \u{e000} b \u{f8ff} c"] {
        for file in ["a.png", "a.svg"] {
            assert_eq!(draw(text, file), [""; 0], "{text}");
        }
    }
}

#[test]
fn json_and_exports_have_the_checksum_of_the_weights() {
    let folder = Folder::new();
    fs::create_dir(folder.file("mine")).unwrap();
    fs::write(folder.file("mine/config.json"), gpt2_tiny::CONFIG).unwrap();
    fs::write(folder.file("mine/model.safetensors"), gpt2_tiny::WEIGHTS).unwrap();
    let lens = ["lens", "The cat", "--answers", " cat", " dog", "--model", "mine"];
    let heads = ["attention", "The cat", "--head", "0.1", "--model", "mine"];
    for args in [&["--model", "mine"][..], &lens, &heads] {
        let json = folder.run([args, &["--json"]].concat()).success().json();
        let checksum = &json["provenance"]["model_checksum"]["model.safetensors"];
        assert_eq!(checksum, gpt2_tiny::SHA256, "{args:?}");
    }
    // A picture has it only if it is on record, and does not wait for it otherwise.
    for (model, on_record) in [("mine", false), ("tiny", true)] {
        folder.run(["--model", model, "--out", "a.svg"]).success();
        let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
        assert!(svg.contains("&quot;model&quot;:"));
        assert_eq!(svg.contains("model_checksum"), on_record, "{model}");
        assert_eq!(svg.contains(gpt2_tiny::SHA256), on_record, "{model}");
    }
}

#[test]
fn a_run_in_utf_16_or_by_excel_is_read_or_named() {
    let folder = exported();
    let utf16 = |file: &str, mark: bool| {
        let text = fs::read_to_string(folder.file(file)).unwrap();
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let named = ["it is written in UTF-16; save it as UTF-8"];
    for mark in [true, false] {
        for file in ["a.json", "a.csv"] {
            let bytes = utf16(file, mark);
            let other = format!("b{}", &file[1..]);
            fs::write(folder.file(&other), bytes).unwrap();
            folder.run(["plot", &other]).failure(2, &[&other, named[0]]);
            folder.run(["diff", "a.npy", &other]).failure(2, &named);
            folder.tiny(&["--resume", &other]).failure(2, &named);
        }
        fs::write(folder.file("b.csv"), fs::read(folder.file("a.csv")).unwrap()).unwrap();
        fs::write(folder.file("b.csv.json"), utf16("a.csv.json", mark)).unwrap();
        let words = folder.run(["plot", "b.csv"]);
        words.failure(2, &["b.csv.json: it is written in UTF-16"]);
        fs::remove_file(folder.file("b.csv.json")).unwrap();
    }
    let table = fs::read_to_string(folder.file("a.csv")).unwrap();
    fs::write(folder.file("b.csv"), format!("sep=,\r\n{table}")).unwrap();
    let same = folder.run(["diff", "a.csv", "b.csv"]).success();
    assert!(same.stdout.contains("132 values, all equal"));
    fs::write(folder.file("b.csv"), format!("sep=;\r\n{table}")).unwrap();
    folder.run(["plot", "b.csv"]).failure(2, &["b.csv: its columns are separated by \";\""]);
}

#[test]
fn numbers_without_words_are_compared_by_place() {
    let folder = exported();
    // As numpy.save writes the transposed array's transposition: big-endian, in Fortran order.
    let array = fs::read(folder.file("a.npy")).unwrap();
    let values: Vec<[u8; 4]> =
        (array[128..].chunks_exact(4)).map(|chunk| [chunk[3], chunk[2], chunk[1], chunk[0]]).collect();
    let turned: Vec<u8> = (0..132).flat_map(|place| values[place % 12 * 11 + place / 12]).collect();
    let header = |shape: &str| format!("{{'descr': '>f4', 'fortran_order': True, 'shape': {shape}, }}\n");
    let npy = |shape: &str| {
        let header = header(shape);
        let length = (header.len() as u16).to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), &turned].concat()
    };
    fs::write(folder.file("mine.npy"), npy("(12, 11)")).unwrap();
    for (a, b) in [
        ("a.npy", "mine.npy"),
        ("mine.npy", "a.npy"),
        ("a.csv", "mine.npy"),
        ("mine.npy", "a.safetensors"),
        ("a.json", "mine.npy"),
    ] {
        let run = folder.run(["diff", a, b]).success();
        let equal = "resid_post: 132 values, all equal";
        assert!(run.stdout.contains(equal), "{a} {b}: {}", run.stdout);
        assert!(run.stdout.contains("position 0 Michelle"), "{}", run.stdout);
        let note = "note: mine.npy does not say what its axes are";
        assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
        assert!(run.stderr.starts_with(note), "{}", run.stderr);
    }
    let both = folder.run(["diff", "mine.npy", "mine.npy"]).success();
    assert!(both.stderr.contains("neither file says what its axes are"));
    let known = folder.run(["diff", "a.npy", "a.csv"]).success();
    assert_eq!(known.stderr, "");
    fs::write(folder.file("mine.npy"), npy("(11, 12)")).unwrap();
    folder
        .run(["diff", "a.npy", "mine.npy"])
        .failure(2, &["layer 12 × pos 11 in a.npy, axis0 11 × axis1 12 in mine.npy"]);
    folder.tiny(&["--resume", "mine.npy"]).failure(2, &["does not say what made it"]);
    // Of several grids, the one that is named.
    let sites = ["--site", "blocks"];
    let files = ["--safetensors", "all.safetensors", "--out", "all.png"];
    folder.tiny(&[&sites[..], &files].concat()).success();
    fs::write(folder.file("mine.npy"), npy("(12, 11)")).unwrap();
    folder
        .run(["diff", "all.safetensors", "mine.npy"])
        .failure(2, &["an array alone is compared with the grid that --grid names"]);
    let named = ["diff", "all.safetensors", "mine.npy", "--grid", "resid_pre"];
    let run = folder.run(named).success();
    assert!(run.stdout.contains("resid_pre: 132 values; largest difference"));
}

#[test]
fn numbers_too_many_to_draw_are_compared_all_the_same() {
    let folder = Folder::new();
    for (text, file) in [("The cat", "a.safetensors"), ("The dog", "b.safetensors")] {
        folder.tiny(&["activations", text, "--only", "logits", "--save", file]).success();
    }
    let diff = |more: &[&str]| {
        let args = ["diff", "a.safetensors", "b.safetensors"];
        folder.run([&args[..], more].concat())
    };
    let text = diff(&[]).success().stdout;
    assert!(text.contains("no figure: the grid \"logits\" of the shape [2, 50257]"));
    assert!(text.contains("logits: 100514 values; largest difference"));
    let json = diff(&["--json"]).success().json();
    assert_eq!(json["differences"][0]["values"], 100_514);
    let picture = diff(&["--out", "d.png", "--npy", "d.npy"]);
    picture.failure(2, &["--select token=0"]);
    assert_eq!(folder.files(), ["a.safetensors", "b.safetensors"]);
}

#[test]
fn texts_without_end_are_cut_and_grids_without_number_left_out() {
    let folder = Folder::new();
    let axes = serde_json::json!([
        {"name": "layer", "labels": ["0", "1"]},
        {"name": "pos", "labels": ["a", "b"]},
    ]);
    let export = |text: &str, grids: usize| {
        let grid = |i: usize| {
            serde_json::json!({
                "name": format!("g{i}"), "axes": axes, "values": [1, 2, 3, 4], "value_label": text,
                "legend": vec![text; if grids == 1 { 100 } else { 1 }],
            })
        };
        let grids: Vec<_> = (0..grids).map(grid).collect();
        let study = serde_json::json!({"title": text, "subtitle": vec![text; 100], "grids": grids});
        fs::write(folder.file("a.json"), study.to_string()).unwrap();
    };
    for letters in [10_000, 1_000_000] {
        export(&"t".repeat(letters), 1);
        let missing = format!("[…{} more characters…]", letters - 1000);
        let shown = folder.run(["plot", "a.json", "--out", "a.svg"]).success().stdout.replace('\n', " ");
        assert!(shown.contains("more characters") && shown.contains("[…40 more lines…]"), "{shown}");
        let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
        // A line of the picture ends where it is full.
        assert!(svg.contains(missing.split(' ').next().unwrap()) && svg.len() < 500_000, "{}", svg.len());
        folder.run(["plot", "a.json", "--out", "a.png"]).success();
    }
    for grids in [151, 10_000] {
        export("x", grids);
        let shown = folder.run(["plot", "a.json", "--out", "a.svg"]).success().stdout;
        let left_out = format!("Left out: {} of {grids} grids; --grid NAME", grids - 150);
        assert!(shown.contains(&left_out), "{shown}");
        let svg = fs::read_to_string(folder.file("a.svg")).unwrap();
        assert!(svg.contains("Left out:") && svg.contains(">g149<") && !svg.contains(">g150<"));
        folder.run(["plot", "a.json", "--grid", "g150"]).success();
    }
}
