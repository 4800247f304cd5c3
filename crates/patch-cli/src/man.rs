//! `patch-cli man`: man pages, for `cargo xtask man`.

use std::path::{Path, PathBuf};

use clap::Command;
use clap_mangen::Man;

use crate::failure::Failure;
use crate::output::{MAKER, Output, write_together};

/// Arguments of `man`.
#[derive(clap::Args)]
pub struct Args {
    /// The folder for the pages
    folder: PathBuf,
}

/// Writes `patch-cli.1` and a page for each subcommand: all of them or, if one cannot be written, none.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut command = crate::full_command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![page(&args.folder, command.clone(), "patch-cli")?];
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|subcommand| !subcommand.is_hide_set()) {
        let name = format!("patch-cli-{}", subcommand.get_name());
        pages.push(page(&args.folder, subcommand.clone(), &name)?);
    }
    let files: Vec<(&Output, &[u8])> = pages.iter().map(|(output, page)| (output, &**page)).collect();
    write_together(&files)
}

fn page(folder: &Path, command: Command, name: &str) -> Result<(Output, Vec<u8>), Failure> {
    let output = Output::prepare(&folder.join(format!("{name}.1")))?;
    let mut page = format!(".\\\" Software: {MAKER}\n").into_bytes();
    Man::new(command.display_name(name)).render(&mut page)?;
    Ok((output, page))
}
