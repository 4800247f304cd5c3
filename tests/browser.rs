//! A real browser, headless Chromium, driven through chromedriver by the WebDriver protocol
//! (W3C recommendation "WebDriver"): as much of it as the tests of the page need.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::Agent;

/// Keys as WebDriver names them.
pub const ENTER: &str = "\u{e007}";
pub const TAB: &str = "\u{e004}";
pub const LEFT: &str = "\u{e012}";
pub const UP: &str = "\u{e013}";
pub const RIGHT: &str = "\u{e014}";
pub const DOWN: &str = "\u{e015}";
pub const END: &str = "\u{e010}";

/// The longest time that anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name under which WebDriver hands out elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window, which is closed when this goes out of scope.
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// Where the commands go.
    session: String,
}

impl Browser {
    /// Starts a browser; none, with the reason on stdout, where there is none to start.
    pub fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped());
        let mut driver = match command.stderr(Stdio::null()).spawn() {
            Ok(driver) => driver,
            Err(error) => {
                println!("skipped: chromedriver cannot be started: {error}");
                return None;
            }
        };
        let port = port_of(&mut driver);
        let config =
            Agent::config_builder().proxy(None).http_status_as_error(false).timeout_global(Some(PATIENCE));
        let mut browser = Self {
            driver,
            agent: config.build().into(),
            session: format!("http://127.0.0.1:{port}/session"),
        };
        let arguments = [
            "--headless=new",
            "--window-size=1280,1200",
            "--disable-gpu",
            // In containers there are neither the rights for a sandbox nor space in /dev/shm; only our own
            // pages are opened.
            "--no-sandbox",
            "--disable-dev-shm-usage",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let (status, answer) = browser.send("", &wanted);
        if answer["message"].as_str().is_some_and(|message| message.contains("cannot find Chrome binary")) {
            println!("skipped: {}", answer["message"]);
            return None;
        }
        assert_eq!(status, 200, "no session: {answer}");
        let id = answer["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        // An element that a click creates may appear a moment later.
        browser.command("/timeouts", &json!({"implicit": 10_000}));
        Some(browser)
    }

    /// Opens a file.
    pub fn open(&self, file: &Path) {
        self.open_address(&format!("file://{}", file.display()));
    }

    /// Opens an address.
    #[track_caller]
    pub fn open_address(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// Empties a field and types a text into it, key by key.
    #[track_caller]
    pub fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector);
        let id = element[ELEMENT].as_str().unwrap();
        self.script("arguments[0].select()", std::slice::from_ref(&element));
        self.command(&format!("/element/{id}/value"), &json!({"text": text}));
    }

    /// Waits until a script in the page returns true.
    #[track_caller]
    pub fn wait_for(&self, script: &str) {
        let start = Instant::now();
        while self.script(script, &[]) != true {
            assert!(start.elapsed() < PATIENCE, "never true: {script}\n{:?}", self.console());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The page as a PNG picture.
    pub fn screenshot(&self) -> Vec<u8> {
        let shot = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": false}));
        let text = shot["data"].as_str().unwrap();
        base64_bytes(text)
    }

    /// The first element that a CSS selector finds.
    #[track_caller]
    pub fn find(&self, selector: &str) -> Value {
        self.command("/element", &json!({"using": "css selector", "value": selector}))
    }

    /// The text of an element as it is seen.
    #[track_caller]
    pub fn text(&self, selector: &str) -> String {
        let found = self.script("return document.querySelector(arguments[0]).innerText", &[selector.into()]);
        found.as_str().unwrap().to_owned()
    }

    /// What a script in the page returns.
    #[track_caller]
    pub fn script(&self, script: &str, arguments: &[Value]) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": arguments}))
    }

    /// What a script in the page hands to its last argument, a function.
    #[track_caller]
    pub fn script_async(&self, script: &str, arguments: &[Value]) -> Value {
        self.command("/execute/async", &json!({"script": script, "args": arguments}))
    }

    #[track_caller]
    pub fn click(&self, selector: &str) {
        let element = self.find(selector);
        let id = element[ELEMENT].as_str().unwrap();
        self.command(&format!("/element/{id}/click"), &json!({}));
    }

    /// Moves the mouse to the middle of an element, scrolling it into the window first.
    #[track_caller]
    pub fn hover(&self, selector: &str) {
        let element = self.find(selector);
        self.script("arguments[0].scrollIntoView({block: 'center'})", std::slice::from_ref(&element));
        let to = json!({"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": element});
        self.command("/actions", &json!({"actions": [{"type": "pointer", "id": "mouse", "actions": [to]}]}));
    }

    /// Presses and releases a key, wherever the focus is.
    #[track_caller]
    pub fn press(&self, key: &str) {
        let actions = ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key}));
        self.command(
            "/actions",
            &json!({"actions": [{"type": "key", "id": "keyboard", "actions": actions}]}),
        );
    }

    /// Chooses the option with this text in a select element.
    #[track_caller]
    pub fn select(&self, selector: &str, text: &str) {
        let script = "const select = document.querySelector(arguments[0]);
            const option = [...select.options].find((option) => option.text === arguments[1]);
            if (!option) throw new Error(`no ${arguments[1]} among ${select.innerText}`);
            select.value = option.value;
            select.dispatchEvent(new Event('change', {bubbles: true}));";
        self.script(script, &[selector.into(), text.into()]);
    }

    /// What the page has written to the console, including errors of all kinds, since the last call.
    pub fn console(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({"type": "browser"}));
        let message = |entry: &Value| entry["message"].as_str().unwrap().to_owned();
        entries.as_array().unwrap().iter().map(message).collect()
    }

    /// Every address that the page has requested since the last call.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.command("/se/log", &json!({"type": "performance"}));
        let mut addresses = Vec::new();
        for entry in entries.as_array().unwrap() {
            let event: Value = serde_json::from_str(entry["message"].as_str().unwrap()).unwrap();
            let (method, params) = (&event["message"]["method"], &event["message"]["params"]);
            if method == "Network.requestWillBeSent" {
                addresses.push(params["request"]["url"].as_str().unwrap().to_owned());
            }
        }
        addresses
    }

    /// A command of the Chrome DevTools Protocol.
    #[track_caller]
    pub fn devtools(&self, method: &str, params: Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": method, "params": params}))
    }

    #[track_caller]
    fn command(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.send(path, body);
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    #[track_caller]
    fn send(&self, path: &str, body: &Value) -> (u16, Value) {
        let address = format!("{}{path}", self.session);
        let mut response = self.agent.post(&address).send(body.to_string()).unwrap();
        let body = response.body_mut().with_config().limit(1 << 30);
        let mut answer: Value = serde_json::from_str(&body.read_to_string().unwrap()).unwrap();
        (response.status().as_u16(), answer["value"].take())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Best effort: the driver closes the browser, also when a test has failed.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver has chosen: it says so on stdout.
fn port_of(driver: &mut Child) -> u16 {
    let start = Instant::now();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let mut seen = String::new();
    while start.elapsed() < PATIENCE {
        let Some(line) = lines.next() else { break };
        let line = line.unwrap();
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            return port.trim_end_matches('.').parse().unwrap();
        }
        seen += &line;
    }
    panic!("chromedriver names no port: {seen}");
}

/// The bytes of a text in base64.
fn base64_bytes(text: &str) -> Vec<u8> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|c| *c != b'=').map(value).collect();
    let group = |four: &[u8]| {
        let bits =
            four.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - four.len()));
        bits.to_be_bytes()[1..four.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
