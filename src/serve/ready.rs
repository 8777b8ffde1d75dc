//! The checks behind `/readyz` as a metric, for whoever is woken by Prometheus rather than by a probe.

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::health::Health;

impl Health {
    /// Registers `openclaw_controller_ready{check}`: 1 for a check that passes, 0 for one that fails.
    ///
    /// # Errors
    /// When the registry already holds a metric of this name.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let gauge = IntGaugeVec::new(
            Opts::new(
                "openclaw_controller_ready",
                "The checks of /readyz: 1 if it passes, 0 if it fails",
            ),
            &["check"],
        )?;
        registry.register(Box::new(ReadyCollector {
            health: self.clone(),
            gauge,
        }))
    }
}

/// Looks at the checks when it is collected, so that page and metric cannot differ.
struct ReadyCollector {
    health: Health,
    gauge: IntGaugeVec,
}

impl Collector for ReadyCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (check, passes) in self.health.passing() {
            self.gauge.with_label_values(&[check]).set(i64::from(passes));
        }
        self.gauge.collect()
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn each_check_is_one_while_it_passes_and_zero_before_and_after() {
        let registry = Registry::new();
        let health = Health::expecting(&["database", "listener"]);
        health.register(&registry).unwrap();
        let shows = |check: &str, value: u8| {
            let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
            let line = format!("openclaw_controller_ready{{check=\"{check}\"}} {value}");
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        };
        shows("database", 0);
        health.set("database", Ok(()));
        health.set_noted("listener", "standby");
        shows("database", 1);
        shows("listener", 1);
        health.set("database", Err("gone".to_owned()));
        shows("database", 0);
        shows("listener", 1);
        assert!(health.register(&registry).is_err(), "it is registered once");
    }
}
