//! The page of `--html`, looked at and used in a browser, held to what `--json` and the library say.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::PathBuf;

use gpt2::Pretrained;
use gpt2::generate::{log_prob, rank};
use patching::{Patch, SiteKind};
use serde_json::Value;
use visible::visible;

use crate::browser::{Browser, DOWN, END, ENTER, LEFT, RIGHT, TAB, UP};
use crate::util::{Folder, numbers};

pub const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
pub const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";
const MARKUP: &str = "</script><img src=x onerror=alert(1)>";

/// The page of the main job, with these arguments beside, and what `--json` printed. It has the site z
/// as well; more would cost more.
fn page(folder: &Folder, args: &[&str]) -> (PathBuf, Value) {
    let args = [&["--html", "page.html", "--html-sites", "z", "--json"], args].concat();
    let json = folder.tiny(&args).success().json();
    (folder.file("page.html"), json)
}

/// [`page`] in a browser, its folder, and what `--json` printed; nothing where there is no browser.
fn open(args: &[&str]) -> Option<(Browser, Folder, Value)> {
    let browser = Browser::start()?;
    let folder = Folder::new();
    let (file, json) = page(&folder, args);
    browser.open(&file);
    Some((browser, folder, json))
}

/// A number as the page writes it.
pub fn written(value: f64) -> String {
    let sign = if value > 0.0 { "+" } else { "" };
    format!("{sign}{value:.4}").replace('-', "−")
}

pub fn cell(row: usize, column: usize) -> String {
    format!("#heatmap tbody tr:nth-child({}) td:nth-child({})", row + 1, column + 2)
}

/// What the tooltip says: the value of the fact with this name.
#[track_caller]
pub fn fact(browser: &Browser, name: &str) -> String {
    browser.text(&format!("#tooltip:not([hidden]) [data-fact={name}]"))
}

/// Asserts that the table of a run's next tokens has what these logits say: token, id, logit and
/// probability.
#[track_caller]
pub fn assert_top(browser: &Browser, run: &str, tiny: &Pretrained, logits: &[f32]) {
    let shown = top(browser, run);
    assert_eq!(shown.len(), 10);
    for (shown, id) in shown.iter().zip(rank(logits, 10)) {
        let logit = logits[id as usize];
        let prob = log_prob(logits, id).exp() as f32;
        assert_eq!(shown[..2], [visible(&tiny.tokenizer.token(id)), id.to_string()]);
        // Half a unit of the last digit that is shown, and a little for numbers stored rounded.
        let number = |i: usize| shown[i].replace('−', "-").parse::<f32>().unwrap();
        assert!((number(2) - logit).abs() < 0.0052, "{shown:?}, not {logit}");
        assert!((number(3) - prob).abs() < 0.000_052, "{shown:?}, not {prob}");
    }
}

/// The rows of the table of a run's next tokens: token, id, logit and probability as they are shown.
pub fn top(browser: &Browser, run: &str) -> Vec<[String; 4]> {
    let script = "return [...document.querySelectorAll(`#top-${arguments[0]} tbody tr`)].map((row) =>
        [...row.cells].slice(1).map((cell) => cell.textContent));";
    serde_json::from_value(browser.script(script, &[run.into()])).unwrap()
}

/// The logits after the corrupted prompt with one activation of the clean one's put in.
pub fn patched_logits(tiny: &Pretrained, patch: Patch) -> Vec<f32> {
    let [clean, corrupted] = [CLEAN, CORRUPTED].map(|text| tiny.tokenizer.encode(text).unwrap());
    let mut source = None;
    tiny.model.transformer(&clean, &mut |site, x| {
        if site == patch.site() {
            source = Some(x.clone());
        }
    });
    tiny.model.next_token_logits(&corrupted, &mut |site, x| {
        if site == patch.site() {
            patch.apply(source.as_ref().unwrap(), x);
        }
    })
}

#[test]
fn hovering_over_a_cell_shows_the_number_that_json_has() {
    let Some((browser, _folder, json)) = open(&[]) else {
        return;
    };
    assert_eq!(browser.text("#title"), "Patching resid_post from the clean into the corrupted run");
    for (row, column, token) in [(0, 1, "␣Smith (clean: ␣Jones)"), (7, 10, "␣Michelle"), (11, 4, "␣top")]
    {
        browser.hover(&cell(row, column));
        let value = json["grids"][0]["values"][row * 11 + column].as_f64().unwrap();
        let base = json["corrupted_metric"].as_f64().unwrap();
        assert_eq!(fact(&browser, "value"), written(value));
        let change = format!("{} from the corrupted run", written(value - base));
        assert_eq!(fact(&browser, "change"), change);
        assert_eq!(fact(&browser, "layer"), row.to_string());
        assert_eq!(fact(&browser, "position"), column.to_string());
        assert_eq!(fact(&browser, "token"), token);
    }
    browser.hover("#title");
    assert_eq!(browser.script("return document.getElementById('tooltip').hidden", &[]), true);
}

#[test]
fn a_click_shows_the_next_tokens_of_all_three_runs() {
    let Some((browser, _folder, _)) = open(&[]) else {
        return;
    };
    let tiny = Pretrained::tiny().unwrap();
    for (run, text) in [("clean", CLEAN), ("corrupted", CORRUPTED)] {
        let ids = tiny.tokenizer.encode(text).unwrap();
        let logits = tiny.model.next_token_logits(&ids, &mut gpt2::no_hook);
        assert_top(&browser, run, &tiny, &logits);
    }
    for (row, column) in [(0, 1), (7, 10), (3, 0)] {
        browser.click(&cell(row, column));
        let patch = Patch::at_pos(SiteKind::ResidPost, row, column);
        assert_top(&browser, "patched", &tiny, &patched_logits(&tiny, patch));
    }
    // A head, and its pattern below.
    browser.select("#site", "z");
    browser.click(&cell(8, 3));
    let patch = Patch::whole(SiteKind::Z, 8).narrowed(patching::Axis::Head, 3);
    assert_top(&browser, "patched", &tiny, &patched_logits(&tiny, patch));
    assert_eq!(browser.text("#chosen").split(':').nth(1).unwrap(), " z, layer 8, head 3");
    assert_eq!(browser.script("return document.getElementById('attention-layer').value", &[]), "8");
    assert_eq!(browser.script("return document.getElementById('attention-head').value", &[]), "3");
}

#[test]
fn sites_and_metrics_can_be_switched() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let folder = Folder::new();
    let file = folder.file("page.html");
    folder.tiny(&["--html", "page.html"]).success();
    browser.open(&file);
    for (site, metric, label, shape) in [
        ("z", "prob_diff", "p(\" Smith\") − p(\" Jones\")", [12, 4]),
        ("mlp_out", "logit_change", "logit(\" Jones\") − its logit in the clean run", [12, 11]),
    ] {
        browser.select("#site", site);
        browser.select("#metric", label);
        let json = folder.tiny(&["--json", "--site", site, "--metric", metric]).success().json();
        let columns = shape[1];
        let counts = browser.script(
            "return [...document.getElementById('heatmap').tBodies[0].rows].map((row) => row.cells.length - 1)",
            &[],
        );
        assert_eq!(numbers(&counts), vec![columns as f32; shape[0]]);
        for (row, column) in [(0, 1), (8, 3)] {
            browser.hover(&cell(row, column));
            let value = json["grids"][0]["values"][row * columns + column].as_f64().unwrap();
            assert_eq!(fact(&browser, "value"), written(value), "{site} {metric} {row} {column}");
        }
    }
    // As a change from the base run, the cells say what is left of the number.
    let before = browser.text(&cell(0, 1));
    browser.click("#as-change");
    let values = ["corrupted_metric", "clean_metric"].map(|key| {
        let json = folder.tiny(&["--json", "--metric", "logit_change"]).success().json();
        json[key].as_f64().unwrap()
    });
    assert!(values[0] < -1.0 && values[1] == 0.0, "{values:?}");
    let number = |text: &str| text.replace('−', "-").parse::<f64>().unwrap();
    let (before, after) = (number(&before), number(&browser.text(&cell(0, 1))));
    assert!((before - after - values[0]).abs() < 0.11, "{before} {after} {values:?}");
}

#[test]
fn prompts_that_are_markup_are_shown_as_text() {
    let [clean, corrupted] = [CLEAN, CORRUPTED].map(|text| format!("{MARKUP}{{{{script}}}} {text}"));
    let args = ["--clean", &clean, "--corrupted", &corrupted, "--logit-diff", "script", "img"];
    let Some((browser, folder, _)) = open(&args) else {
        return;
    };
    // An alert would make every further command fail.
    assert_eq!(browser.text("#texts dd"), clean);
    assert_eq!(browser.text("#prompts .place:nth-child(2) .token"), "script");
    assert_eq!(browser.script("return document.querySelectorAll('img').length", &[]), 0);
    assert_eq!(browser.script("return document.scripts.length", &[]), 2);
    assert_eq!(browser.console(), [""; 0]);
    let html = fs::read_to_string(folder.file("page.html")).unwrap();
    assert_eq!(html.matches("</script").count(), 2);
}

#[test]
fn the_page_requests_nothing_and_blocks_scripts_that_would() {
    let Some((browser, folder, _)) = open(&[]) else {
        return;
    };
    let address = format!("file://{}", folder.file("page.html").display());
    browser.click(&cell(3, 3));
    assert_eq!(browser.requests(), [address]);
    assert_eq!(browser.console(), [""; 0]);

    // What an attacker would try: to send, to load, to run a script.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let there = format!("http://{}/", server.local_addr().unwrap());
    let script = "const [there, done] = arguments;
        const image = document.createElement('img');
        image.src = there + 'image';
        const script = document.createElement('script');
        script.textContent = 'window.intruder = true';
        document.body.append(image, script);
        fetch(there).then(() => done('sent'), () => done('stopped'));";
    assert_eq!(browser.script_async(script, &[there.into()]), "stopped");
    assert_eq!(browser.script("return window.intruder === true", &[]), false);
    assert_eq!(server.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let complaints = browser.console();
    let blocked = |what: &str| complaints.iter().any(|line| line.contains(what));
    assert!(blocked("connect-src") && blocked("script-src") && blocked("img-src"), "{complaints:?}");
}

#[test]
fn the_keyboard_reaches_every_cell_and_the_focus_is_seen() {
    let Some((browser, _folder, json)) = open(&[]) else {
        return;
    };
    let at = || {
        let place = browser.script(
            "const {row, column} = document.activeElement.dataset; return [Number(row), Number(column)]",
            &[],
        );
        numbers(&place)
    };
    // The heatmap is one tab stop, at the chosen cell.
    browser.script("document.getElementById('as-change').focus()", &[]);
    browser.press(TAB);
    let chosen = at();
    assert_eq!(chosen, [8.0, 10.0]);
    browser.press(RIGHT); // There is nothing further right.
    assert_eq!(at(), [8.0, 10.0]);
    for (key, place) in
        [(LEFT, [8.0, 9.0]), (UP, [7.0, 9.0]), (END, [7.0, 10.0]), (DOWN, [8.0, 10.0]), (UP, [7.0, 10.0])]
    {
        browser.press(key);
        assert_eq!(at(), place);
    }
    let outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle", &[]);
    assert_eq!(outline, "solid");
    let value = json["grids"][0]["values"][7 * 11 + 10].as_f64().unwrap();
    assert_eq!(fact(&browser, "value"), written(value));
    let label = browser.script("return document.activeElement.getAttribute('aria-label')", &[]);
    assert!(
        label
            .as_str()
            .unwrap()
            .contains(&format!("layer 7, position 10, token ␣Michelle, value {}", written(value))),
        "{label}"
    );

    browser.press(ENTER);
    assert!(browser.text("#chosen").starts_with("Patched: resid_post, layer 7, position 10"));
    assert_eq!(browser.script("return document.querySelectorAll('[aria-selected]').length", &[]), 1);
    assert_eq!(browser.script("return document.activeElement.getAttribute('aria-selected')", &[]), "true");
}

#[test]
fn light_and_dark_and_the_order_of_tables_can_be_changed() {
    let Some((browser, _folder, _)) = open(&[]) else {
        return;
    };
    // The sum of the background's red, green and blue.
    let brightness = || {
        let script = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)";
        let parts = browser.script(script, &[]);
        let part = |part: &Value| part.as_str().unwrap().parse::<u32>().unwrap();
        parts.as_array().unwrap().iter().map(part).sum::<u32>()
    };
    let prefers = |scheme: &str| {
        let features = serde_json::json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.devtools("Emulation.setEmulatedMedia", serde_json::json!({"features": features}));
    };
    prefers("dark");
    assert!(brightness() < 150);
    prefers("light");
    assert!(brightness() > 600);
    browser.click("#theme");
    assert!(brightness() < 150);
    assert_eq!(browser.script("return document.getElementById('theme').ariaPressed", &[]), "true");
    browser.click("#theme");
    assert!(brightness() > 600);

    let column =
        |i: usize| -> Vec<String> { top(&browser, "clean").into_iter().map(|row| row[i].clone()).collect() };
    let ids = || -> Vec<u32> { column(1).iter().map(|id| id.parse().unwrap()).collect() };
    let order = "#top-clean th[aria-sort]";
    assert_eq!(browser.text(order).trim(), "rank");
    browser.click("#top-clean th:nth-child(3) button");
    assert!(ids().is_sorted() && browser.text(order).trim() == "id");
    browser.click("#top-clean th:nth-child(3) button");
    assert!(ids().iter().rev().is_sorted());
    assert_eq!(
        browser.script("return document.querySelector(arguments[0]).ariaSort", &[order.into()]),
        "descending"
    );

    // All cells, the strongest change first.
    browser.click("#cells summary");
    browser.click("#cells th:nth-child(5) button");
    let first = browser.script(
        "return [...document.querySelector('#cells tbody tr').cells].map((cell) => cell.textContent)",
        &[],
    );
    assert_eq!((&first[0], &first[1], &first[2]), (&"8".into(), &"10".into(), &"␣Michelle".into()));
}

#[test]
fn pointing_at_a_token_shows_where_a_head_attends_in_both_runs() {
    let Some((browser, _folder, _)) = open(&[]) else {
        return;
    };
    let tiny = Pretrained::tiny().unwrap();
    let weights = |text: &str, layer: usize, head: usize, dest: usize| {
        let ids = tiny.tokenizer.encode(text).unwrap();
        let mut row = Vec::new();
        tiny.model.transformer(&ids, &mut |site, pattern| {
            if site == SiteKind::Pattern.at(layer) {
                row = pattern.row(head * ids.len() + dest)[..=dest].to_vec();
            }
        });
        row
    };
    browser.select("#attention-layer", "6");
    browser.select("#attention-head", "2");
    for dest in [4, 10, 1] {
        browser.hover(&format!(".run[data-run=corrupted] .place[data-pos='{dest}']"));
        for (run, text) in [("clean", CLEAN), ("corrupted", CORRUPTED)] {
            let shown = browser.script(
                "return [...document.querySelectorAll(`.run[data-run=${arguments[0]}] .weight`)].map((weight) => weight.textContent)",
                &[run.into()],
            );
            let shown: Vec<String> = serde_json::from_value(shown).unwrap();
            assert_eq!(shown.len(), 11);
            for (pos, shown) in shown.iter().enumerate() {
                match weights(text, 6, 2, dest).get(pos) {
                    Some(weight) => {
                        let shown: f32 = shown.parse().unwrap();
                        assert!((shown - weight).abs() < 0.0052, "{run} {dest} {pos}: {shown}, not {weight}");
                    }
                    None => assert_eq!(shown, "–"),
                }
            }
        }
    }
    // With four digits, as the head that follows the token before it: 6.2 is a previous-token head.
    browser.hover(".run[data-run=clean] .place[data-pos='4']");
    let weight = weights(CLEAN, 6, 2, 4)[3];
    let summary = browser.text(".run[data-run=clean] .summary");
    assert!(
        summary.starts_with(&format!("Head 6.2: position 4 ␣top attends most to 3 ␣a {weight:.4}")),
        "{summary}"
    );
    // The keys move as the mouse does.
    browser.click(".run[data-run=clean] .place[data-pos='4']");
    browser.press(LEFT);
    assert!(browser.text(".run[data-run=clean] .summary").starts_with("Head 6.2: position 3 ␣a"));
}

#[test]
fn a_long_prompt_fits_a_window_and_a_sheet_of_paper() {
    let story = "Then Mary and Paul went to the shops and the man gave a bottle of milk to Anna. ".repeat(3);
    let [clean, corrupted] = ["John", "Mary"].map(|name| format!("{story}Then {name} gave the bag to"));
    let args = ["--clean", &clean, "--corrupted", &corrupted, "--logit-diff", " John", " Mary"];
    let Some((browser, _folder, json)) = open(&args) else {
        return;
    };
    let columns = json["grids"][0]["axes"][1]["labels"].as_array().unwrap().len();
    assert!((60..=70).contains(&columns), "{columns}");
    let overflow = || {
        let script = "const [root, grid] = [document.documentElement, document.getElementById('heatmap')];
            return [root.scrollWidth - root.clientWidth, grid.offsetWidth - grid.parentElement.clientWidth]";
        numbers(&browser.script(script, &[]))
    };
    assert!(overflow().iter().all(|&x| x <= 0.0), "{:?}", overflow());
    // The width that A4 has between Chromium's margins, in CSS pixels.
    browser.devtools("Emulation.setEmulatedMedia", serde_json::json!({"media": "print"}));
    let sheet = serde_json::json!({"width": 718, "height": 1046, "deviceScaleFactor": 1, "mobile": false});
    browser.devtools("Emulation.setDeviceMetricsOverride", sheet);
    assert!(overflow().iter().all(|&x| x <= 0.0), "{:?}", overflow());
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn the_page_is_small_and_replaces_only_a_page_of_ours() {
    let folder = Folder::new();
    let (file, _) = page(&folder, &[]);
    let size = fs::metadata(&file).unwrap().len();
    assert!(size < 300_000, "{size} bytes");
    let first = fs::read(&file).unwrap();
    page(&folder, &[]);
    assert_eq!(fs::read(&file).unwrap(), first, "the same run makes the same page");
    fs::write(&file, "<!doctype html><title>A thesis</title>").unwrap();
    folder.tiny(&["--html", "page.html"]).failure(1, &["cannot write page.html: it exists, and is not"]);
    assert_eq!(folder.files(), ["heatmap.png", "page.html"]);
}
