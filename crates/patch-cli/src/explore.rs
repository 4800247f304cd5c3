//! `patch-cli explore`: the live page, on this machine alone.

use std::io::Write as _;
use std::process::{Command, Stdio};

use explorer::{Bench, Exporter, Server};

use crate::common::ModelArgs;
use crate::failure::Failure;
use crate::running::Interrupt;
use crate::screen;

const HELP: &str = "\
Examples:
  patch-cli explore
  patch-cli explore --port 8080 --no-open --model gpt2";

/// Arguments of `explore`.
#[derive(clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    /// Port on 127.0.0.1 [default: any that is free]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,

    /// Do not open a browser
    #[arg(long)]
    no_open: bool,

    #[command(flatten)]
    model: ModelArgs,
}

/// Serves the page until a signal comes.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.model.ids || args.model.json {
        let flag = if args.model.ids { "--ids" } else { "--json" };
        return Err(Failure::Input(format!(
            "explore has no {flag}: it shows a page, in which prompts are texts"
        )));
    }
    let model = args.model.load()?;
    let bos = args.model.bos(&model)?;
    let program = std::env::current_exe()
        .map_err(|error| Failure::Other(format!("cannot find out where this program is: {error}")))?;
    let mut of_model = vec!["--model".to_owned(), model.name.clone()];
    let flags = [("--bos", args.model.bos), ("--no-bos", args.model.no_bos)];
    of_model.extend(flags.iter().filter(|(_, given)| *given).map(|(flag, _)| (*flag).to_owned()));
    let exporter = Exporter { program, model: absolute(of_model) };
    let interrupt = Interrupt::listen()?;
    let server = Server::bind(Bench::new(model), bos, exporter, args.port)
        .map_err(|error| Failure::Other(format!("cannot listen on 127.0.0.1:{}: {error}", args.port)))?;
    let address = server.address();
    writeln!(screen::stdout(), "{address}\nstop with Ctrl-C")?;
    screen::stdout().flush()?;
    if !args.no_open {
        open(&address);
    }
    server.run(interrupt.flag()).map_err(|error| Failure::Other(format!("cannot listen any more: {error}")))
}

/// A model that is named by a path is found from any folder.
fn absolute(mut arguments: Vec<String>) -> Vec<String> {
    let is_path = |name: &str| std::path::Path::new(name).components().count() > 1;
    if let Some(name) = arguments.get_mut(1).filter(|name| is_path(name))
        && let Ok(path) = std::fs::canonicalize(&*name)
        && let Some(path) = path.to_str()
    {
        path.clone_into(name);
    }
    arguments
}

/// Opens the page in the browser, if the system has a way; if not, the address has been printed.
fn open(address: &str) {
    #[cfg(target_os = "macos")]
    let mut command = Command::new("open");
    #[cfg(windows)]
    let mut command = Command::new("explorer");
    #[cfg(not(any(target_os = "macos", windows)))]
    let mut command = {
        // Without a screen, browsers of the terminal would be started.
        if ["DISPLAY", "WAYLAND_DISPLAY"].iter().all(|name| std::env::var_os(name).is_none()) {
            return;
        }
        Command::new("xdg-open")
    };
    let command = command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = command.spawn() {
        // Reaped when it ends.
        std::thread::spawn(move || child.wait());
    }
}
