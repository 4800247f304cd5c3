//! `patch-cli completions`: a script for a shell.

use std::io::Write;

use clap_complete::Shell;

use crate::failure::Failure;
use crate::screen;

/// Arguments of `completions`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell to write the script for
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  patch-cli completions bash > ~/.local/share/bash-completion/completions/patch-cli
  patch-cli completions zsh > ~/.zfunc/_patch-cli
  patch-cli completions fish > ~/.config/fish/completions/patch-cli.fish";

/// Prints the script.
pub fn run(args: &Args) -> Result<(), Failure> {
    // The generator panics if it cannot write, for example to a closed pipe.
    let mut script = Vec::new();
    let mut command = crate::full_command();
    clap_complete::generate(args.shell, &mut command, "patch-cli", &mut script);
    screen::stdout().as_it_is().write_all(&script)?;
    Ok(())
}
