//! Somebody writes a file while the gateway is still about the controller's own write of it: the answer says that all is well,
//! with the size and the time of somebody else's file.

use openclaw_controller::model::AgentId;
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{Fault, JournalEntry, SimDialect};

use crate::fleet::{RESYNC, World};
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::until;

/// The next resync is at most a tenth late, and takes a while.
fn next_resync() -> std::time::Duration {
    RESYNC.mul_f64(1.1) + BOUND
}

fn set_soul(world: &World, agent: AgentId, text: &str) {
    world
        .store
        .edit_agent(agent, |row| row.soul_template = Some(text.to_owned()));
}

#[test]
fn of_the_same_length_is_put_right_at_the_next_resync() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            set_soul(&world, agent, "A soul of one kind.");
            let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway).to_string();
            let sim = world.places[0].gateway.clone();
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let soul = || sim.file(&id, "SOUL.md").unwrap();
            let old = soul();
            let sets = || {
                let journal = sim.journal();
                journal
                    .iter()
                    .filter(|entry| entry.method == "agents.files.set")
                    .count()
            };
            let before = sets();
            sim.faults()
                .inject("agents.files.set", 1, Fault::Overwritten(old.clone()));
            set_soul(&world, agent, "A soul of two kind.");
            until("it was written", BOUND, || (sets() > before).then_some(())).await;
            assert_eq!(soul(), old, "somebody was faster than the gateway");
            until("it is put right", next_resync(), || (soul() != old).then_some(())).await;
            converge(&world, BOUND).await;
            assert_eq!(soul().len(), old.len(), "or the size alone would tell");
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn of_another_length_is_put_right_at_once() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut world = World::new(TemplateSet::builtin());
            let gateway = world.add_gateway(dialect);
            let board = world.add_board(Some(gateway));
            let agent = world.add_agent(gateway, Some(board), false);
            let id = world.store.agent(agent).unwrap().gateway_agent_id(gateway).to_string();
            let sim = world.places[0].gateway.clone();
            let replica = world.start(1);
            converge(&world, BOUND).await;
            let theirs = "Somebody else's words.\n";
            sim.faults()
                .inject("agents.files.set", 1, Fault::Overwritten(theirs.to_owned()));
            set_soul(&world, agent, "A soul that is unlike any other.");
            // Long before the next resync.
            until("it is put right", BOUND, || {
                let soul = sim.file(&id, "SOUL.md")?;
                soul.contains("A soul that is unlike any other.").then_some(())
            })
            .await;
            let journal = sim.journal();
            let written =
                |entry: &&JournalEntry| entry.method == "agents.files.set" && entry.summary.contains("SOUL.md");
            assert_eq!(journal.iter().filter(written).count(), 3, "at first, and twice since");
            converge(&world, BOUND).await;
            rest(&world, &replica).await;
            replica.stop().await;
        });
    }
}
