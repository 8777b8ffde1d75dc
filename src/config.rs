//! Configuration: flags, environment, defaults.
//!
//! Every setting of `run` is a flag and an environment variable. Secrets are never flags: the database's URL comes from the environment
//! or from a file, gateways' tokens from their rows, or from where these say.

mod connections;
mod page;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use secrecy::SecretString;

pub use connections::ConnectionArgs;
pub use page::{PAGE_TOKEN, PageArgs};

use crate::model::{EnsureLeads, GatewayVersion};
use crate::reconcile::{Settings, TokenPolicy};
use crate::token::HashFormat;

/// The environment variable that holds the database's URL.
pub const DATABASE_URL: &str = "DATABASE_URL";

/// The environment variable that names a file which holds the database's URL.
pub const DATABASE_URL_FILE: &str = "OPENCLAW_CONTROLLER_DATABASE_URL_FILE";

/// The database's URL, from [`DATABASE_URL`] or the file that [`DATABASE_URL_FILE`] names.
///
/// # Errors
/// Neither is set, or the file cannot be read. Never shows the URL.
pub fn database_url() -> anyhow::Result<SecretString> {
    if let Some(path) = std::env::var_os(DATABASE_URL_FILE) {
        let path = PathBuf::from(path);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {} (named by {DATABASE_URL_FILE})", path.display()))?;
        return Ok(text.trim().to_owned().into());
    }
    match std::env::var(DATABASE_URL) {
        Ok(url) if !url.trim().is_empty() => Ok(url.into()),
        _ => bail!(
            "{DATABASE_URL} is not set; set it to the database's URL, for example \
             postgres://user:password@localhost/mission_control, or {DATABASE_URL_FILE} to a file that holds it"
        ),
    }
}

/// How tokens are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenHash {
    /// `pbkdf2-sha256` beside an existing installation (its backend verifies nothing else), `argon2id` otherwise.
    Auto,
    /// Argon2id, as PHC strings.
    Argon2id,
    /// PBKDF2-HMAC-SHA-256 with 200,000 rounds, as existing installations hold them.
    #[value(name = "pbkdf2-sha256")]
    Pbkdf2Sha256,
}

impl TokenHash {
    /// The format to write.
    pub fn resolve(self, existing_installation: bool) -> HashFormat {
        match self {
            Self::Auto if existing_installation => HashFormat::Pbkdf2Sha256,
            Self::Auto | Self::Argon2id => HashFormat::Argon2id,
            Self::Pbkdf2Sha256 => HashFormat::Pbkdf2Sha256,
        }
    }
}

/// Which boards are given a lead where they have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LeadBoards {
    /// Those whose goal is confirmed, and those that are not of the type `goal`.
    Confirmed,
    /// All.
    All,
    /// None: leads are made by somebody else.
    None,
}

impl LeadBoards {
    /// What was chosen; if nothing was, `none` beside an existing installation, whose backend makes leads itself, and
    /// `confirmed` elsewhere.
    pub fn resolve(chosen: Option<Self>, existing_installation: bool) -> EnsureLeads {
        match chosen {
            Some(Self::All) => EnsureLeads::All,
            Some(Self::None) => EnsureLeads::None,
            None if existing_installation => EnsureLeads::None,
            Some(Self::Confirmed) | None => EnsureLeads::Confirmed,
        }
    }
}

/// A span of time as people write it: `10m`, `5s`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match humantime::parse_duration(text) {
            Ok(span) if span.is_zero() => Err("must be longer than nothing".into()),
            Ok(span) => Ok(Self(span)),
            Err(error) => Err(format!("{error}; write it like 10m, 90s or 1h 30m")),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// What decides the contents of agents' files, for the commands that compute them.
#[derive(Args, Clone, Debug)]
pub struct DesiredArgs {
    /// URL at which agents reach the backend (or this controller); rendered into their files.
    ///
    /// Defaults to http:// and the address of --agent-listen, or of --listen. Beside an existing installation no file of an existing agent is
    /// written until this and --templates-dir are given.
    #[arg(long, env = "OPENCLAW_CONTROLLER_BASE_URL", value_name = "URL", value_parser = base_url)]
    pub base_url: Option<String>,

    /// Directory of templates (`BOARD_<NAME>.md.j2`); each file replaces the built-in one of that name.
    #[arg(long, env = "OPENCLAW_CONTROLLER_TEMPLATES_DIR", value_name = "DIR")]
    pub templates_dir: Option<PathBuf>,

    /// How gateways are connected to.
    #[command(flatten)]
    pub connections: ConnectionArgs,

    /// Address that the status page, the API, metrics and probes are served at, and agents check in at unless --agent-listen is given.
    ///
    /// By default nobody but this machine reaches it.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_LISTEN",
        value_name = "ADDR",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// Address that agents check in at (POST /api/v1/agent/heartbeat), for where they must not reach metrics and probes.
    ///
    /// Defaults to the address of --listen; if given, check-ins are answered here only.
    #[arg(long, env = "OPENCLAW_CONTROLLER_AGENT_LISTEN", value_name = "ADDR")]
    pub agent_listen: Option<SocketAddr>,

    /// What is wanted of agents' tokens.
    #[command(flatten)]
    pub tokens: TokenArgs,

    /// What may be done to gateways, and to which.
    #[command(flatten)]
    pub gateways: GatewayArgs,
}

/// Which agents exist besides those that have rows, for the commands that make and remove them.
#[derive(Args, Clone, Debug, Default)]
pub struct ExistenceArgs {
    /// Remove agents, with their files, that this controller made and that no row explains any more: their rows were deleted, or
    /// say another gateway or another role.
    ///
    /// Without it they are only told of, in events and in the gateway's condition Leftovers. Agents that were there before this
    /// controller are never removed, unless their own rows ask for it.
    #[arg(long, env = "OPENCLAW_CONTROLLER_PRUNE")]
    pub prune: bool,

    /// Which boards are given a lead where they have none.
    ///
    /// Defaults to confirmed; beside an existing installation, whose backend makes leads itself, to none.
    #[arg(long, env = "OPENCLAW_CONTROLLER_ENSURE_LEADS", value_name = "BOARDS")]
    pub ensure_leads: Option<LeadBoards>,
}

impl ExistenceArgs {
    /// Tells the reconcilers.
    pub fn apply(&self, settings: &mut Settings, existing_installation: bool) {
        settings.prune = self.prune;
        settings.ensure_leads = LeadBoards::resolve(self.ensure_leads, existing_installation);
    }
}

/// What may be done to gateways, and to which.
#[derive(Args, Clone, Debug)]
pub struct GatewayArgs {
    /// How often a gateway may be restarted within an hour by what this controller changes in its config; 0: never.
    ///
    /// Beyond that, changes that would restart it wait, and the gateway's condition ConfigSynced says which and until when. Changes
    /// that are applied while it runs are made all the same. Restarts that came unforeseen count as well.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_MAX_RESTARTS_PER_HOUR",
        value_name = "N",
        default_value_t = Self::DEFAULT_RESTARTS
    )]
    pub max_restarts_per_hour: u32,

    /// The oldest version of OpenClaw that is written to: 2026.4.29. Without it, every gateway is that can be understood.
    ///
    /// An older gateway, and one whose version cannot be told, gets the condition Compatible=False, and nothing is written to it.
    #[arg(long, env = "OPENCLAW_CONTROLLER_MIN_GATEWAY_VERSION", value_name = "VERSION")]
    pub min_gateway_version: Option<GatewayVersion>,
}

impl Default for GatewayArgs {
    fn default() -> Self {
        Self {
            max_restarts_per_hour: Self::DEFAULT_RESTARTS,
            min_gateway_version: None,
        }
    }
}

impl GatewayArgs {
    const DEFAULT_RESTARTS: u32 = 4;

    /// Tells the reconcilers.
    pub fn apply(&self, settings: &mut Settings) {
        settings.max_restarts_per_hour = self.max_restarts_per_hour;
        settings.min_gateway_version.clone_from(&self.min_gateway_version);
    }
}

/// What is wanted of agents' tokens.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// Give every agent a new token when its token is older than this, an hour at least: 90d, 12h. Off unless given.
    ///
    /// Age counts from when the token was made, or from when it was first verified if it was found. It is looked at whenever
    /// the agent is, at the latest at the next resync.
    #[arg(long, env = "OPENCLAW_CONTROLLER_TOKEN_MAX_AGE", value_name = "SPAN", value_parser = max_age)]
    pub token_max_age: Option<Span>,

    /// What to do about a token that is lost or does not match its stored hash.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_TOKEN_REPAIR",
        value_name = "MODE",
        default_value = "auto"
    )]
    pub token_repair: TokenRepair,
}

impl Default for TokenArgs {
    fn default() -> Self {
        Self {
            token_max_age: None,
            token_repair: TokenRepair::Auto,
        }
    }
}

impl TokenArgs {
    /// The same for the reconcilers.
    pub fn policy(&self) -> TokenPolicy {
        TokenPolicy {
            max_age: self.token_max_age.map(|span| span.0),
            repair_auto: self.token_repair == TokenRepair::Auto,
        }
    }
}

/// What to do about a token that is lost or does not match its stored hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenRepair {
    /// Replace it, once nobody has changed token or hash for a minute.
    Auto,
    /// Say so (TokenValid=False) and wait for `rotate-token`.
    Manual,
}

/// Shorter than this, a token would be replaced before every agent has read it.
const LEAST_MAX_AGE: Duration = Duration::from_hours(1);

fn max_age(text: &str) -> Result<Span, String> {
    let span: Span = text.parse()?;
    if span.0 < LEAST_MAX_AGE {
        return Err("must be an hour at least: an agent reads a new token only at its next heartbeat".into());
    }
    Ok(span)
}

impl DesiredArgs {
    /// The base URL that is rendered.
    pub fn base_url(&self) -> String {
        self.base_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", self.agent_listen.unwrap_or(self.listen)))
    }

    /// Whether files of agents that existed before this controller may be written beside an existing installation.
    pub fn is_explicit(&self) -> bool {
        self.base_url.is_some() && self.templates_dir.is_some()
    }
}

/// The settings of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// What agents' files are to hold, and where to listen.
    #[command(flatten)]
    pub desired: DesiredArgs,

    /// Which agents exist besides those that have rows.
    #[command(flatten)]
    pub existence: ExistenceArgs,

    /// Who may look at the status page and use the API.
    #[command(flatten)]
    pub page: PageArgs,

    /// How often everything is looked at although nothing announced a change, ±10 %: 10m, 5s, 1h 30m.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_RESYNC_INTERVAL",
        value_name = "SPAN",
        default_value = "10m"
    )]
    pub resync_interval: Span,

    /// How new tokens are hashed.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_TOKEN_HASH",
        value_name = "FORMAT",
        default_value = "auto"
    )]
    pub token_hash: TokenHash,

    /// Do not migrate the database at the start; `openclaw-controller migrate` must have been run.
    #[arg(long, env = "OPENCLAW_CONTROLLER_NO_MIGRATE")]
    pub no_migrate: bool,

    /// Do not wake agents: nothing is ever sent to a session, and no check-in is awaited.
    #[arg(long, env = "OPENCLAW_CONTROLLER_NO_WAKE")]
    pub no_wake: bool,

    /// How many agents are worked on at once.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_AGENT_WORKERS",
        value_name = "N",
        value_parser = workers(),
        default_value_t = 16
    )]
    pub agent_workers: usize,

    /// How many gateways are worked on at once; one that does not answer holds a place for up to 15 s.
    #[arg(
        long,
        env = "OPENCLAW_CONTROLLER_GATEWAY_WORKERS",
        value_name = "N",
        value_parser = workers(),
        default_value_t = 32
    )]
    pub gateway_workers: usize,
}

/// At least one: with none, nothing would ever be done.
fn workers() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=1024)
}

fn base_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| format!("not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("must begin with http:// or https://, not {}://", url.scheme()));
    }
    if url.password().is_some() {
        return Err("must not hold a password: it is rendered into agents' files".into());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_written_as_people_write_them() {
        for (text, seconds) in [("10m", 600), ("5s", 5), ("1h 30m", 5400), ("90s", 90)] {
            assert_eq!(text.parse::<Span>().unwrap().0, Duration::from_secs(seconds));
        }
        for text in ["", "0s", "5", "-1m", "soon"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_live_an_hour_at_least() {
        assert_eq!(max_age("90d"), Ok(Span(Duration::from_hours(90 * 24))));
        assert_eq!(max_age("1h"), Ok(Span(LEAST_MAX_AGE)));
        for text in ["59m", "0s", "old"] {
            assert!(max_age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base_urls_are_http_and_without_passwords_or_a_trailing_slash() {
        assert_eq!(base_url("https://mc.example/"), Ok("https://mc.example".into()));
        for text in ["mc.example", "ftp://x", "http://a:b@x"] {
            assert!(base_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn leads_are_left_to_the_other_backend_unless_somebody_says_otherwise() {
        assert_eq!(LeadBoards::resolve(None, false), EnsureLeads::Confirmed);
        assert_eq!(LeadBoards::resolve(None, true), EnsureLeads::None);
        for (chosen, ensure) in [
            (LeadBoards::Confirmed, EnsureLeads::Confirmed),
            (LeadBoards::All, EnsureLeads::All),
            (LeadBoards::None, EnsureLeads::None),
        ] {
            for existing in [false, true] {
                assert_eq!(LeadBoards::resolve(Some(chosen), existing), ensure);
            }
        }
    }

    #[test]
    fn hashes_are_those_that_the_other_backend_can_verify() {
        assert_eq!(TokenHash::Auto.resolve(true), HashFormat::Pbkdf2Sha256);
        assert_eq!(TokenHash::Auto.resolve(false), HashFormat::Argon2id);
        assert_eq!(TokenHash::Argon2id.resolve(true), HashFormat::Argon2id);
    }
}
