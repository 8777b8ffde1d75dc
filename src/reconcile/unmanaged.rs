//! Looking for agents on a gateway that no row explains.

use crate::gateway::{Client, Connector, GatewayError, Target};
use crate::model::{GatewayAgentId, GatewayId, GatewaySnapshot, Leftover, RosterEntry, Unmanaged};
use crate::plan::find_unmanaged;
use crate::store::{Store, StoreError};

/// What a look at one gateway found.
#[derive(Debug)]
pub struct UnmanagedAgents {
    /// The gateway.
    pub gateway: GatewayId,
    /// Its display name.
    pub name: String,
    /// The agents; of a gateway that could not be asked only the leftovers, as they were last seen.
    pub agents: Vec<Unmanaged>,
    /// Why the gateway could not be asked.
    pub error: Option<String>,
}

/// Asks a gateway for its agents and finds those that no row explains. Writes nothing anywhere. `left`: what is
/// [`left_behind`](super::left_behind) in the whole fleet.
pub async fn unmanaged<S: Store, C: Connector>(
    store: &S,
    connector: &C,
    fleet: &[GatewaySnapshot],
    here: &GatewaySnapshot,
    left: &[Leftover],
) -> Result<UnmanagedAgents, StoreError> {
    let gateway = here.gateway.id;
    let mut leftovers = store.traces(gateway).await?.leftovers;
    leftovers.extend(left.iter().filter(|leftover| leftover.gateway == gateway).cloned());
    let (roster, error) = match roster(connector, here).await {
        Ok(roster) => (roster, None),
        Err(error) => {
            let known = leftovers.iter().map(|leftover| only_id(leftover.id.clone()));
            (known.collect(), Some(error.to_string()))
        }
    };
    Ok(UnmanagedAgents {
        gateway,
        name: here.gateway.name.clone(),
        agents: find_unmanaged(fleet, here, &roster, &leftovers),
        error,
    })
}

/// The agents of a gateway: those of its config, and those that it has without naming them there.
async fn roster<C: Connector>(connector: &C, here: &GatewaySnapshot) -> Result<Vec<RosterEntry>, GatewayError> {
    let client = connector.connect(&Target::of(&here.gateway)).await?;
    let roster = served(&client).await;
    client.close();
    roster
}

async fn served(client: &Client) -> Result<Vec<RosterEntry>, GatewayError> {
    let mut roster = client.config_get().await?.roster;
    for id in client.agents_list().await?.ids {
        if !roster.iter().any(|entry| entry.id == id) {
            roster.push(only_id(id));
        }
    }
    Ok(roster)
}

fn only_id(id: GatewayAgentId) -> RosterEntry {
    RosterEntry {
        id,
        name: None,
        workspace: None,
        heartbeat: None,
    }
}
