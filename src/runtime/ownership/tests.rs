use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use prometheus::Registry;
use tokio::time::advance;

use super::*;
use crate::store::LeaseInfo;

/// One lease in memory, on tokio's clock, with a database that can be made to fail or to hang.
#[derive(Default)]
struct FakeLeases {
    row: Mutex<Row>,
    mode: Mutex<Mode>,
}

#[derive(Default)]
struct Row {
    holder: Option<String>,
    term: i64,
    expires: Option<Instant>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Mode {
    #[default]
    Up,
    Failing,
    Hanging,
}

impl FakeLeases {
    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    async fn reach(&self) -> Result<(), StoreError> {
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Up => Ok(()),
            Mode::Failing => Err(StoreError::Unreachable("down".to_owned())),
            Mode::Hanging => std::future::pending().await,
        }
    }

    /// Who holds the lease now.
    fn holder(&self) -> Option<String> {
        let row = self.row.lock().unwrap();
        row.holder.clone().filter(|_| row.expires > Some(Instant::now()))
    }

    /// Takes the lease by force, as nobody should.
    fn usurp(&self) {
        let mut row = self.row.lock().unwrap();
        row.holder = Some("usurper".to_owned());
        row.term += 1;
    }
}

impl LeaseStore for FakeLeases {
    async fn acquire(&self, _scope: &str, holder: &str, ttl: Duration) -> Result<Option<i64>, StoreError> {
        self.reach().await?;
        if self.holder().is_some_and(|current| current != holder) {
            return Ok(None);
        }
        let mut row = self.row.lock().unwrap();
        row.holder = Some(holder.to_owned());
        row.term += 1;
        row.expires = Some(Instant::now() + ttl);
        Ok(Some(row.term))
    }

    async fn renew(&self, fence: &Fence, ttl: Duration) -> Result<bool, StoreError> {
        self.reach().await?;
        let mut row = self.row.lock().unwrap();
        let ours = row.holder.as_ref() == Some(&fence.holder) && row.term == fence.term;
        if ours {
            row.expires = Some(Instant::now() + ttl);
        }
        Ok(ours)
    }

    async fn release(&self, fence: &Fence) -> Result<(), StoreError> {
        self.reach().await?;
        let mut row = self.row.lock().unwrap();
        if row.holder.as_ref() == Some(&fence.holder) && row.term == fence.term {
            row.holder = None;
        }
        Ok(())
    }

    async fn current(&self, _scope: &str) -> Result<Option<LeaseInfo>, StoreError> {
        Ok(None)
    }
}

struct Replica {
    standing: watch::Receiver<Standing>,
    /// The tenure that runs, if one does.
    tenure: watch::Receiver<Option<Tenure>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    holder_when_gone: Arc<Mutex<Option<String>>>,
    registry: Registry,
}

/// What the work of a replica does when it is told to stop.
#[derive(Clone, Copy)]
enum Work {
    Obeys,
    Ignores,
}

/// Says that the work is gone, however it went, and who held the lease at that moment.
struct Gone {
    tenure: watch::Sender<Option<Tenure>>,
    leases: Arc<FakeLeases>,
    last_holder: Arc<Mutex<Option<String>>>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        *self.last_holder.lock().unwrap() = self.leases.holder();
        self.tenure.send_replace(None);
    }
}

impl Replica {
    fn start(leases: &Arc<FakeLeases>, holder: &str, work: Work) -> Self {
        let registry = Registry::new();
        let metrics = Arc::new(OwnershipMetrics::register(&registry, "openclaw-controller").unwrap());
        let ownership = Ownership::new(OwnershipConfig::new("all", holder), metrics);
        let standing = ownership.standing();
        let (sender, tenure) = watch::channel(None);
        let stop = CancellationToken::new();
        let holder_when_gone = Arc::<Mutex<Option<String>>>::default();
        let run = {
            let (leases, stop) = (Arc::clone(leases), stop.clone());
            let (seen, seen_holder) = (Arc::clone(&leases), Arc::clone(&holder_when_gone));
            let start = move |tenure: Tenure| {
                let sender = sender.clone();
                sender.send_replace(Some(tenure.clone()));
                let gone = Gone {
                    tenure: sender,
                    leases: Arc::clone(&seen),
                    last_holder: Arc::clone(&seen_holder),
                };
                async move {
                    let _gone = gone;
                    match work {
                        Work::Obeys => tenure.cancel.cancelled().await,
                        Work::Ignores => std::future::pending().await,
                    }
                }
            };
            async move { ownership.run(&*leases, start, stop).await }
        };
        Self {
            standing,
            tenure,
            stop,
            task: tokio::spawn(run),
            holder_when_gone,
            registry,
        }
    }

    async fn active(&mut self) -> Tenure {
        self.tenure.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    async fn idle(&mut self) {
        self.tenure.wait_for(Option::is_none).await.unwrap();
    }

    fn holder_when_gone(&self) -> Option<String> {
        self.holder_when_gone.lock().unwrap().clone()
    }

    async fn stands(&mut self, standing: Standing) {
        self.standing.wait_for(|s| *s == standing).await.unwrap();
    }

    fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let metric = &families.iter().find(|f| f.name() == name).unwrap().get_metric()[0];
        metric.get_gauge().get_value() + metric.get_counter().get_value()
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_within_twenty_seconds_of_the_holders_death() {
    let leases = Arc::new(FakeLeases::default());
    let mut first = Replica::start(&leases, "a", Work::Obeys);
    let term = first.active().await.fence.term;
    let mut second = Replica::start(&leases, "b", Work::Obeys);
    second.stands(Standing::Standby).await;
    assert!((second.metric("leader_election_master_status")).abs() < 1e-9);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(leases.holder().as_deref(), Some("a"), "renewals keep it");

    first.task.abort();
    let died = Instant::now();
    let tenure = second.active().await;
    assert!(died.elapsed() <= Duration::from_secs(20), "took {:?}", died.elapsed());
    assert!(tenure.fence.term > term);
    assert!((second.metric("leader_election_master_status") - 1.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_hands_over_at_once_and_only_after_work_has_stopped() {
    let leases = Arc::new(FakeLeases::default());
    let mut first = Replica::start(&leases, "a", Work::Obeys);
    first.active().await;
    let mut second = Replica::start(&leases, "b", Work::Obeys);
    second.stands(Standing::Standby).await;
    let stopped = Instant::now();
    first.stop.cancel();
    second.active().await;
    assert_eq!(
        first.holder_when_gone().as_deref(),
        Some("a"),
        "released only once its work was gone"
    );
    assert!(
        stopped.elapsed() <= Duration::from_millis(1_100),
        "took {:?}",
        stopped.elapsed()
    );
    (&mut first.task).await.unwrap();
    assert_eq!(*first.standing.borrow(), Standing::Stopped);
    assert!(
        first.metric("openclaw_controller_lease_lost_total").abs() < 1e-9,
        "given up, not lost"
    );
    assert!(first.metric("openclaw_controller_lease_held").abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn work_that_ignores_an_orderly_stop_keeps_the_lease_until_it_is_dropped() {
    let leases = Arc::new(FakeLeases::default());
    let mut first = Replica::start(&leases, "a", Work::Ignores);
    first.active().await;
    let stopped = Instant::now();
    first.stop.cancel();
    first.idle().await;
    assert_eq!(stopped.elapsed(), Duration::from_secs(10));
    assert_eq!(
        first.holder_when_gone().as_deref(),
        Some("a"),
        "not released before the work was gone"
    );
    (&mut first.task).await.unwrap();
    assert_eq!(leases.holder(), None);
}

/// Work must be told and gone before the lease can expire, whatever the database does.
async fn work_stops_before_expiry(mode: Mode, work: Work) {
    for after in [Duration::ZERO, Duration::from_secs(12)] {
        outage_after(after, mode, work).await;
    }
}

async fn outage_after(after: Duration, mode: Mode, work: Work) {
    let leases = Arc::new(FakeLeases::default());
    let mut replica = Replica::start(&leases, "a", work);
    let tenure = replica.active().await;
    tokio::time::sleep(after).await;
    leases.set(mode);
    tenure.cancel.cancelled().await;
    assert_eq!(
        leases.holder().as_deref(),
        Some("a"),
        "told while the lease is still ours"
    );
    replica.idle().await;
    assert_eq!(
        replica.holder_when_gone().as_deref(),
        Some("a"),
        "gone while the lease is still ours"
    );
    assert!((replica.metric("openclaw_controller_lease_lost_total") - 1.0).abs() < 1e-9);
    leases.set(Mode::Up);
    let again = replica.active().await;
    assert!(again.fence.term > tenure.fence.term, "it contends again");
}

#[tokio::test(start_paused = true)]
async fn work_stops_before_the_lease_expires_when_the_database_fails() {
    work_stops_before_expiry(Mode::Failing, Work::Obeys).await;
}

#[tokio::test(start_paused = true)]
async fn work_stops_before_the_lease_expires_when_the_database_hangs() {
    work_stops_before_expiry(Mode::Hanging, Work::Obeys).await;
}

#[tokio::test(start_paused = true)]
async fn work_that_ignores_the_loss_is_dropped_before_the_lease_expires() {
    work_stops_before_expiry(Mode::Failing, Work::Ignores).await;
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_database_does_not_end_a_tenure() {
    let leases = Arc::new(FakeLeases::default());
    let mut replica = Replica::start(&leases, "a", Work::Obeys);
    let tenure = replica.active().await;
    for (mode, outage) in [(Mode::Failing, 5), (Mode::Hanging, 3)] {
        leases.set(mode);
        tokio::time::sleep(Duration::from_secs(outage)).await;
        leases.set(Mode::Up);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(!tenure.cancel.is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_another_took_stops_work_at_the_next_renewal() {
    let leases = Arc::new(FakeLeases::default());
    let mut replica = Replica::start(&leases, "a", Work::Ignores);
    let tenure = replica.active().await;
    leases.usurp();
    let usurped = Instant::now();
    replica.idle().await;
    assert!(tenure.cancel.is_cancelled());
    assert!(
        usurped.elapsed() <= Duration::from_secs(5),
        "took {:?}",
        usurped.elapsed()
    );
    assert_eq!(
        leases.holder().as_deref(),
        Some("usurper"),
        "the other's lease is not released"
    );
}

#[tokio::test(start_paused = true)]
async fn a_database_that_cannot_be_reached_is_told_and_waited_for() {
    let leases = Arc::new(FakeLeases::default());
    leases.set(Mode::Failing);
    let mut replica = Replica::start(&leases, "a", Work::Obeys);
    let standing = replica.standing.wait_for(|s| matches!(s, Standing::Unknown(_))).await;
    let text = format!("{:?}", *standing.unwrap());
    assert!(text.contains("cannot reach the database"), "{text}");
    leases.set(Mode::Up);
    replica.active().await;
}

#[tokio::test(start_paused = true)]
async fn work_that_panics_gives_the_lease_up_and_is_started_again() {
    let leases = Arc::new(FakeLeases::default());
    let metrics = Arc::new(OwnershipMetrics::register(&Registry::new(), "x").unwrap());
    let ownership = Ownership::new(OwnershipConfig::new("all", "a"), metrics);
    let starts = Arc::new(AtomicUsize::new(0));
    let stop = CancellationToken::new();
    let work = {
        let (starts, stop) = (Arc::clone(&starts), stop.clone());
        move |_: Tenure| {
            let start = starts.fetch_add(1, Ordering::SeqCst);
            let stop = stop.clone();
            async move {
                assert!(start >= 2, "a defect");
                stop.cancel();
            }
        }
    };
    ownership.run(&*leases, work, stop).await;
    assert_eq!(starts.load(Ordering::SeqCst), 3);
    assert_eq!(leases.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_process_stops_its_work_when_it_wakes_up() {
    let leases = Arc::new(FakeLeases::default());
    let mut replica = Replica::start(&leases, "a", Work::Obeys);
    let tenure = replica.active().await;
    advance(Duration::from_secs(100)).await;
    tenure.cancel.cancelled().await;
    replica.idle().await;
}
