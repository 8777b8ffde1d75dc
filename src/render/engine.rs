//! The template engine, as templates need it, and its errors as people need them.

use std::sync::Arc;

use minijinja::value::Value as Jinja;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior};

use super::variables::Context;

/// Fuel for one file: about this many instructions, or 64 times as many bytes (13 MB). The built-in templates need less
/// than 300, a plain text of 1 MiB about 16,000.
const FUEL: u64 = 200_000;

/// How deeply templates may include, and macros call, each other. The engine's own limit of 500 needs most of a thread's stack.
const RECURSION: usize = 100;

/// Bytes that a rendered file may have. A gateway injects no more than 20,000 characters of one.
const MAX_RENDERED_BYTES: usize = 1024 * 1024;

/// What went wrong while rendering one template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// A CamelCase word.
    pub(super) reason: &'static str,
    /// The same for people: template, line, what, and what to do.
    pub(super) message: String,
}

/// An environment that finds templates, and those that they include, through `source` alone.
pub(super) fn environment(source: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_loader(move |name| Ok(source(name)));
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION);
    // Makes errors name the variable. Their alternate format would also show values: it is used nowhere.
    environment.set_debug(true);
    // Dumps all variables, and Jinja2 has nothing like it.
    environment.remove_global("debug");
    environment
}

/// Renders the template of this name.
pub(super) fn render_named(
    environment: &Environment<'_>,
    name: &str,
    context: &Arc<Context>,
) -> Result<String, Failure> {
    let template = environment.get_template(name).map_err(|error| failure(name, &error))?;
    let rendered = template.render(Jinja::from_dyn_object(Arc::clone(context)));
    finish(name, rendered, context)
}

/// Renders a template that is not in the set, for example a row's; `name` says where it comes from.
pub(super) fn render_text(
    environment: &Environment<'_>,
    name: &str,
    text: &str,
    context: &Arc<Context>,
) -> Result<String, Failure> {
    let rendered = environment
        .template_from_named_str(name, text)
        .map_err(|error| failure(name, &error))?
        .render(Jinja::from_dyn_object(Arc::clone(context)));
    finish(name, rendered, context)
}

fn finish(name: &str, rendered: Result<String, Error>, context: &Context) -> Result<String, Failure> {
    let text = match rendered {
        Ok(text) => text,
        Err(error) => {
            // The engine looks at every variable of a failed template; only one that the error is about counts.
            let cause = innermost(&error).detail();
            return Err(match context.met() {
                Some(fault) if cause == Some(fault.message.as_str()) => Failure {
                    reason: fault.reason,
                    message: format!("{}: {}", place(name, &error), fault.message),
                },
                _ => failure(name, &error),
            });
        }
    };
    if let Some(fault) = context.met() {
        return Err(Failure {
            reason: fault.reason,
            message: format!("{name}: {}", fault.message),
        });
    }
    if text.len() > MAX_RENDERED_BYTES {
        return Err(Failure {
            reason: "TemplateTooExpensive",
            message: format!("{name}: the rendered text is larger than 1 MiB; shorten the template"),
        });
    }
    Ok(text.trim().to_owned())
}

/// The engine's own error at the bottom of a chain: errors in included templates come wrapped.
fn innermost(error: &Error) -> &Error {
    let mut innermost = error;
    while let Some(next) = std::error::Error::source(innermost).and_then(|source| source.downcast_ref::<Error>()) {
        innermost = next;
    }
    innermost
}

/// Template and line of an error, with the template it was included from.
fn place(name: &str, error: &Error) -> String {
    let innermost = innermost(error);
    let at = |error: &Error| {
        let name = error.name().unwrap_or(name);
        error
            .line()
            .map_or_else(|| name.to_owned(), |line| format!("{name}, line {line}"))
    };
    if innermost.name().is_none_or(|inner| inner == name) {
        at(innermost)
    } else {
        format!("{} (included from {})", at(innermost), at(error))
    }
}

fn failure(name: &str, error: &Error) -> Failure {
    let innermost = innermost(error);
    let detail = innermost.detail().unwrap_or_default();
    let (reason, advice) = match innermost.kind() {
        ErrorKind::SyntaxError | ErrorKind::BadEscape | ErrorKind::InvalidDelimiter => {
            ("TemplateSyntax", "correct the template")
        }
        ErrorKind::UndefinedError => (
            "UnknownVariable",
            "use only the documented variables of this kind of agent, or guard it with `is defined`",
        ),
        ErrorKind::TemplateNotFound => (
            "MissingInclude",
            "add that template to the templates directory, under this name relative to it",
        ),
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => {
            ("UnknownFilter", "use only Jinja's own filters, tests and functions")
        }
        ErrorKind::OutOfFuel => ("TemplateTooExpensive", "it computes or writes too much; simplify it"),
        _ if detail.contains("recursion limit") => (
            "TemplateTooExpensive",
            "it includes itself or calls itself too deeply; break the circle",
        ),
        _ => ("TemplateFailed", "correct the template"),
    };
    let what = if detail.is_empty() {
        innermost.kind().to_string()
    } else {
        format!("{}: {detail}", innermost.kind())
    };
    Failure {
        reason,
        message: format!("{}: {what}; {advice}", place(name, error)),
    }
}
