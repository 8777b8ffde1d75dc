//! What the demo says.

use std::fmt::Write;

use crate::lab::Postgres;

use super::DemoTarget;
use super::gateway::DemoGateway;
use super::seed::WREN;

/// What to try next, to paste into another terminal.
pub(super) fn what_next(target: &DemoTarget, gateway: &DemoGateway, postgres: &Postgres) -> String {
    let psql = format!("{} '{}'", postgres.psql_path().display(), target.database_url);
    let program =
        std::env::current_exe().map_or_else(|_| "openclaw-controller".to_owned(), |path| path.display().to_string());
    let DemoTarget {
        database_url,
        base_url,
        device_identity,
        ..
    } = target;
    let identity = device_identity.display();
    let mut text = format!(
        "\
The status page, with what differs, when it is tried again, and what happened:
  {base_url}/

What to try, in another terminal:

  Edit an agent; its files on the gateway follow within a second or two (and show up here):
    {psql}
    UPDATE agents SET name = 'Ada', identity_profile = '{{\"role\": \"Mathematician\"}}' WHERE id = '{WREN}';

  What there is, and what would be done (nothing, now):
    export DATABASE_URL='{database_url}'
    export OPENCLAW_CONTROLLER_BASE_URL='{base_url}' OPENCLAW_CONTROLLER_DEVICE_IDENTITY='{identity}'
    {program} get agents -o wide
    {program} describe agent {WREN}
    {program} diff

  Metrics and readiness:
    curl {base_url}/metrics
    curl {base_url}/readyz
"
    );
    // Writing to a String cannot fail.
    let _ = match gateway {
        DemoGateway::Sim { .. } => write!(
            text,
            "
The gateway is simulated: it holds agents and files, but runs none. A woken agent's part is played by the demo: it checks in
with the token of its own file. `make demo GATEWAY=2026.9.6` starts a real one.
"
        ),
        DemoGateway::Real(gateway) => {
            let workspace = gateway.workspace(&format!("mc-{WREN}"));
            let workspace = workspace.display();
            write!(
                text,
                "
  The files themselves; one that is damaged is put back at the next resync:
    cat {workspace}/IDENTITY.md
    echo vandalised > {workspace}/SOUL.md

This gateway has no model credentials, so its agents cannot run: they are registered, synced and woken, and never check in.
CheckedIn is Unknown until the third wake's deadline has passed, and False from then on.
"
            )
        }
    };
    text.push_str("\nCtrl-C ends and removes everything.\n");
    text
}
