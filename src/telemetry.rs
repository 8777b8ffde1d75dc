//! Logging.
//!
//! Text for a person at a terminal, one JSON object per line for everything else, always to standard error. What happens within
//! a reconcile carries the fields of its span: controller, key and reconcile id.

#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal},
    panic::PanicHookInfo,
};

use clap::ValueEnum;
use thiserror::Error;
use tracing::{Level, Metadata, Subscriber, error};
use tracing_subscriber::{
    EnvFilter, Layer,
    fmt::MakeWriter,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// What is logged if nobody says otherwise. Of sqlx only what needs a look, such as slow statements.
pub const DEFAULT_FILTER: &str = "info,sqlx=warn";

/// In which form logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text if standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Text, coloured on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error(
        "the log filter `{filter}` cannot be read: {why}; write a level (`debug`) or directives (`info,sqlx=warn`)"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else logs already.
    #[error("logging has been set up already: {0}")]
    AlreadySetUp(String),
}

/// Sets logging up for the whole process, panics included.
///
/// The filter is `filter` if given, else the environment's `RUST_LOG`, else [`DEFAULT_FILTER`].
///
/// # Errors
/// When the filter cannot be read, or something else logs already.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), TelemetryError> {
    let from_environment = env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = filter
        .or(from_environment.as_deref())
        .filter(|text| !text.trim().is_empty())
        .unwrap_or(DEFAULT_FILTER);
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let style = Style::choose(format, io::stderr().is_terminal(), no_color);
    subscriber(style, filter, io::stderr)?
        .try_init()
        .map_err(|error| TelemetryError::AlreadySetUp(error.to_string()))?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Text { colour: bool },
    Json,
}

impl Style {
    fn choose(format: LogFormat, terminal: bool, no_color: bool) -> Self {
        match format {
            LogFormat::Auto if !terminal => Self::Json,
            LogFormat::Json => Self::Json,
            LogFormat::Auto | LogFormat::Text => Self::Text {
                colour: terminal && !no_color,
            },
        }
    }
}

fn subscriber<W>(style: Style, filter: &str, writer: W) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|error| TelemetryError::Filter {
            filter: filter.to_owned(),
            why: error.to_string(),
        })?;
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer = match style {
        Style::Text { colour } => layer.with_ansi(colour).boxed(),
        // The list of spans rather than the innermost: the fields of the reconcile are those of an outer one.
        Style::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(true)
            .boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer).with(filter).with(NoFrames))
}

/// Keeps whole WebSocket frames out of the log whatever the filter says: agents' tokens travel in them, and the library that
/// reads and writes them logs them at `trace`.
struct NoFrames;

impl<S: Subscriber> Layer<S> for NoFrames {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let frames = ["tungstenite", "tokio_tungstenite"]
            .iter()
            .any(|name| metadata.target().split("::").next() == Some(name));
        !(frames && *metadata.level() == Level::TRACE)
    }
}

/// Tells of a panic as of everything else, so that JSON logs stay JSON.
fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string);
    let message = info.payload_as_str().unwrap_or("(no message)");
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(location, backtrace, "panic: {message}");
}
