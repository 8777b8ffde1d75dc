//! A fleet in which nothing is wrong and something happens all the time.

use std::time::Duration;

use openclaw_controller::model::AgentId;
use tokio::time::sleep;

use crate::fleet::{Fleet, checked_in};
use crate::stage::{HEALTHY, Stage};
use crate::support::{Controller, Options, PATIENCE, eventually};

/// The fleet and its two replicas.
pub(crate) struct Healthy {
    fleet: Fleet,
    replicas: [Controller; 2],
    agents: Vec<AgentId>,
}

impl Healthy {
    /// Starts it and has both replicas watched, when everything is as it should be.
    pub(crate) async fn start(stage: &Stage) -> Self {
        let fleet = Fleet::new().await;
        let options = || Options {
            wake: true,
            ..Options::default()
        };
        let first = Controller::start(&fleet.database.url, options()).await;
        let mut agents = Vec::new();
        for name in ["Wren", "Pascal", "Juno"] {
            agents.push(fleet.ready_agent(name).await);
        }
        let second = Controller::start(&fleet.database.url, options()).await;
        eventually("the second replica stands by", PATIENCE, async || {
            let (status, text) = second.page("/readyz").await;
            (status == 200 && text.contains("standby")).then_some(())
        })
        .await;
        let healthy = Self {
            fleet,
            replicas: [first, second],
            agents,
        };
        healthy.everybody_checks_in().await;
        for (pod, replica) in ["controller-0", "controller-1"].into_iter().zip(&healthy.replicas) {
            stage.watch(HEALTHY, pod, replica.address).await;
        }
        healthy
    }

    /// Edits rows, one after the other, for as long as it is let; agents answer when they are woken.
    pub(crate) async fn live(&self) -> ! {
        let mut turn = 0;
        loop {
            let agent = self.agents[turn % self.agents.len()];
            self.fleet
                .set_agent(agent, &format!("soul_template = 'Number {turn}.'"))
                .await;
            self.everybody_checks_in().await;
            sleep(Duration::from_secs(3)).await;
            turn += 1;
        }
    }

    async fn everybody_checks_in(&self) {
        for (agent, replica) in self.agents.iter().zip(self.replicas.iter().cycle()) {
            let secret = self.fleet.secret(*agent).unwrap();
            checked_in(replica.address, &secret).await;
        }
    }

    pub(crate) async fn stop(self) {
        for replica in self.replicas {
            replica.stop().await;
        }
    }
}
