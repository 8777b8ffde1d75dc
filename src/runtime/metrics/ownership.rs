//! Metrics of leadership.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};

use super::{ours, registered};

/// Whether this replica is the active one: `leader_election_master_status{name}` as client-go has it, and ours.
#[derive(Clone, Debug)]
pub struct OwnershipMetrics {
    status: IntGauge,
    held: IntGauge,
    lost: IntCounter,
}

impl OwnershipMetrics {
    /// Builds and registers them, all at zero for the elector of this name.
    ///
    /// # Errors
    /// When one of the names is registered already.
    pub fn register(registry: &Registry, elector: &str) -> prometheus::Result<Self> {
        let status = registered(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "leader_election_master_status",
                    "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. \
                     'name' is the string used to identify the lease. Please make sure to group by name.",
                ),
                &["name"],
            )?,
        )?;
        Ok(Self {
            status: status.with_label_values(&[elector]),
            held: registered(
                registry,
                IntGauge::with_opts(ours("lease_held", "Leases that this replica holds"))?,
            )?,
            lost: registered(
                registry,
                IntCounter::with_opts(ours(
                    "lease_lost_total",
                    "Leases that this replica lost without having given them up",
                ))?,
            )?,
        })
    }

    pub(in crate::runtime) fn started(&self) {
        self.status.set(1);
        self.held.set(1);
    }

    pub(in crate::runtime) fn ended(&self) {
        self.status.set(0);
        self.held.set(0);
    }

    pub(in crate::runtime) fn lost(&self) {
        self.lost.inc();
    }
}
