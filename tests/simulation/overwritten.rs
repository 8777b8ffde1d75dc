//! Somebody writes a file while the gateway is still about the controller's own write of it: the answer says that all is well,
//! with the size and the time of somebody else's file.

use openclaw_controller::sim::{Fault, SimDialect};

use crate::fights::{Fleet, THEIRS, fleet};
use crate::fleet::RESYNC;
use crate::runner::simulate;
use crate::steady::{BOUND, converge, rest};
use crate::wakes::until;

impl Fleet {
    fn set_soul(&self, text: &str) {
        let store = &self.world.store;
        store.edit_agent(self.agent, |row| row.soul_template = Some(text.to_owned()));
    }

    /// The next write of a file is overwritten with this text.
    fn overwrite(&self, theirs: &str) {
        let fault = Fault::Overwritten(theirs.to_owned());
        self.sim().faults().inject("agents.files.set", 1, fault);
    }

    fn writes_of_soul(&self) -> usize {
        let journal = self.sim().journal();
        let of_soul = journal
            .iter()
            .filter(|entry| entry.method == "agents.files.set" && entry.summary.contains("SOUL.md"));
        of_soul.count()
    }
}

#[test]
fn of_the_same_length_is_put_right_at_the_next_resync() {
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            fleet.set_soul("A soul of one kind.");
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            let old = fleet.soul();
            fleet.overwrite(&old);
            fleet.set_soul("A soul of two kind.");
            until("it was written", BOUND, || (fleet.writes_of_soul() == 2).then_some(())).await;
            assert_eq!(fleet.soul(), old, "somebody was faster than the gateway");
            // At most a tenth late, and it takes a while.
            let resync = RESYNC.mul_f64(1.1) + BOUND;
            until("it is put right", resync, || (fleet.soul() != old).then_some(())).await;
            converge(&fleet.world, BOUND).await;
            assert_eq!(fleet.soul().len(), old.len(), "or the size alone would tell");
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}

#[test]
fn of_another_length_is_put_right_at_once() {
    const OURS: &str = "A soul that is unlike any other.";
    for dialect in SimDialect::ALL {
        simulate(async {
            let mut fleet = fleet(dialect);
            let replica = fleet.world.start(1);
            converge(&fleet.world, BOUND).await;
            fleet.overwrite(THEIRS);
            fleet.set_soul(OURS);
            // Long before the next resync.
            until("it is put right", BOUND, || fleet.soul().contains(OURS).then_some(())).await;
            assert_eq!(fleet.writes_of_soul(), 3, "at first, and twice since");
            converge(&fleet.world, BOUND).await;
            rest(&fleet.world, &replica).await;
            replica.stop().await;
        });
    }
}
