//! What can be wrong with agents.

use std::time::Duration;

use openclaw_controller::model::{ConditionStatus, ConditionType};
use openclaw_controller::token;
use secrecy::ExposeSecret;

use crate::fleet::{Fleet, check_in, checked_in, refusal};
use crate::stage::Stage;
use crate::support::{Controller, Options};

use ConditionStatus::False;
use ConditionType::{FilesSynced, TokenValid};

/// One agent has had a template that fails for hours, another one a hash that nothing verifies against.
pub(crate) async fn agents_do_not_become_ready(stage: &Stage) {
    const FLEET: &str = "agents";
    let fleet = Fleet::new().await;
    let controller = Controller::start(&fleet.database.url, Options::default()).await;
    let (broken, locked_out) = (fleet.ready_agent("Wren").await, fleet.ready_agent("Pascal").await);
    stage.watch(FLEET, "controller-0", controller.address).await;
    let alerts = ["OpenClawAgentsNotReady", "OpenClawAgentTokensInvalid"];
    for alert in alerts {
        stage.quiet(alert, FLEET).await;
    }
    fleet.set_agent(broken, "soul_template = '{{ nobody }}'").await;
    fleet.set_agent(locked_out, "agent_token_hash = 'md5$6a204bd8'").await;
    let database = &fleet.database;
    database
        .agent_condition(broken, FilesSynced, False, "UnknownVariable")
        .await;
    database
        .agent_condition(locked_out, TokenValid, False, "UnusableTokenHash")
        .await;
    for alert in alerts {
        stage.fires(alert, FLEET).await;
    }
    stage.quiet("OpenClawAgentUnconverged", FLEET).await;
    controller.stop().await;
    // Hours pass.
    database
        .execute(&format!(
            "UPDATE openclaw_controller.agent_records SET conditions = (
                 SELECT jsonb_agg(jsonb_set(c, '{{lastTransitionTime}}',
                     to_jsonb((c->>'lastTransitionTime')::timestamptz - interval '2 hours')))
                 FROM jsonb_array_elements(conditions) c)
             WHERE agent_id = '{broken}'"
        ))
        .await;
    let controller = Controller::start(&database.url, Options::default()).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.fires("OpenClawAgentUnconverged", FLEET).await;
    fleet.set_agent(broken, "soul_template = NULL").await;
    fleet.rotate(locked_out).await;
    stage.resolves("OpenClawAgentUnconverged", FLEET).await;
    for alert in alerts {
        stage.resolves(alert, FLEET).await;
    }
    controller.stop().await;
}

/// Something else insists on another text of a file.
pub(crate) async fn a_file_is_fought_over(stage: &Stage) {
    const FLEET: &str = "fights";
    const ALERT: &str = "OpenClawFightingWriter";
    const THEIRS: &str = "Somebody else's words.\n";
    let fleet = Fleet::new().await;
    let options = Options {
        resync: Duration::from_secs(3),
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    let agent = fleet.ready_agent("Wren").await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet(ALERT, FLEET).await;
    let (sim, id) = (&fleet.place.sim, format!("mc-{agent}"));
    stage
        .fires_while(ALERT, FLEET, async || {
            if sim.file(&id, "SOUL.md").is_some_and(|text| text != THEIRS) {
                sim.edit_file(&id, "SOUL.md", THEIRS);
            }
        })
        .await;
    // A new word of the row ends it, if nobody minds that one.
    fleet.set_agent(agent, "soul_template = 'Curious.'").await;
    stage.resolves(ALERT, FLEET).await;
    fleet.database.agent_ready(agent).await;
    controller.stop().await;
}

/// An agent is woken, and says nothing; somebody else says much.
pub(crate) async fn agents_do_not_check_in(stage: &Stage) {
    const FLEET: &str = "checkins";
    let fleet = Fleet::new().await;
    let options = Options {
        wake: true,
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    for alert in ["OpenClawCheckInsMissed", "OpenClawCheckInsRejected"] {
        stage.quiet(alert, FLEET).await;
    }
    let agent = fleet.ready_agent("Wren").await;
    let strangers = async {
        stage
            .fires_while("OpenClawCheckInsRejected", FLEET, async || {
                for _ in 0..12 {
                    let status = check_in(controller.address, token::mint().expose_secret()).await;
                    // Or 503, where the database is too busy.
                    assert!(matches!(status, Some(401 | 429 | 503)), "{status:?}");
                }
            })
            .await;
        stage.resolves("OpenClawCheckInsRejected", FLEET).await;
    };
    let silence = async {
        stage.fires("OpenClawCheckInsMissed", FLEET).await;
        let secret = fleet.secret(agent).unwrap();
        checked_in(controller.address, &secret).await;
        stage.resolves("OpenClawCheckInsMissed", FLEET).await;
    };
    tokio::join!(strangers, silence);
    controller.stop().await;
}

/// A gateway takes no messages.
pub(crate) async fn wakes_are_not_sent(stage: &Stage) {
    const FLEET: &str = "wakes";
    let fleet = Fleet::new().await;
    let options = Options {
        wake: true,
        ..Options::default()
    };
    let controller = Controller::start(&fleet.database.url, options).await;
    stage.watch(FLEET, "controller-0", controller.address).await;
    stage.quiet("OpenClawWakesFail", FLEET).await;
    fleet.place.sim.faults().always("chat.send", refusal("chat is off"));
    // Who was not woken is woken again in half a minute: others come.
    let mut agents = 0;
    stage
        .fires_while("OpenClawWakesFail", FLEET, async || {
            if agents < 12 {
                fleet.agent(&format!("Agent {agents}")).await;
                agents += 1;
            }
        })
        .await;
    fleet.place.sim.faults().clear();
    stage.resolves("OpenClawWakesFail", FLEET).await;
    controller.stop().await;
}
