//! The live page in a browser, held to what `--json` and the library say.

use gpt2::Pretrained;
use patching::{Patch, SiteKind};
use serde_json::{Value, json};

use crate::browser::{Browser, DOWN, ENTER, RIGHT};
use crate::explorer::{Explorer, main_job};
use crate::page::{assert_top, cell, patched_logits, written};
use crate::util::Folder;

const MARKUP: &str = "</script><img src=x onerror=alert(1)>";

/// The sweep that was asked for is shown, and the runs of its chosen cell.
const IDLE: &str = "return document.querySelector('#heatmap td') !== null
    && document.querySelector('#heatmap.stale, #heatmap.preview') === null
    && 'idle' in document.getElementById('progress').dataset
    && document.querySelector('#top-patched tbody tr') !== null";

struct Open {
    browser: Browser,
    folder: Folder,
    explorer: Explorer,
}

/// The page of the tiny model, whose main job is done; nothing where there is no browser.
fn open(args: &[&str]) -> Option<Open> {
    let browser = Browser::start()?;
    let folder = Folder::new();
    let explorer = Explorer::start(&folder, args);
    browser.open_address(&explorer.address);
    browser.wait_for(IDLE);
    Some(Open { browser, folder, explorer })
}

fn open_tiny() -> Option<Open> {
    open(&["--model", "tiny"])
}

impl Open {
    /// What the cells say of their value.
    fn values(&self) -> Vec<String> {
        let script = "return [...document.querySelectorAll('#heatmap td')].map((cell) =>
            /value ([^ ,]+)/.exec(cell.getAttribute('aria-label'))[1])";
        serde_json::from_value(self.browser.script(script, &[])).unwrap()
    }

    /// Asserts that every cell has the number that the command line prints.
    #[track_caller]
    fn assert_shows(&self, args: &[&str]) {
        let json = self.folder.tiny(&[args, &["--json"]].concat()).success().json();
        let expected: Vec<String> = json["grids"][0]["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .map(|value| match value != 0.0 && value.abs() < 5e-5 {
                true => format!("{}{value:.1e}", if value > 0.0 { "+" } else { "" }).replace('-', "−"),
                false => written(value),
            })
            .collect();
        assert_eq!(self.values(), expected, "{args:?}");
    }

    /// Does something that asks for a sweep, and waits until it is shown.
    #[track_caller]
    fn and_wait(&self, act: impl FnOnce(&Browser)) {
        let asked = self.browser.script("return document.documentElement.dataset.asked", &[]);
        act(&self.browser);
        self.browser.wait_for(&format!("return document.documentElement.dataset.asked !== {asked}"));
        self.browser.wait_for(IDLE);
    }

    #[track_caller]
    fn click_with_shift(&self, cell: &str) {
        let script = "document.querySelector(arguments[0])
            .dispatchEvent(new MouseEvent('click', {bubbles: true, shiftKey: true}))";
        self.browser.script(script, &[cell.into()]);
    }
}

#[test]
fn the_main_job_is_there_and_typing_and_choosing_follow_json() {
    let Some(open) = open_tiny() else { return };
    open.assert_shows(&[]);
    let title = open.browser.text("#title");
    assert_eq!(title, "Patching resid_post from the clean into the corrupted run");
    open.and_wait(|browser| browser.select("#site", "z"));
    open.assert_shows(&["--site", "z"]);
    open.and_wait(|browser| browser.select("#metric", "p(A) − p(B)"));
    open.assert_shows(&["--site", "z", "--metric", "prob_diff"]);
    open.and_wait(|browser| browser.select("#direction", "noising (corrupted into clean)"));
    open.and_wait(|browser| browser.select("#scale", "normalized"));
    let noising = ["--site", "z", "--metric", "prob_diff", "--direction", "noising", "--as", "normalized"];
    open.assert_shows(&noising);
    let text = "Michelle Jones was a top-notch teacher. Michelle";
    open.and_wait(|browser| browser.type_into("#clean", text));
    let pair = ["--clean", text, "--corrupted", crate::page::CORRUPTED, "--logit-diff", " Smith", " Jones"];
    open.assert_shows(&[&noising[..], &pair].concat());
    // What the page says of its time.
    let timing = open.browser.text("#timing");
    assert!(timing.contains("48 patched runs in "), "{timing}");
    assert_eq!(open.browser.console(), [""; 0]);
}

#[test]
fn unequal_counts_are_shown_aligned_and_nothing_is_computed() {
    let Some(open) = open_tiny() else { return };
    open.browser.type_into("#clean", "Michelle Robinson-Smythe was a top-notch student. Michelle");
    open.browser.wait_for(
        "return !document.getElementById('refused').hidden
        && document.getElementById('token-note').textContent.includes('against')",
    );
    let (refused, note) = (open.browser.text("#refused"), open.browser.text("#token-note"));
    assert!(refused.contains("equally many"), "{refused}");
    assert!(note.contains("Robinson") && note.contains("Smith” (1)"), "{note}");
    let columns = "return [...document.querySelectorAll('#tokens .place')].map((place) => place.textContent)";
    let columns: Vec<String> = serde_json::from_value(open.browser.script(columns, &[])).unwrap();
    // The first and the last tokens stand below each other.
    assert!(
        columns[0].ends_with("MichelleMichelle") && columns.last().unwrap().ends_with("␣Michelle␣Michelle")
    );
    assert!(columns.iter().any(|column| column.contains('·')), "{columns:?}");
    assert_eq!(open.browser.script("return document.querySelector('#heatmap.stale') !== null", &[]), true);
    // An answer that is not one token is said to be none.
    open.and_wait(|browser| browser.type_into("#clean", crate::page::CLEAN));
    assert_eq!(open.browser.script("return document.getElementById('refused').hidden", &[]), true);
    open.browser.type_into("#a", " Smithson");
    open.browser.wait_for("return document.getElementById('a').ariaInvalid === 'true'");
}

#[test]
fn a_click_shows_the_next_tokens_and_patterns_of_three_runs() {
    let Some(open) = open_tiny() else { return };
    let tiny = Pretrained::tiny().unwrap();
    for (row, column) in [(0, 1), (7, 10), (3, 0)] {
        open.browser.click(&cell(row, column));
        open.browser.wait_for(&format!(
            "return document.getElementById('next-section').dataset.cell === '{row},{column}'"
        ));
        let patch = Patch::at_pos(SiteKind::ResidPost, row, column);
        assert_top(&open.browser, "patched", &tiny, &patched_logits(&tiny, patch));
    }
    for (run, text) in [("clean", crate::page::CLEAN), ("corrupted", crate::page::CORRUPTED)] {
        let ids = tiny.tokenizer.encode(text).unwrap();
        assert_top(&open.browser, run, &tiny, &tiny.model.next_token_logits(&ids, &mut gpt2::no_hook));
    }
    // After every position, three runs; and a pattern of each.
    open.browser.click("#everywhere summary");
    open.browser.wait_for("return document.querySelectorAll('.every tbody tr').length === 11");
    assert_eq!(open.browser.script("return document.querySelectorAll('svg.pattern').length", &[]), 3);
    open.browser.select("#attention-layer", "6");
    open.browser.select("#attention-head", "2");
    open.browser.select("#attention-dest", "4 ␣top");
    let ids = tiny.tokenizer.encode(crate::page::CLEAN).unwrap();
    let mut row = Vec::new();
    tiny.model.transformer(&ids, &mut |site, pattern| {
        if site == SiteKind::Pattern.at(6) {
            row = pattern.row(2 * ids.len() + 4)[..5].iter().map(|weight| format!("{weight:.2}")).collect();
        }
    });
    row.resize(11, "–".to_owned());
    let shown =
        "return [...document.querySelectorAll('.run[data-run=clean] .weight')].map((it) => it.textContent)";
    let row = serde_json::to_string(&row).unwrap();
    open.browser.wait_for(&format!("return JSON.stringify((() => {{ {shown} }})()) === '{row}'"));
}

#[test]
fn shift_keeps_a_patch_and_undo_takes_it_back() {
    let Some(open) = open_tiny() else { return };
    open.and_wait(|browser| browser.select("#site", "z"));
    open.and_wait(|_| open.click_with_shift(&cell(8, 3)));
    open.assert_shows(&["--site", "z", "--given", "z8.3=source"]);
    open.and_wait(|browser| {
        browser.script(
            "const select = document.querySelector('.chip select');
             select.value = 'zero';
             select.dispatchEvent(new Event('change', {bubbles: true}))",
            &[],
        );
    });
    let given = ["--site", "z", "--given", "z8.3=zero"];
    open.assert_shows(&given);
    assert_eq!(open.browser.script("return document.querySelectorAll('#heatmap td.kept').length", &[]), 1);
    open.and_wait(|browser| browser.click("#undo"));
    open.assert_shows(&["--site", "z", "--given", "z8.3=source"]);
    open.and_wait(|browser| browser.click("#undo"));
    open.assert_shows(&["--site", "z"]);
    open.and_wait(|browser| browser.click("#redo"));
    open.and_wait(|browser| browser.click("#redo"));
    open.assert_shows(&given);
    open.and_wait(|browser| browser.click(".chip button"));
    open.assert_shows(&["--site", "z"]);
}

#[test]
fn all_that_is_chosen_is_in_the_address() {
    let Some(open) = open_tiny() else { return };
    let state =
        "#site=z&direction=noising&metric=prob_diff&given=z8.3%3Dzero&cell=7.2&pins=m11-%3Elogits&lens=1";
    open.browser.open_address("about:blank");
    open.browser.open_address(&format!("{}{state}", open.explorer.address));
    open.browser.wait_for(IDLE);
    let args = ["--site", "z", "--direction", "noising", "--metric", "prob_diff", "--given", "z8.3=zero"];
    open.assert_shows(&args);
    assert_eq!(open.browser.script("return document.querySelectorAll('#pins li').length", &[]), 1);
    open.browser.wait_for("return document.querySelectorAll('.lens tbody tr').length === 25");
    open.browser.wait_for("return document.getElementById('next-section').dataset.cell === '7,2'");
    // What is changed goes into the address; opened anew, it shows the same.
    open.and_wait(|browser| browser.type_into("#b", " Michelle"));
    open.browser.wait_for("return location.hash.includes('b=+Michelle')");
    let values = open.values();
    let address = open.browser.script("return location.href", &[]);
    open.browser.open_address("about:blank");
    open.browser.open_address(address.as_str().unwrap());
    open.browser.wait_for(IDLE);
    assert_eq!(open.values(), values);
    let command = open.browser.text("#command");
    for part in ["--logit-diff ' Smith' ' Michelle'", "--given z8.3=zero", "--direction noising"] {
        assert!(command.contains(part), "{command}");
    }
}

#[test]
fn a_walk_follows_edges_and_pins_them() {
    let Some(open) = open_tiny() else { return };
    let browser = &open.browser;
    browser.click("#walk");
    browser.wait_for("return document.querySelectorAll('.edges tbody tr').length === 40");
    let mut asked = main_job(json!({}));
    asked["reader"] = json!("logits");
    let walk = open.explorer.line("walk", &asked, "walk");
    let effects = "return [...document.querySelectorAll('.edges .effect')].map((cell) => cell.textContent)";
    let shown: Vec<String> = serde_json::from_value(browser.script(effects, &[])).unwrap();
    let first: Vec<String> = (walk["edges"].as_array().unwrap().iter().take(10))
        .map(|edge| written(edge["effect"].as_f64().unwrap()))
        .collect();
    assert_eq!(shown[..10], first);
    for row in [1, 2, 3] {
        browser.click(&format!(".edges tbody tr:nth-child({row}) input"));
    }
    browser.wait_for("return document.getElementById('worth').textContent.startsWith('3 of 4555 edges')");
    let pins: Vec<Value> = walk["edges"].as_array().unwrap()[..3]
        .iter()
        .map(|edge| json!({"name": edge["name"], "pinned": true}))
        .collect();
    asked["edges"] = json!(pins);
    let worth = open.explorer.line("worth", &asked, "worth");
    // Their writers hear nothing that is pinned: the page says so.
    assert_eq!((&worth["edges"], &worth["of_use"]), (&json!(3), &json!(0)));
    assert!(browser.text("#worth").contains("none of them lies on a path"), "{}", browser.text("#worth"));
    // A circuit that the command line has found, loaded as a file is.
    let args = ["circuit", "--edges", "200", "--graph", "graph.json", "--judge", "--json"];
    let json = open.folder.tiny(&args).success().json();
    let file = std::fs::read_to_string(open.folder.file("graph.json")).unwrap();
    let load = "const data = new DataTransfer();
        data.items.add(new File([arguments[0]], 'graph.json'));
        document.getElementById('load').files = data.files;
        document.getElementById('load').dispatchEvent(new Event('change'))";
    browser.script(load, &[file.clone().into()]);
    let file: Value = serde_json::from_str(&file).unwrap();
    let n = file["edges"].as_object().unwrap().values().filter(|edge| edge["in_graph"] == true).count();
    browser.wait_for(&format!(
        "return document.getElementById('worth').textContent.startsWith('{n} of 4555 edges')"
    ));
    let shown: f64 = browser.text("#faithfulness").replace('−', "-").parse().unwrap();
    let faithfulness = json["verdict"]["faithfulness"].as_f64().unwrap();
    assert!((shown - faithfulness).abs() < 1e-4, "{shown} {faithfulness}");
    // On to what feeds the first writer that hears anything, and back.
    let onward = browser.text(".edges tbody button");
    browser.click(".edges tbody button");
    let reader = onward.trim_start_matches("→ ").to_owned();
    browser.wait_for(&format!(
        "return document.getElementById('walk-note').textContent.includes('into {reader}')"
    ));
    browser.click("#path button");
    browser.wait_for("return document.getElementById('walk-note').textContent.includes('into logits')");
    // Another question has other effects: the walk and the worth are computed anew.
    let before = browser.text("#faithfulness");
    open.and_wait(|browser| browser.select("#direction", "noising (corrupted into clean)"));
    browser.wait_for(&format!("return document.getElementById('faithfulness').textContent !== '{before}'"));
}

#[test]
fn the_keyboard_reaches_cells_and_keeps_patches() {
    let Some(open) = open_tiny() else { return };
    let browser = &open.browser;
    browser.script("document.querySelector('#heatmap td[tabindex=\"0\"]').focus()", &[]);
    let at = || {
        let place = "const {row, column} = document.activeElement.dataset; return `${row},${column}`";
        browser.script(place, &[]).as_str().unwrap().to_owned()
    };
    let start = at();
    browser.press(DOWN);
    browser.press(RIGHT);
    assert_ne!(at(), start);
    let chosen = at();
    browser.press(ENTER);
    browser.wait_for(&format!("return document.getElementById('next-section').dataset.cell === '{chosen}'"));
    assert_eq!(at(), chosen);
    open.and_wait(|browser| {
        let key = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown',
            {key: 'Enter', shiftKey: true, bubbles: true}))";
        browser.script(key, &[]);
    });
    assert_eq!(browser.script("return document.querySelectorAll('.chip').length", &[]), 1);
    // The focus stays in the grid although its cells are new.
    assert_eq!(at(), chosen);
    let undo = "dispatchEvent(new KeyboardEvent('keydown', {key: 'z', ctrlKey: true}))";
    open.and_wait(|browser| {
        browser
            .script(&format!("document.activeElement.{}", undo.replace("'z',", "'z', bubbles: true,")), &[]);
    });
    assert_eq!(browser.script("return document.querySelectorAll('.chip').length", &[]), 0);
    // The logit lens is one tab stop as well, at its last point and position.
    browser.click("#lens-on");
    browser.wait_for("return document.querySelectorAll('.lens tbody tr').length === 25");
    browser.script("document.querySelector('.lens td[tabindex=\"0\"]').focus()", &[]);
    browser.press(DOWN);
    let label = browser.script("return document.activeElement.ariaLabel", &[]);
    assert!(label.as_str().unwrap().starts_with("point 11_mid, position 10, says "), "{label}");
}

#[test]
fn the_tour_has_five_stations_that_work() {
    let Some(open) = open_tiny() else { return };
    let browser = &open.browser;
    browser.click("#tour-start");
    for (i, title) in ["Tokens", "Attention", "The residual stream", "One patch by hand", "The whole sweep"]
        .iter()
        .enumerate()
    {
        assert_eq!(browser.text("#tour-title"), format!("{} of 5: {title}", i + 1));
        assert_eq!(browser.script("return document.querySelectorAll('.toured').length", &[]), 1);
        browser.click("#tour-do");
        match i {
            0 => browser.wait_for("return !document.getElementById('refused').hidden"),
            1 => browser.wait_for("return document.getElementById('attention-layer').value === '8'"),
            2 => browser.wait_for("return document.querySelectorAll('.lens tbody tr').length === 25"),
            3 => browser.wait_for("return document.getElementById('next-section').dataset.cell === '0,1'"),
            _ => browser.wait_for(IDLE),
        }
        browser.click("#tour-next");
    }
    assert_eq!(browser.script("return document.getElementById('tour').hidden", &[]), true);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
fn it_fits_wide_and_narrow_windows_in_light_and_dark() {
    let Some(open) = open_tiny() else { return };
    let browser = &open.browser;
    browser.click("#walk");
    browser.click("#lens-on");
    browser.wait_for("return document.querySelectorAll('.lens tbody tr').length === 25");
    browser.wait_for("return document.querySelectorAll('.edges tbody tr').length === 40");
    for (width, scheme) in [(1280, "light"), (400, "dark")] {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", size);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
        let overflow = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.script(overflow, &[]), 0, "{width}");
        let brightness = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)
            .reduce((sum, part) => sum + Number(part), 0)";
        let brightness = browser.script(brightness, &[]).as_f64().unwrap();
        assert_eq!(brightness > 384.0, scheme == "light", "{brightness}");
    }
}

#[cfg(unix)]
#[test]
fn markup_in_prompts_addresses_and_model_names_stays_text() {
    let Some(browser) = Browser::start() else { return };
    let folder = Folder::new();
    // (A name of a file has no slash.)
    let name = "<script><img src=x onerror=alert(1)>";
    let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/tiny");
    std::os::unix::fs::symlink(tiny.canonicalize().unwrap(), folder.file(name)).unwrap();
    let explorer = Explorer::start(&folder, &["--model", &format!("./{name}")]);
    let [clean, corrupted] = ["Jones", "Smith"].map(|name| format!("{MARKUP}{{{{data}}}} {name}"));
    let encoded: String = clean.bytes().map(|byte| format!("%{byte:02x}")).collect();
    browser.open_address(&format!("{}#clean={encoded}&cell=%3Cb%3E&given=%3Cimg%3E", explorer.address));
    browser.wait_for("return document.getElementById('tokens').children.length > 0");
    browser.type_into("#corrupted", &corrupted);
    browser.wait_for(IDLE);
    assert_eq!(browser.script("return document.getElementById('clean').value", &[]), clean);
    // An alert would make every further command fail.
    assert_eq!(browser.script("return document.querySelectorAll('img, b').length", &[]), 0);
    assert_eq!(browser.script("return document.scripts.length", &[]), 3);
    let own = explorer.address.clone();
    assert!(
        browser.requests().iter().all(|request| request.starts_with(&own) || request.starts_with("data:"))
    );
    assert_eq!(browser.console(), [""; 0]);
    // What an attacker would try if markup came through.
    let script = "const done = arguments[0];
        const script = document.createElement('script');
        script.textContent = 'window.intruder = true';
        document.body.append(script);
        fetch('http://127.0.0.1:9/').then(() => done('sent'), () => done('stopped'));";
    assert_eq!(browser.script_async(script, &[]), "stopped");
    assert_eq!(browser.script("return window.intruder === true", &[]), false);
}

/// Not a test: the pictures of docs/explore.md, and those to be looked at, into the folder that SCREENSHOTS names.
#[test]
#[ignore = "draws pictures for people: SCREENSHOTS=folder cargo test … -- --ignored screenshots"]
fn screenshots() {
    let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
    let Some(open) = open_tiny() else { return };
    let browser = &open.browser;
    let size = |width: u32, height: u32| {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", size);
    };
    let shoot = |name: &str| {
        std::thread::sleep(std::time::Duration::from_millis(600));
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.png")), browser.screenshot())
            .unwrap();
    };
    size(1280, 1000);
    shoot("main");
    browser.click("#tour-start");
    for station in 1..=5 {
        browser.click("#tour-do");
        shoot(&format!("station-{station}"));
        browser.click("#tour-next");
    }
    browser.wait_for(IDLE);
    browser.click("#walk");
    browser.wait_for("return document.querySelectorAll('.edges tbody tr').length === 40");
    for row in 1..=5 {
        browser.click(&format!(".edges tbody tr:nth-child({row}) input"));
    }
    browser.script("document.getElementById('circuit-section').scrollIntoView()", &[]);
    shoot("circuit");
    browser.click(".edges tbody button");
    shoot("circuit-2");
    browser.script("scrollTo(0, 0)", &[]);
    size(400, 1600);
    let features = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
    browser.devtools("Emulation.setEmulatedMedia", json!({"features": features}));
    shoot("narrow-dark");
    browser.script("document.getElementById('next-section').scrollIntoView()", &[]);
    shoot("narrow-dark-2");
}

/// Not a test: the median time from a key press to the drawn grid, beside that of the sweep, for the model that MODEL
/// names.
#[test]
#[ignore = "measures: MODEL=folder cargo test … -- --ignored --nocapture key_press"]
fn key_press_to_grid() {
    let Ok(model) = std::env::var("MODEL") else { return };
    let Some(open) = open(&["--model", &model]) else { return };
    let (mut whole, mut sweeps) = (Vec::new(), Vec::new());
    for i in 0..21 {
        let text = ["teacher", "student"][i % 2];
        open.and_wait(|browser| {
            // Both prompts at once, as by one key: the page measures from this event to the drawn grid.
            let script = "for (const name of ['clean', 'corrupted']) {
                    const field = document.getElementById(name);
                    field.value = field.value.replace(/student|teacher/, arguments[0]);
                    field.dispatchEvent(new Event('input', {bubbles: true}));
                }";
            browser.script(script, &[text.into()]);
        });
        let timing = open.browser.text("#timing");
        let seconds: Vec<f64> = timing.split(' ').filter_map(|word| word.parse().ok()).collect();
        if i > 0 {
            sweeps.push(seconds[1]);
            whole.push(seconds[2]);
        }
    }
    let median = |all: &mut Vec<f64>| {
        all.sort_by(f64::total_cmp);
        (all[9] + all[10]) / 2.0
    };
    println!(
        "key press to grid {:.3} s, sweep {:.3} s: medians of 20",
        median(&mut whole),
        median(&mut sweeps)
    );
}

/// Not a test: the memory of a server before and after 200 sweeps, for the model that MODEL names.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "measures: MODEL=folder cargo test … -- --ignored --nocapture memory_of"]
fn memory_of_two_hundred_sweeps() {
    let Ok(model) = std::env::var("MODEL") else { return };
    Explorer::start(&Folder::new(), &["--model", &model]).print_memory();
}
