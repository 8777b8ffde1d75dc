//! The page about configuration (`docs/configuration.md`), made of the same definitions as the arguments themselves.
//!
//! A test compares the file with what is made here, so a setting cannot be added, renamed or given another default without its page.

mod markdown;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::builder::PossibleValue;
use clap::{Arg, ArgAction, Command, CommandFactory};

use super::Cli;
use crate::config::{DATABASE_URL, DATABASE_URL_FILE, PAGE_TOKEN};
use markdown::{cell, code, prose, sentence};

/// Where the page is kept.
pub const CONFIGURATION_FILE: &str = "docs/configuration.md";

const HEAD: &str = "\
# Configuration

<!-- Made of the program's own definitions by `make docs`. What is wrong here is put right there: src/config.rs, src/config/, src/cli/. -->

Every setting is a flag and an environment variable. The flag goes before the variable, and the variable before the default. There is no
configuration file: systemd's `EnvironmentFile=`, a Compose file or a ConfigMap is where variables are kept ([deploy.md](deploy.md)). What gateways' URLs,
tokens, certificates and templates can be is said in [connecting.md](connecting.md).

- **Secrets are never arguments**, because everybody on a machine can read those. They come from [the environment](#environment), from files
  that settings name, and of gateways also from their rows.
- **A switch** (a flag without a value) is `true` or `false` as a variable, and nothing else.
- **A variable that is empty** is not one that is unset: most settings refuse it. Unset it instead.
- **A span of time** is written as `90s`, `10m`, `1h 30m` or `90d`.
- **What cannot be used** ends the program at the start, with exit code 2 and a message that says what is wrong.
- **Give commands the settings of `run`.** `diff`, `describe` and `sync` work out what files hold, so with other settings they show and write
  other files. Variables that are set for all of them are the easiest way.
";

/// Variables that are no flag's: names, and what they are for.
const ENVIRONMENT: [(&[&str], &str); 11] = [
    (
        &[DATABASE_URL],
        "The database: `postgres://user:password@host:port/database`. `?sslmode=verify-full` and `&sslrootcert=FILE` have the connection \
         encrypted and the server's certificate checked.",
    ),
    (
        &[DATABASE_URL_FILE],
        "A file that holds that URL instead. It goes before `DATABASE_URL`.",
    ),
    (
        &[PAGE_TOKEN],
        "The token that the status page and the API want, instead of the file of [`--page-token-file`](#--page-token-file); both together are \
         refused.",
    ),
    (
        &["OPENCLAW_GATEWAY_TOKEN_<NAME>"],
        "Gateways' tokens, for rows that say `env:OPENCLAW_GATEWAY_TOKEN_<NAME>`. No other variable can be referred to.",
    ),
    (
        &["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"],
        "Where the device's key is, unless [`--device-identity`](#--device-identity) says so: `$STATE_DIRECTORY` (systemd sets it), else for root \
         `/var/lib/openclaw-controller`, else `openclaw-controller` in `$XDG_STATE_HOME` or in `~/.local/state`.",
    ),
    (
        &["RUST_LOG"],
        "What is logged if [`--log`](#--log) does not say so. Without either it is `info,sqlx=warn`, of `sync` `error`, of `demo` `warn`.",
    ),
    (&["RUST_BACKTRACE"], "`1` adds a backtrace to the log line of a panic."),
    (
        &["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM"],
        "Colours are for terminals. `NO_COLOR=1`, `CLICOLOR=0` or `TERM=dumb` turns them off; `CLICOLOR_FORCE=1` keeps them in a pipe.",
    ),
    (
        &["SSL_CERT_FILE", "SSL_CERT_DIR"],
        "Other certificate authorities than the platform's, for gateways. Those of [`--gateway-ca-file`](#--gateway-ca-file) are trusted \
         besides.",
    ),
    (
        &[
            "PGHOST",
            "PGHOSTADDR",
            "PGPORT",
            "PGUSER",
            "PGPASSWORD",
            "PGDATABASE",
            "PGOPTIONS",
            "PGAPPNAME",
        ],
        "What the database's URL leaves out.",
    ),
    (
        &["PGSSLMODE", "PGSSLROOTCERT", "PGSSLCERT", "PGSSLKEY"],
        "The same for TLS to the database.",
    ),
];

/// Variables of builds with the feature `sim` alone, and of the scripts that fetch what tests need.
const DEVELOPMENT: [(&[&str], &str); 3] = [
    (
        &["OPENCLAW_CONTROLLER_CACHE", "XDG_CACHE_HOME"],
        "Where Postgres, Prometheus, Node and gateways are kept; by default `/var/cache/openclaw-controller` for root, else \
         `openclaw-controller` in `$XDG_CACHE_HOME` or in `~/.cache`.",
    ),
    (
        &["OPENCLAW_CONTROLLER_PG", "OPENCLAW_CONTROLLER_PROMETHEUS"],
        "`cache` passes over a Postgres, or a Prometheus, that the system has.",
    ),
    (
        &["PATH"],
        "Where `npm`, `bash` and the system's Postgres are looked for.",
    ),
];

/// One setting: a flag with a variable, and the commands that take it.
struct Setting {
    arg: Arg,
    commands: Vec<String>,
}

impl Setting {
    fn flag(&self) -> String {
        flag(&self.arg)
    }

    fn variable(&self) -> String {
        variable(&self.arg).unwrap_or_default()
    }
}

/// The page, as the text of its file.
pub fn configuration() -> String {
    let mut cli = Cli::command();
    cli.build();
    let commands: Vec<&Command> = cli
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
        .collect();
    let settings = settings(&cli, &commands);
    let mut page = HEAD.to_owned();
    environment(&mut page);
    overview(&mut page, &settings);
    page.push_str("\n## Settings\n");
    for setting in &settings {
        describe(&mut page, setting);
    }
    page.push_str("\n## Commands\n\nThe arguments of each command that have no variable. `--help` of each has examples and exit codes.\n");
    for command in commands {
        describe_command(&mut page, command, &settings);
    }
    development(&mut page);
    page
}

/// All settings in the order of `--help`: those of every command, those of `run`, and what only others have.
fn settings(cli: &Command, commands: &[&Command]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    let global = cli.get_arguments().map(|arg| (None, arg));
    let run_first = commands.iter().filter(|command| command.get_name() == "run");
    let others = commands.iter().filter(|command| command.get_name() != "run");
    let of_commands = run_first
        .chain(others)
        .flat_map(|command| command.get_arguments().map(|arg| (Some(command.get_name()), arg)))
        // Those that every command takes are among its arguments as well.
        .filter(|(_, arg)| !arg.is_global_set());
    for (command, arg) in global.chain(of_commands) {
        let Some(name) = variable(arg) else { continue };
        let found = settings.iter().position(|setting| setting.variable() == name);
        let at = found.unwrap_or_else(|| {
            settings.push(Setting {
                arg: arg.clone(),
                commands: Vec::new(),
            });
            settings.len() - 1
        });
        settings[at].commands.extend(command.map(str::to_owned));
    }
    settings
}

/// What `--flag` is called, with its dashes.
fn flag(arg: &Arg) -> String {
    format!("--{}", arg.get_long().unwrap_or_else(|| arg.get_id().as_str()))
}

fn variable(arg: &Arg) -> Option<String> {
    Some(arg.get_env()?.to_string_lossy().into_owned())
}

/// Whether it is followed by a value.
fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn value_name(arg: &Arg) -> Option<String> {
    if !takes_value(arg) {
        return None;
    }
    Some(arg.get_value_names()?.first()?.to_string())
}

/// What counts if nothing is said.
fn default(arg: &Arg) -> String {
    if !takes_value(arg) {
        return "off".to_owned();
    }
    let values: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| code(&value.to_string_lossy()))
        .collect();
    if !values.is_empty() {
        values.join(", ")
    } else if long_help(arg).contains("Defaults to ") {
        // It depends on what else is set, or on where it runs.
        "see there".to_owned()
    } else {
        "–".to_owned()
    }
}

/// The values that can be chosen from.
fn choices(arg: &Arg) -> Vec<PossibleValue> {
    if !takes_value(arg) {
        return Vec::new();
    }
    let mut values = arg.get_possible_values();
    values.retain(|value| !value.is_hide_set());
    values
}

fn long_help(arg: &Arg) -> String {
    let help = arg.get_long_help().or_else(|| arg.get_help());
    help.map(ToString::to_string).unwrap_or_default()
}

fn environment(page: &mut String) {
    page.push_str("\n## Environment\n\nWhat has no flag. Nothing else is read from the environment but the variables of the settings below.\n\n");
    variables(page, &ENVIRONMENT);
}

fn development(page: &mut String) {
    page.push_str("\n## Development\n\nVariables of the demo and of the tests (builds with the feature `sim`); a release does not read them.\n\n");
    variables(page, &DEVELOPMENT);
}

fn variables(page: &mut String, rows: &[(&[&str], &str)]) {
    page.push_str("| variable | holds |\n|---|---|\n");
    for (names, holds) in rows {
        let names: Vec<String> = names.iter().map(|name| code(name)).collect();
        let _ = writeln!(page, "| {} | {holds} |", names.join(", "));
    }
}

fn overview(page: &mut String, settings: &[Setting]) {
    page.push_str("\n## At a glance\n\n| flag | variable | default | |\n|---|---|---|---|\n");
    for setting in settings {
        let flag = setting.flag();
        let first = long_help(&setting.arg);
        let first = first.split("\n\n").next().unwrap_or_default();
        let _ = writeln!(
            page,
            "| [`{flag}`](#{flag}) | `{}` | {} | {} |",
            setting.variable(),
            default(&setting.arg),
            cell(&prose(&sentence(first)))
        );
    }
}

fn describe(page: &mut String, setting: &Setting) {
    let Setting { arg, commands } = setting;
    let flag = setting.flag();
    let shown = match value_name(arg) {
        Some(value) => format!("{flag} <{value}>"),
        None => flag.clone(),
    };
    let commands = if commands.is_empty() {
        "all".to_owned()
    } else {
        let names: Vec<String> = commands.iter().map(|name| code(name)).collect();
        names.join(", ")
    };
    let _ = write!(
        page,
        "\n### `{flag}`\n\n| flag | variable | default | commands |\n|---|---|---|---|\n| {} | `{}` | {} | {commands} |\n",
        cell(&code(&shown)),
        setting.variable(),
        default(arg)
    );
    for paragraph in long_help(arg).split("\n\n") {
        let _ = write!(page, "\n{}\n", prose(&sentence(paragraph)));
    }
    let choices = choices(arg);
    if !choices.is_empty() {
        page.push('\n');
    }
    for choice in choices {
        let help = choice.get_help().map(ToString::to_string).unwrap_or_default();
        let help = if help.is_empty() {
            help
        } else {
            format!(": {}", prose(&sentence(&help)))
        };
        let _ = writeln!(page, "- {}{help}", code(choice.get_name()));
    }
}

fn describe_command(page: &mut String, command: &Command, settings: &[Setting]) {
    let name = command.get_name();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(page, "\n### `{name}`\n\n{}", prose(&sentence(&about)));
    if name == "demo" {
        page.push_str(" Only in builds with the feature `sim`.");
    }
    page.push('\n');
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| variable(arg).is_none() && !arg.is_global_set() && takes_or_switches(arg))
        .collect();
    if !own.is_empty() {
        page.push_str("\n| argument | default | |\n|---|---|---|\n");
    }
    for arg in own {
        let _ = writeln!(
            page,
            "| {} | {} | {} |",
            cell(&code(&usage(arg))),
            default_of_argument(arg),
            cell(&meaning(arg))
        );
    }
    // By heading, since some commands say above their settings what they are for.
    let mut by_heading: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for arg in command.get_arguments() {
        let Some(variable) = variable(arg) else { continue };
        let known = settings
            .iter()
            .any(|setting| setting.variable() == variable && !setting.commands.is_empty());
        if known {
            let flag = flag(arg);
            let heading = arg.get_help_heading().unwrap_or_default();
            by_heading
                .entry(heading)
                .or_default()
                .push(format!("[`{flag}`](#{flag})"));
        }
    }
    for (heading, flags) in by_heading {
        let heading = if heading.is_empty() {
            String::new()
        } else {
            format!(" ({})", prose(&first_small(heading)))
        };
        let _ = write!(page, "\nSettings{heading}: {}.\n", flags.join(", "));
    }
}

/// Whether it is more than a question for help or the version.
fn takes_or_switches(arg: &Arg) -> bool {
    !matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version
    )
}

/// An argument as it is written on the command line.
fn usage(arg: &Arg) -> String {
    let value = value_name(arg).unwrap_or_default();
    if arg.is_positional() {
        let many = matches!(arg.get_action(), ArgAction::Append);
        let dots = if many { "…" } else { "" };
        return if arg.is_required_set() {
            format!("<{value}>{dots}")
        } else {
            format!("[{value}]{dots}")
        };
    }
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let flag = flag(arg);
    if value.is_empty() {
        format!("{short}{flag}")
    } else {
        format!("{short}{flag} <{value}>")
    }
}

/// Switches are off unless given; that needs no saying in a column of mostly nothing.
fn default_of_argument(arg: &Arg) -> String {
    if takes_value(arg) {
        default(arg)
    } else {
        "–".to_owned()
    }
}

/// What an argument is for, and what it can be.
fn meaning(arg: &Arg) -> String {
    let help = long_help(arg);
    let sentences: Vec<String> = help
        .split("\n\n")
        .map(|paragraph| prose(&sentence(paragraph)))
        .collect();
    let mut text = sentences.join(" ");
    let choices: Vec<String> = choices(arg)
        .iter()
        .map(|choice| match choice.get_help() {
            Some(help) => format!(
                "{}: {}",
                code(choice.get_name()),
                prose(&first_small(&help.to_string()))
            ),
            None => code(choice.get_name()),
        })
        .collect();
    if !choices.is_empty() {
        let _ = write!(text, " One of {}.", choices.join("; "));
    }
    text
}

/// The same in the middle of a sentence, unless it begins with a name.
fn first_small(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) if !chars.as_str().starts_with(|next: char| next.is_uppercase()) => {
            first.to_lowercase().chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
