//! What would change of an object, if its gateway could be asked.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use super::{DescribeArgs, Object, When, gateway_name};
use crate::cli::run;
use crate::config::{Span, TokenHash};
use crate::gateway::RpcMetrics;
use crate::model::GatewaySnapshot;
use crate::reconcile::{self, GatewayDiff};
use crate::store::{PgStore, Store};

/// What would change, or why that is not known.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Plan {
    /// Whether the gateway was looked at.
    pub(super) looked_at: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
    /// What would change, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) diff: Option<GatewayDiff>,
}

impl Plan {
    pub(super) fn not_looked_at(why: impl Into<String>) -> Self {
        Self {
            looked_at: false,
            why: Some(why.into()),
            diff: None,
        }
    }
}

/// Asks the gateway, if that is wanted and possible. Whatever goes wrong with the gateway is told in the plan.
pub(super) async fn of(
    args: &DescribeArgs,
    store: &PgStore,
    fleet: &[GatewaySnapshot],
    snapshot: &GatewaySnapshot,
    object: &Object<'_>,
) -> anyhow::Result<Plan> {
    if args.plan == When::Never {
        return Ok(Plan::not_looked_at("not asked for (--plan=never)"));
    }
    if args.plan == When::Auto {
        if object.is_ready(snapshot) {
            return Ok(Plan::not_looked_at(
                "everything was as desired when a controller last looked; --plan=always asks the gateway now",
            ));
        }
        let key = args.desired.connections.device_identity()?;
        if !key.exists() {
            return Ok(Plan::not_looked_at(format!(
                "the gateway was not asked: there is no device key at {}; give --device-identity as for `run`, or \
                 --plan=always to make one",
                key.display()
            )));
        }
    }
    let existing = store.is_existing_installation().await?;
    let templates = run::templates(&args.desired)?;
    let mut settings = run::settings(&args.desired, TokenHash::Auto, Duration::MAX, existing);
    args.existence.apply(&mut settings, existing);
    let connector = run::connector(&args.desired, RpcMetrics::unregistered())?;
    let left = reconcile::left_behind(fleet);
    let asking = reconcile::diff_some(
        store,
        &connector,
        &templates,
        &settings,
        snapshot.clone(),
        &left,
        |agent| object.means(agent),
    );
    let Ok(asked) = timeout(args.timeout.0, asking).await else {
        let (id, name) = gateway_name(snapshot);
        return Ok(Plan::not_looked_at(format!(
            "gateway {name} ({id}) did not say all that was asked within {}; give it more time with --timeout",
            Span(args.timeout.0)
        )));
    };
    let mut diff = asked?;
    if let Some(error) = &diff.error {
        let (id, name) = gateway_name(snapshot);
        return Ok(Plan::not_looked_at(format!(
            "gateway {name} ({id}) could not be asked: {error}"
        )));
    }
    if !matches!(object, Object::Gateway) {
        let agents: HashSet<_> = snapshot
            .agents
            .iter()
            .filter(|agent| object.means(agent))
            .map(|agent| agent.gateway_agent_id(snapshot.gateway.id))
            .collect();
        let boards = match object {
            Object::Board(board) => HashSet::from([board.id]),
            Object::Agent(_) | Object::Gateway => HashSet::new(),
        };
        diff.keep_only(&agents, &boards);
    }
    Ok(Plan {
        looked_at: true,
        why: None,
        diff: Some(diff),
    })
}
