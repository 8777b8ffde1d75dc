//! Gateways that are not written to: too old for the operator, or of a kind that is not known.

use std::time::Duration;

use super::gateway_status::GatewayFailure;
use crate::gateway::{Client, ErrorClass, GatewayError, probe};
use crate::model::{Dialect, GatewayVersion, ObservedConfig, RosterShape};

/// How long such a gateway is left alone: it is another one only after somebody has worked on it.
const INCOMPATIBLE_PAUSE: Duration = Duration::from_secs(30);

/// Why a gateway is not written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incompatible {
    /// The reason for conditions.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
    /// How long it is left alone at least.
    pub(super) pause: Option<Duration>,
}

impl Incompatible {
    /// It is another one only after somebody has worked on it.
    fn settled(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            pause: Some(INCOMPATIBLE_PAUSE),
        }
    }
}

/// What a gateway can do; an error if nothing is to be written to it. `minimum`: the oldest version that the operator wants.
pub(super) async fn known_dialect(
    client: &Client,
    minimum: Option<&GatewayVersion>,
) -> Result<Dialect, GatewayFailure> {
    if let Some(minimum) = minimum {
        check_version(client, minimum).await?;
    }
    probe(client).await.map_err(|error| unprobed(client, error))
}

/// What it means that a gateway could not be asked what it can do.
fn unprobed(client: &Client, error: GatewayError) -> GatewayFailure {
    match error.class() {
        ErrorClass::UnsupportedGateway => {
            GatewayFailure::Incompatible(Incompatible::settled(error.reason(), error.to_string()))
        }
        // What ends the connection is no answer.
        ErrorClass::ProtocolError if client.is_closed() => GatewayFailure::Connect(error),
        ErrorClass::ProtocolError => GatewayFailure::Incompatible(unknown_config(&error)),
        _ => GatewayFailure::Probe(error),
    }
}

/// Refuses a gateway that is older than the operator wants, and one that does not say how old it is.
async fn check_version(client: &Client, minimum: &GatewayVersion) -> Result<(), GatewayFailure> {
    let told = &client.hello().server_version;
    let written = if told.parse::<GatewayVersion>().is_ok() {
        None
    } else {
        // Some old ones call themselves "dev", and write into their config who they are.
        let config = client.config_get().await;
        config.map_err(|error| unprobed(client, error))?.written_by
    };
    version_finding(minimum, told, written.as_deref()).map_or(Ok(()), |found| Err(GatewayFailure::Incompatible(found)))
}

/// What is wrong with a gateway's version: `told` in the handshake or, if that is none, `written` into its config.
fn version_finding(minimum: &GatewayVersion, told: &str, written: Option<&str>) -> Option<Incompatible> {
    let parsed = [Some(told), written]
        .into_iter()
        .flatten()
        .find_map(|text| text.parse::<GatewayVersion>().ok());
    match parsed {
        Some(version) if version.is_before(minimum) => Some(Incompatible::settled(
            "VersionTooOld",
            format!(
                "the gateway is OpenClaw {version}, and --min-gateway-version wants {minimum} at least: nothing is written to it; \
                 upgrade it"
            ),
        )),
        Some(_) => None,
        None => Some(Incompatible::settled(
            "VersionUnknown",
            format!(
                "the gateway calls its version {told:?}{}, which cannot be compared with --min-gateway-version={minimum}: nothing \
                 is written to it; run a released version there, or take the setting away",
                written.map_or_else(
                    || ", and its config does not name the version that wrote it".to_owned(),
                    |written| format!(", and the one that wrote its config {written:?}")
                ),
            ),
        )),
    }
}

/// Refuses a config whose roster has not the shape that the gateway says it reads.
pub(super) fn check_shape(config: &ObservedConfig, dialect: &Dialect) -> Result<(), Incompatible> {
    let name = |shape| match shape {
        RosterShape::List => "agents.list",
        RosterShape::Entries => "agents.entries",
    };
    match config.shape {
        _ if config.both_shapes => Err(Incompatible {
            reason: "UnknownRosterShape",
            message: "the gateway's config holds both agents.list and agents.entries, and which of them counts is not known: \
                      nothing is written to it; run `openclaw doctor` on its host"
                .to_owned(),
            pause: None,
        }),
        Some(shape) if shape != dialect.roster => Err(Incompatible {
            reason: "UnknownRosterShape",
            message: format!(
                "the gateway's config holds {}, and the gateway says that it reads {}: nothing is written to it; run `openclaw \
                 doctor` on its host",
                name(shape),
                name(dialect.roster)
            ),
            pause: None,
        }),
        _ => Ok(()),
    }
}

/// A gateway whose answers make no sense is none that is known.
pub(super) fn unknown_config(error: &GatewayError) -> Incompatible {
    Incompatible {
        reason: "UnknownConfig",
        message: format!("{error} Nothing is written to it."),
        pause: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimum() -> GatewayVersion {
        "2026.4.29".parse().unwrap()
    }

    #[test]
    fn the_version_counts_that_is_one() {
        let reason = |told, written| version_finding(&minimum(), told, written).map(|found| found.reason);
        assert_eq!(reason("2026.4.29", None), None);
        assert_eq!(reason("2026.9.6", Some("2026.2.26")), None, "what is told goes first");
        assert_eq!(reason("2026.3.31", None), Some("VersionTooOld"));
        assert_eq!(reason("dev", Some("2026.2.26")), Some("VersionTooOld"));
        assert_eq!(reason("dev", Some("2026.5.1")), None);
        assert_eq!(reason("dev", Some("dev")), Some("VersionUnknown"));
        assert_eq!(reason("unknown", None), Some("VersionUnknown"));
        let found = version_finding(&minimum(), "2026.3.31", None).unwrap();
        assert!(
            found.message.contains("2026.3.31") && found.message.contains("2026.4.29"),
            "{found:?}"
        );
    }
}
