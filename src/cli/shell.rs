//! `openclaw-controller completions` and `man`: made of the same definitions as the arguments themselves.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, out};

/// The program's name.
const NAME: &str = "openclaw-controller";

/// The arguments of `completions`.
#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// For which shell.
    shell: Shell,
}

/// The arguments of `man`.
#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// The command that the page is about; without it, the page about all of them.
    command: Option<String>,

    /// Write the pages of all commands into this directory instead; it is made if it does not exist.
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    Ok(out::print(&String::from_utf8_lossy(&script))?)
}

pub(super) fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut cli = Cli::command().name(NAME);
    cli.build();
    if let Some(dir) = &args.dir {
        let written = std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(cli, dir));
        return written.with_context(|| format!("cannot write the man pages to {}", dir.display()));
    }
    let page = match &args.command {
        None => cli,
        Some(name) => {
            let known: Vec<_> = cli
                .get_subcommands()
                .map(|command| command.get_name().to_owned())
                .collect();
            let found = cli.find_subcommand(name).cloned();
            found.with_context(|| format!("there is no command {name:?}; there are {}", known.join(", ")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    Ok(out::print(&String::from_utf8_lossy(&text))?)
}
