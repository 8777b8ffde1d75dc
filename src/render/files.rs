//! From rows and templates to the files of one agent.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::engine::{self, Failure};
use super::fold::append_section;
use super::set::{MAX_TEMPLATE_BYTES, TemplateSet, normalize};
use super::variables::{RenderInput, Variables};
use crate::model::{AgentRow, Dialect, FileName, TOKEN_SENTINEL};

/// Characters of a file that a gateway puts before an agent; the rest of it is never read. As gateways count them, in
/// UTF-16 units.
const INJECTED_CHARS: usize = 20_000;
/// The same for `USER.md`.
const INJECTED_CHARS_USER: usize = 4_000;
/// By how much a token is longer than the sentinel that stands for it.
const TOKEN_EXCESS: usize = 43 - TOKEN_SENTINEL.len();

/// Title of the section of `AGENTS.md` that holds the text of `TOOLS.md` where a gateway has no such file.
const TOOLS_SECTION: &str = "Tools";
/// Title of the section of `AGENTS.md` that holds the text of `HEARTBEAT.md` where a gateway has no such file.
const HEARTBEAT_SECTION: &str = "Heartbeat";
/// What the gateway says to an agent at every heartbeat where there is no `HEARTBEAT.md`. `HEARTBEAT_OK` is the answer
/// that gateways keep to themselves.
const HEARTBEAT_PROMPT: &str = "This is your heartbeat. Do what the section \"Heartbeat\" of AGENTS.md in your workspace \
                                says, now and in full. If nothing needs attention, reply HEARTBEAT_OK.";

/// The files that one agent should have on its gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rendered {
    /// What each file should hold: trimmed, never empty, with [`TOKEN_SENTINEL`] where the token goes. Files that failed
    /// are not among them, and neither are those that the gateway does not have.
    pub files: BTreeMap<FileName, String>,
    /// Files that could not be rendered; on the gateway they stay as they are.
    pub errors: Vec<FileError>,
    /// The prompt that the agent's heartbeat needs because the gateway has no `HEARTBEAT.md`; `None` if it has, or if
    /// the row gives its own prompt.
    pub heartbeat_prompt: Option<String>,
    /// Files that will not work as meant.
    pub warnings: Vec<FileWarning>,
}

/// A file that could not be rendered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileError {
    /// The file on the gateway that is not written because of it.
    pub file: FileName,
    /// A CamelCase word for programs: `TemplateSyntax`, `UnknownVariable`, `MissingInclude`, `UnknownFilter`,
    /// `TemplateTooExpensive`, `TemplateTooLarge`, `TemplateFailed`, `MissingTemplate`, `InvalidProfile`,
    /// `InvalidSuccessMetrics`, `NoWorkspaceRoot`, `UnsupportedFile`.
    pub reason: &'static str,
    /// The same for people: which template, line and variable, and what to do.
    pub message: String,
}

/// A file that will not work as meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileWarning {
    /// The file.
    pub file: FileName,
    /// A CamelCase word for programs: `FileTooLong`.
    pub reason: &'static str,
    /// The same for people, with what to do.
    pub message: String,
}

/// Renders all files that an agent of this role should have (`BOOTSTRAP.md` for leads only), as its gateway takes them.
///
/// A template that fails costs only its own file (or the file that its text is folded into). Whether a file is written
/// at all, for example one that belongs to the agent once it exists, is for the planner to say.
pub fn render(set: &TemplateSet, input: &RenderInput<'_>, dialect: &Dialect) -> Rendered {
    let variables = Variables::new(input);
    let mut rendered = Rendered::default();
    let mut texts = BTreeMap::new();
    for file in FileName::ALL {
        if file == FileName::Bootstrap && !input.role.is_lead() {
            continue;
        }
        match render_file(set, input, &variables, file) {
            Ok(text) if text.is_empty() => {}
            Ok(text) => {
                texts.insert(file, text);
            }
            Err(failure) => rendered.errors.push(FileError {
                file: home(file, dialect).unwrap_or(file),
                reason: failure.reason,
                message: failure.message,
            }),
        }
    }
    let mut has_heartbeat = false;
    for (file, title) in [
        (FileName::Tools, TOOLS_SECTION),
        (FileName::Heartbeat, HEARTBEAT_SECTION),
    ] {
        if home(file, dialect) == Some(file) {
            continue;
        }
        if let Some(text) = texts.remove(&file) {
            append_section(texts.entry(FileName::Agents).or_default(), title, &text);
            has_heartbeat |= file == FileName::Heartbeat;
        }
    }
    for (file, text) in texts {
        // Half of a folded file would lack the token, or what the heartbeat's prompt points to.
        if failed(&rendered, file) {
            continue;
        }
        if home(file, dialect).is_none() {
            if input.role.is_lead() {
                rendered.errors.push(FileError {
                    file,
                    reason: "UnsupportedFile",
                    message: format!("the gateway does not take {file}, which a board lead needs; upgrade the gateway"),
                });
            }
            continue;
        }
        rendered.warnings.extend(warning(file, &text));
        rendered.files.insert(file, text);
    }
    // A failed template takes no prompt away: the section that is on the gateway already stays there as well.
    has_heartbeat |= !dialect.has_file(FileName::Heartbeat) && failed(&rendered, FileName::Agents);
    if has_heartbeat && !has_own_prompt(input.agent) {
        rendered.heartbeat_prompt = Some(HEARTBEAT_PROMPT.to_owned());
    }
    rendered
}

/// The prompt that a heartbeat needs where the gateway has no `HEARTBEAT.md`; a row's own prompt goes before it.
///
/// Unlike [`Rendered::heartbeat_prompt`] it is known without rendering, so that a roster can be planned without its files.
pub fn heartbeat_prompt(dialect: &Dialect) -> Option<&'static str> {
    (!dialect.has_file(FileName::Heartbeat)).then_some(HEARTBEAT_PROMPT)
}

fn failed(rendered: &Rendered, file: FileName) -> bool {
    rendered.errors.iter().any(|error| error.file == file)
}

/// The file on the gateway that holds this file's text, if any does.
fn home(file: FileName, dialect: &Dialect) -> Option<FileName> {
    match file {
        _ if dialect.has_file(file) => Some(file),
        FileName::Tools | FileName::Heartbeat => Some(FileName::Agents),
        _ => None,
    }
}

fn render_file(
    set: &TemplateSet,
    input: &RenderInput<'_>,
    variables: &Variables,
    file: FileName,
) -> Result<String, Failure> {
    let (column, of_row) = match file {
        FileName::Identity => ("agents.identity_template", &input.agent.identity_template),
        FileName::Soul => ("agents.soul_template", &input.agent.soul_template),
        _ => ("", &None),
    };
    if let Some(text) = of_row.as_deref().filter(|text| !text.is_empty()) {
        if text.len() as u64 > MAX_TEMPLATE_BYTES {
            return Err(Failure {
                reason: "TemplateTooLarge",
                message: format!("{column}: the template is larger than 1 MiB; shorten it"),
            });
        }
        return engine::render_text(set.environment(), column, &normalize(text), &variables.context());
    }
    let Some(name) = set.template_for(input.role, file) else {
        return Err(Failure {
            reason: "MissingTemplate",
            message: format!("there is no template for {file}"),
        });
    };
    engine::render_named(set.environment(), &name, &variables.context())
}

/// Whether the row says itself what the gateway says at every heartbeat.
fn has_own_prompt(agent: &AgentRow) -> bool {
    let config = agent.heartbeat_config.as_ref().and_then(|config| config.as_ref().ok());
    config
        .and_then(|config| config.get("prompt"))
        .and_then(Value::as_str)
        .is_some_and(|prompt| !prompt.trim().is_empty())
}

fn warning(file: FileName, text: &str) -> Option<FileWarning> {
    let limit = if file == FileName::User {
        INJECTED_CHARS_USER
    } else {
        INJECTED_CHARS
    };
    let tokens = text.matches(TOKEN_SENTINEL).count();
    let chars = text.encode_utf16().count() + tokens * TOKEN_EXCESS;
    (chars > limit).then(|| FileWarning {
        file,
        reason: "FileTooLong",
        message: format!(
            "{file} has {chars} characters; the gateway shows agents only the first {limit}. Shorten its template or the \
             texts that it takes from rows."
        ),
    })
}
