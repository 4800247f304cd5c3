//! Wrong input: a clear message, the right exit code, and nothing else. Mistakes that concern one
//! subcommand are in its own tests; the rest are here.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::util::Folder;

/// Subcommands without a model.
const WITHOUT_MODEL: [&str; 6] = ["tokens", "plot", "diff", "models", "completions", "man"];

/// Runs it, with the tiny model where it takes one, and asserts that it fails with this exit code and
/// one short message that has all these parts, and leaves the folder as it was.
#[track_caller]
fn refused<A: AsRef<OsStr>>(folder: &Folder, args: &[A], code: i32, parts: &[&str]) {
    let texts: Vec<&str> = (args.iter()).filter_map(|arg| arg.as_ref().to_str()).collect();
    let takes_none = texts.first().is_some_and(|first| WITHOUT_MODEL.contains(first));
    let model = if takes_none || texts.contains(&"--model") { &[][..] } else { &["--model", "tiny"] };
    let before = folder.files();
    let args = args.iter().map(AsRef::as_ref);
    let run = folder.run(args.chain(model.iter().map(OsStr::new)));
    let run = run.failure(code, parts);
    let errors = run.stderr.lines().filter(|line| line.starts_with("error:"));
    assert_eq!(errors.count(), 1, "{}", run.stderr);
    assert!(run.stderr.len() < 5000, "{}", run.stderr);
    assert!(!run.stderr.contains('\u{1b}'), "{:?}", run.stderr);
    assert_eq!(folder.files(), before, "{}", run.stderr);
}

/// An export of one grid, two layers × two positions, with some entries changed.
fn export(changes: Value) -> String {
    let mut grid = json!({
        "name": "x",
        "axes": [{"name": "layer", "labels": ["0", "1"]}, {"name": "pos", "labels": ["a", "b"]}],
        "values": [1.0, 2.0, 3.0, 4.0],
    });
    for (key, value) in changes.as_object().unwrap() {
        grid[key] = value.clone();
    }
    json!({"grids": [grid]}).to_string()
}

fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, {header}}}\n");
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), data].concat()
}

#[test]
fn broken_exports_are_refused_wherever_they_are_read() {
    let folder = Folder::new();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.file(name), bytes).unwrap();
    let tensor = r#"{"x": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}"#;
    let nothing = r#"{"x": {"dtype": "F32", "shape": [0, 4000000000], "data_offsets": [0, 0]}}"#;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty.json", vec![], "the file is empty"),
        ("deep.json", b"[".repeat(100_000), "a JSON object with \"grids\" is expected"),
        ("list.json", b"{\"grids\": 3}".to_vec(), "invalid type: integer `3`"),
        ("nan.json", export(json!({})).replace("1.0", "NaN").into(), "expected"),
        ("huge.json", export(json!({})).replace("1.0", "1e999").into(), "number out of range"),
        ("text.json", export(json!({"values": ["1", "2", "3", "4"]})).into(), "string \"1\""),
        ("few.json", export(json!({"values": [1]})).into(), "the shape [2, 2] and 1 values"),
        (
            "none.json",
            export(json!({"axes": [{"name": "layer", "labels": []}], "values": []})).into(),
            "contains no numbers",
        ),
        ("point.json", export(json!({"axes": [], "values": [1]})).into(), "it is a single number"),
        ("cut.csv", b"grid,layer,value\nx,0".to_vec(), "CSV error"),
        ("gap.csv", b"grid,layer,value\nx,18446744073709551615,1\n".to_vec(), "gaps along layer"),
        (
            "index.csv",
            b"grid,layer,value\nx,99999999999999999999,1\n".to_vec(),
            "\"99999999999999999999\" is not an index",
        ),
        ("zeros.csv", vec![0; 100], "the columns grid, axes, value"),
        ("utf16.csv", b"\xff\xfeg\0r\0i\0d\0\n\0".to_vec(), "it is written in UTF-16; save it as UTF-8"),
        ("nothing.npy", npy("'shape': (0, 18446744073709551615), ", b""), "contains no numbers"),
        ("much.npy", npy("'shape': (4000000000, 4000000000), ", b""), "it holds 0 numbers"),
        ("minus.npy", npy("'shape': (-1, 2), ", b""), "\"-1\" is not a length"),
        ("shapeless.npy", npy("", b""), "no \"shape\""),
        ("header.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "cut off"),
        ("long.npy", npy("'shape': (20000, 1), ", &[0; 80_000]), "20000, 1] cannot be drawn"),
        ("header.safetensors", u64::MAX.to_le_bytes().to_vec(), "not a whole safetensors file"),
        ("integers.safetensors", safetensors(tensor, &[0; 8]), "\"x\" is I64"),
        ("nothing.safetensors", safetensors(nothing, b""), "contains no numbers"),
        ("empty.safetensors", safetensors("{}", b""), "it contains no grid"),
    ];
    put("good.json", export(json!({})).as_bytes());
    for (name, bytes, part) in &cases {
        put(name, bytes);
        let part = &[*part][..];
        refused(&folder, &["plot", name, "--out", "a.png"], 2, part);
        // A study that can be read but not drawn can still be compared, but not with other axes.
        let unlike = matches!(*name, "point.json" | "long.npy");
        let part = if unlike { &["different axes"] } else { part };
        refused(&folder, &["diff", "good.json", name, "--json"], 2, part);
    }
    for name in ["nan.json", "huge.json", "nothing.npy", "header.safetensors", "good.json"] {
        refused(&folder, &["--resume", name], 2, &[]);
    }
}

#[test]
fn numbers_that_are_not_finite_are_drawn_and_compared_and_kept() {
    let folder = Folder::new();
    let put = |name: &str, changes: Value| fs::write(folder.file(name), export(changes)).unwrap();
    put("null.json", json!({"values": [null, null, null, null]}));
    put("far.json", json!({"values": [3.4e38, -3.4e38, 1e39, null], "center": 1e39}));
    put(
        "odd.json",
        json!({
            "name": "\u{1b}[31m\n\0", "title": "\u{1b}[2J\u{7}", "value_label": "\u{202e}",
            "highlight": {"axis": "pos", "indices": [7, u64::MAX], "label": "x"},
            "axes": [{"name": "layer", "places": [u64::MAX], "labels": ["0", "1"]}, {"name": "layer", "labels": ["a", "b"]}],
        }),
    );
    fs::write(folder.file("far.csv"), "grid,layer,value\nx,0,NaN\nx,1,inf\n").unwrap();
    for name in ["null.json", "far.json", "odd.json", "far.csv"] {
        for picture in ["a.png", "a.svg"] {
            let run = folder.run(["plot", name, "--out", picture]).success();
            assert!(!run.stdout.contains('\u{1b}'), "{name}: {:?}", run.stdout);
            fs::remove_file(folder.file(picture)).unwrap();
        }
    }
    let far = ["diff", "null.json", "far.json", "--tolerance", "1"];
    let run = folder.run(far);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("the largest difference, inf"), "{}", run.stderr);
}

#[test]
fn arguments_of_the_wrong_kind_or_size_are_named() {
    const HUGE: &str = "18446744073709551615";
    const BEYOND: &str = "99999999999999999999";
    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    fs::create_dir(folder.file("folder")).unwrap();
    fs::create_dir(folder.file("folder.json")).unwrap();
    fs::write(folder.file("latin1.txt"), b"caf\xe9").unwrap();
    fs::write(folder.file("blank.txt"), "\n\n").unwrap();
    let cases: &[(&[&str], &[&str])] = &[
        (&["--top", BEYOND], &[BEYOND]),
        (&["--threads", "65536"], &["65536", "1..=65535"]),
        (&["--threads", "9999"], &["--threads asks for 9999 threads", "cores: give at most"]),
        (&["--memory", "99999999999GiB"], &["99999999999GiB", "is not a size"]),
        (&["--scale", "NaN"], &["NaN", "from 0.25 to 8"]),
        (&["--vmin", "1e39"], &["1e39", "not a finite number"]),
        (&["--center", "inf"], &["inf", "not a finite number"]),
        (&["--vmin", "2", "--vmax", "1"], &["--vmin 2 must be less than --vmax 1"]),
        (&["--font", "folder"], &["cannot read folder: it is a folder"]),
        (&["--html", "heatmap.png"], &["--html heatmap.png", "ends in .html"]),
        (&["--html", "a.html", "--prompt-set", "ioi"], &["--html"]),
        (&["--layers", "1048576"], &["no layer 1048576", "0 to 11"]),
        (&["--layers", "0..1048577"], &["0..1048577", "beyond 1048576"]),
        (&["--layers", ""], &["''", "neither a number nor a range"]),
        (&["--site", "z", "--heads", "1.-1"], &["1.-1", "LAYER.HEAD"]),
        (&["--loss-at", "5..3", "--metric", "loss"], &["5..3", "empty range"]),
        (&["--prompt-set", "ioi", "--count", HUGE], &[HUGE, "1 to 100000"]),
        (&["--prompt-set", "ioi", "--count", "2", "--resamples", HUGE], &[HUGE, "1 to 1000000"]),
        (&["--prompt-set", "ioi", "--seed", "-1"], &["-1"]),
        (&["--resume", "folder.json"], &["cannot read folder.json: it is a folder"]),
        (&["--resume", "latin1.txt"], &["latin1.txt", "ends in .json"]),
        (&["ablate", "--with", "other-position", HUGE], &["no pos 18446744073709551615", "0 to 10"]),
        (&["ablate", "--with", "other-position", "x"], &["x"]),
        (&["ablate", "--with", "mean", "--others", "folder"], &["folder: cannot read it: it is a folder"]),
        (
            &["ablate", "--with", "mean", "--others", "latin1.txt"],
            &["latin1.txt, line 1: not UTF-8: the byte 0xe9"],
        ),
        (&["ablate", "--with", "mean", "--others", "blank.txt"], &["blank.txt: it contains no prompts"]),
        (&["path", "--pos", HUGE], &["no position 18446744073709551615", "0 to 10"]),
        (
            &["path", "--to", "q", "--receivers", "18446744073709551615.0"],
            &["no head 18446744073709551615.0"],
        ),
        (&["path", "--from", "q"], &["'q'", "z"]),
        (&["predict", "a", "--top", "1e3"], &["1e3"]),
        (&["predict", "a", "--multi-token"], &["--answer"]),
        (&["predict", "a", "--process=some"], &["some", "all, default"]),
        (&["activations", "a", "--only", "blocks.12.*"], &["blocks.12.*", "0 to 11"]),
        (&["activations", "a", "--save", "folder"], &["--save folder", ".safetensors"]),
        (&["activations", "a", "--save", "a.npy"], &["one array"]),
        (&["attention", "a"], &["which heads?", "--head 5.1,4.2", "--all"]),
        (&["attention", "", "--head", "0.0"], &["prompt"]),
        (
            &["attention", "a", "--head", "18446744073709551615.0"],
            &["no head 18446744073709551615.0", "0 to 11"],
        ),
        (&["attention", "a", "--head", "0.0,"], &["''", "LAYER.HEAD"]),
        (&["detect", ""], &["the prompt is empty"]),
        (&["detect", "a", "--kind", "lazy_head"], &["lazy_head", "induction_head"]),
        (&["detect", "a", "--error-measure", "vibes"], &["vibes", "mul"]),
        (&["lens", "a", "--pos", "0"], &["--answers"]),
        (&["lens", "a", "--answers", " a", " the", "--pos", HUGE], &["no position 18446744073709551615"]),
        (&["lens", "a", "--answers", " a"], &["--answers", "2 values"]),
        (&["repeat", "--seq-len", HUGE], &["18446744073709551615 tokens cannot be repeated"]),
        (&["repeat", "--batch", "4097"], &["4097", "1..=4096"]),
        (&["repeat", "--vocab", "some"], &["some", "known, all"]),
        (&["compose", "--kind", "z"], &["z", "q"]),
        (&["compose", "--circuit", "1.1", "99.9"], &["no head 99.9"]),
        (&["compose", "--circuit", "1.1"], &["2 values"]),
        (&["ioi", "--site", "resid_post"], &["resid_post", "z, q, k, v or pattern"]),
        (&["ioi", "--csv", "folder"], &["--csv folder", ".csv"]),
        (&["verify", "--as", "gpt5"], &["gpt5", "gpt2"]),
        (&["models", "tiny"], &["tiny"]),
        (&["completions", "tcsh"], &["tcsh", "bash"]),
        (&["plot", "folder.json"], &["cannot read folder.json: it is a folder"]),
        (&["plot", "good.json", "--select", "layer=-99"], &["there is no layer -99", "from -1 to -2"]),
        (&["plot", "good.json", "--select", "="], &["'='", "is not an index"]),
        (&["plot", "good.json", "--select", "layer=2"], &["layer 2 is not in the grid", "0 to 1"]),
        (&["plot", "good.json", "--grid", "y"], &["there is no grid \"y\"", "x"]),
        (&["plot", "good.json", "--out", "good.json"], &["good.json"]),
        (&["diff", "good.json"], &["<B>"]),
        (&["diff", "good.json", "good.json", "--tolerance", "NaN"], &["NaN", "from 0"]),
        (&["diff", "good.json", "good.json", "--tolerance", "-1"], &["-1", "from 0"]),
        (&["tokens", "--json"], &["<TEXT>"]),
        (&["--model", "folder/../../../../../../../dev/null"], &["dev/null"]),
    ];
    for (args, parts) in cases {
        let code = match args {
            // It exists and is not ours.
            [.., "--out", "good.json"] => 1,
            _ => 2,
        };
        refused(&folder, args, code, parts);
    }
}

#[test]
fn very_long_texts_give_a_short_message() {
    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    let (words, letters) = ("the ".repeat(25_000), "a".repeat(100_000));
    let (words, letters) = (words.as_str(), letters.as_str());
    let too_long: &[&str] = &["has 25001 tokens; this model reads at most 128"];
    let cases: &[(&[&str], &[&str])] = &[
        (&["predict", words], too_long),
        (&["predict", "a", "--compare", words], too_long),
        (&["predict", "a", "--answer", letters], &["\"aaaa", "characters…]", "exactly one is needed"]),
        (&["detect", words], too_long),
        (&["compose", "--head", "1.1", "--among", words], too_long),
        (&["ablate", words, "--logit-diff", " a", " the"], too_long),
        (&["--clean", words, "--corrupted", "a", "--logit-diff", " a", " the"], too_long),
        (&["--positions", letters], &["nor a token of the prompts: \"aaaa", "characters…]"]),
        (&["--model", letters], &["no weights for `aaaa", "characters…]"]),
        (&["plot", "good.json", "--grid", letters], &["there is no grid \"aaaa", "characters…]"]),
    ];
    for (args, parts) in cases {
        refused(&folder, args, 2, parts);
    }
    let run = folder.run(["tokens", words]).success();
    assert!(run.stdout.ends_with("25001 tokens\n"));
}

#[test]
fn control_characters_are_allowed_and_shown_escaped() {
    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    let red = "\u{1b}[31m";
    let quoted: &[&str] = &["plot", "good.json", "--grid", red];
    refused(&folder, quoted, 2, &["\"\\u{1b}[31m\""]);
    for args in [
        &["--model", red][..],
        &["plot", "\u{1b}[31m.json"],
        &["activations", "a", "--only", red],
        &["predict", "a", "--answer", "\u{1b}[31m b"],
        &["--positions", red],
    ] {
        refused(&folder, args, 2, &["\\x1b[31m"]);
    }
    let run = folder.run(["predict", "a\u{1b}[31m\u{7}\u{202e}b", "--model", "tiny"]).success();
    assert!(run.stdout.contains("\\x07") && !run.stdout.contains('\u{1b}'), "{}", run.stdout);
    if cfg!(unix) {
        folder.run(["plot", "good.json", "--out", "a\n\u{1b}[31m.png"]).success();
        assert_eq!(folder.files(), ["a\n\u{1b}[31m.png", "good.json"]);
    }
}

#[test]
fn the_man_pages_are_all_written_or_none() {
    let folder = Folder::new();
    refused(&folder, &["man", "none"], 1, &["cannot write none/patch-cli.1"]);
    fs::create_dir(folder.file("man")).unwrap();
    fs::write(folder.file("man/patch-cli-verify.1"), "mine").unwrap();
    refused(&folder, &["man", "man"], 1, &["man/patch-cli-verify.1: it exists"]);
    assert_eq!(fs::read_dir(folder.file("man")).unwrap().count(), 1);
}

/// Every kind of output into one place where nothing can be written.
#[track_caller]
fn cannot_be_written(folder: &Folder, place: &Path, reason: &str) {
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    let path = |name: &str| place.join(name).to_str().unwrap().to_owned();
    let [png, svg, csv, npy, safetensors, html] =
        ["a.png", "a.svg", "a.csv", "a.npy", "a.safetensors", "a.html"].map(path);
    for args in [
        &["--out", &png][..],
        &["--html", &html, "--out", "elsewhere.png"],
        &["ablate", "--out", &svg],
        &["plot", "good.json", "--out", &svg],
        &["plot", "good.json", "--out", &png],
        &["diff", "good.json", "good.json", "--csv", &csv],
        &["activations", "a", "--only", "hook_embed", "--save", &safetensors],
        &["activations", "a", "--only", "hook_embed", "--save", &npy],
        &["attention", "a", "--head", "0.0", "--csv", &csv],
        &["man", place.to_str().unwrap()],
    ] {
        refused(folder, args, 1, &["cannot write ", reason]);
        let left: Vec<_> = fs::read_dir(place).unwrap().collect();
        assert!(left.is_empty(), "{args:?}: {left:?}");
    }
}

/// A small file system in memory, if this user may mount one.
#[cfg(unix)]
struct Disk<'a>(&'a Path);

#[cfg(unix)]
impl<'a> Disk<'a> {
    fn mount(place: &'a Path, options: &str) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let output = mount.arg(place).output();
        let mounted = output.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(place))
    }
}

#[cfg(unix)]
impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0).status();
    }
}

#[cfg(unix)]
#[test]
fn nothing_is_written_into_a_folder_that_is_read_only() {
    use std::os::unix::fs::PermissionsExt;

    let folder = Folder::new();
    let place = folder.file("read-only");
    fs::create_dir(&place).unwrap();
    fs::set_permissions(&place, fs::Permissions::from_mode(0o555)).unwrap();
    let file = place.join("try");
    if fs::write(&file, "").is_err() {
        cannot_be_written(&folder, &place, "Permission denied");
        return;
    }
    // Permissions do not bind root, but a file system does.
    fs::remove_file(&file).unwrap();
    let disk = Disk::mount(&place, "ro");
    if disk.is_some() {
        cannot_be_written(&folder, &place, "Read-only file system");
    } else {
        println!("skipped: this user may write into read-only folders and not mount read-only ones");
    }
}

#[cfg(unix)]
#[test]
fn on_a_full_disk_nothing_is_left() {
    let folder = Folder::new();
    let place = folder.file("disk");
    fs::create_dir(&place).unwrap();
    let disk = Disk::mount(&place, "size=4k");
    if disk.is_none() {
        println!("skipped: this user may not mount a small tmpfs");
        return;
    }
    // Not even the first byte fits.
    let full = folder.file("disk/full");
    fs::write(&full, [0; 4096]).unwrap();
    let long = "No space left on device";
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    for args in [
        &["--out", "disk/a.png"][..],
        &["--out", "a.png", "--html", "disk/a.html"],
        &["plot", "good.json", "--out", "disk/a.svg"],
        &["diff", "good.json", "good.json", "--csv", "disk/a.csv"],
        &["activations", "a", "--save", "disk/a.safetensors"],
        &["man", "disk"],
    ] {
        let model = if WITHOUT_MODEL.contains(&args[0]) { &[][..] } else { &["--model", "tiny"] };
        let run = folder.run(args.iter().chain(model));
        run.failure(1, &["cannot write disk/", long]);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "{args:?}");
    }
}

/// One run of every subcommand that prints.
#[cfg(unix)]
const PRINTING: [&[&str]; 17] = [
    &["--model", "tiny"],
    &["--model", "tiny", "--json"],
    &["ablate", "--model", "tiny", "--layers", "0"],
    &["path", "--model", "tiny"],
    &["tokens", "a b c"],
    &["tokens", "a b c", "--json"],
    &["predict", "a", "--model", "tiny"],
    &["generate", "a", "--model", "tiny"],
    &["generate", "a", "--model", "tiny", "--json"],
    &["activations", "a", "--model", "tiny", "--json"],
    &["attention", "a", "--head", "0.0", "--model", "tiny"],
    &["detect", "a b a b", "--model", "tiny"],
    &["lens", "a", "--model", "tiny"],
    &["models"],
    &["completions", "bash"],
    &["plot", "good.json"],
    &["diff", "good.json", "good.json", "--json"],
];

#[cfg(unix)]
#[test]
fn a_reader_that_has_gone_ends_every_subcommand_quietly() {
    use std::process::Stdio;

    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    for args in PRINTING {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = folder.command();
        let output = command.args(args).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        let errors = stderr.lines().filter(|line| !line.starts_with("warning:"));
        assert_eq!(errors.count(), 0, "{args:?}: {stderr}");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_of_every_subcommand() {
    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    for args in PRINTING {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = folder.command().args(args).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
        assert!(stderr.contains("cannot write the output: No space left on device"), "{args:?}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn invalid_utf8_is_refused_as_text_and_allowed_as_file_name() {
    use std::os::unix::ffi::OsStrExt;

    let folder = Folder::new();
    fs::write(folder.file("good.json"), export(json!({}))).unwrap();
    let bytes = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let no_text = "invalid UTF-8 was detected";
    for args in [
        &[OsStr::new("tokens"), bytes(b"\xff")][..],
        &[OsStr::new("predict"), bytes(b"a\xc3")],
        &[OsStr::new("--clean"), bytes(b"\xfe"), OsStr::new("--corrupted"), OsStr::new("a")],
        &[OsStr::new("--title"), bytes(b"\xff")],
        &[OsStr::new("ablate"), OsStr::new("--with"), bytes(b"\xff")],
    ] {
        refused(&folder, args, 2, &[no_text]);
    }
    let [plot, good] = ["plot", "good.json"].map(OsStr::new);
    refused(&folder, &[plot, bytes(b"\xff.json")], 2, &["cannot read \\u{fffd}.json"]);
    refused(&folder, &[plot, bytes(b"\xff")], 2, &["ends in .json"]);
    let resume = [OsStr::new("--resume"), bytes(b"\xff.csv")];
    refused(&folder, &resume, 2, &["cannot read \\u{fffd}.csv"]);
    folder.run([plot, good, OsStr::new("--out"), bytes(b"\xff.svg")]).success();
    let picture = folder.path().join(bytes(b"\xff.svg"));
    assert!(fs::read_to_string(picture).unwrap().starts_with("<?xml"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_no_broken_file_whenever_it_comes() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    const SIGINT: i32 = 2;
    // A shell starts what it runs in the background so that it, and all that it starts, ignores Ctrl-C.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|signals| u64::from_str_radix(signals.trim(), 16).ok());
    if ignored.is_some_and(|signals| signals & 1 << (SIGINT - 1) != 0) {
        eprintln!("skipped: this process ignores Ctrl-C, as one in the background does");
        return;
    }
    let interrupted = |folder: &Folder, args: &[&str], milliseconds: u64| {
        let mut command = folder.command();
        let command = command.args(args).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let pid = child.id().to_string();
        // It may have ended.
        let _ = Command::new("kill").args(["-INT", &pid]).stderr(Stdio::null()).status();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!stderr.contains("panicked"), "{stderr}");
        (output.status, stderr)
    };

    // Whether it loads, sweeps or writes: files are whole or missing.
    let sweep = ["--model", "tiny", "--site", "blocks", "--csv", "a.csv", "--out", "a.png"];
    for milliseconds in [1, 30, 60, 120, 240, 480, 960] {
        let folder = Folder::new();
        let (status, stderr) = interrupted(&folder, &sweep, milliseconds);
        let expected: &[&str] = match (status.code(), status.signal()) {
            (Some(0), _) => &["a.csv", "a.csv.json", "a.png"],
            (Some(130), _) => {
                assert!(stderr.contains("--resume a.csv"), "{stderr}");
                &["a.csv", "a.csv.json"]
            }
            (_, Some(SIGINT)) => &[],
            _ => panic!("{status}: {stderr}"),
        };
        assert_eq!(folder.files(), expected, "after {milliseconds} ms: {status}");
        if status.code() == Some(130) {
            let resume = [&sweep[..], &["--resume", "a.csv"]].concat();
            folder.run(resume).success();
        }
    }

    // The others have nothing to save.
    for args in [
        &["plot", "large.npy", "--out", "a.png"][..],
        &["ablate", "--site", "pattern", "--by-dest-src", "--engine", "plain", "--model", "tiny"],
        &["path", "--prompt-set", "ioi", "--engine", "plain", "--model", "tiny"],
        &["ioi", "--model", "tiny", "--out", "a.png"],
    ] {
        let folder = Folder::new();
        let large = npy("'shape': (1000, 1000), ", &[0; 4_000_000]);
        fs::write(folder.file("large.npy"), large).unwrap();
        let (status, stderr) = interrupted(&folder, args, 300);
        // On a busy machine the interrupt may come too late.
        if status.success() {
            assert!(!folder.files().iter().any(|file| file.ends_with(".part")));
            continue;
        }
        assert!(
            status.code() == Some(130) || status.signal() == Some(SIGINT),
            "{args:?}: {status}: {stderr}"
        );
        // What was written before the interrupt came is whole.
        let mut files = folder.files();
        if files.first().is_some_and(|file| file == "a.png") {
            let picture = fs::read(folder.file(&files.remove(0))).unwrap();
            assert!(picture.ends_with(b"IEND\xaeB`\x82"), "{args:?}");
        }
        assert_eq!(files, ["large.npy"], "{args:?}");
    }
}
