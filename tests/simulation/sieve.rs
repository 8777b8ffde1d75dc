//! A first provisioning, crashed right after each single effect: every request that a gateway carried out, every write that
//! landed in the store. The end state must be that of the undisturbed run, the writes on the gateway too, and at no moment
//! may an agent hold a token that the database knows nothing of.

use std::fmt::Write as _;
use std::time::Duration;

use openclaw_controller::model::{AgentRow, FileName};
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::SimDialect;
use openclaw_controller::store::Store;
use openclaw_controller::token;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use crate::fleet::{FOREIGN, Place, RESYNC, Replica, World};
use crate::promise;
use crate::runner::simulate;

/// How long a provisioning of three agents may take, crash included: the lease of the dead expires after 15 s, an old
/// gateway restarts for about 10 s, and a request whose answer is lost is waited for for 30 s.
const BOUND: Duration = Duration::from_secs(90);

/// How often the tokens are looked at, if anything was written: faster than any request takes.
const LOOK: Duration = Duration::from_millis(2);

/// After which effect the controller crashes.
#[derive(Clone, Copy, Debug)]
enum Point {
    Request(usize),
    Write(usize),
}

/// What a run left behind.
struct Run {
    end: String,
    requests: usize,
    gateway_writes: Vec<String>,
    store_writes: usize,
}

#[test]
fn a_crash_after_any_single_effect_on_2026_4_29_ends_as_the_undisturbed_run_does() {
    check(SimDialect::V2026_4_29);
}

#[test]
fn a_crash_after_any_single_effect_on_2026_7_1_ends_as_the_undisturbed_run_does() {
    check(SimDialect::V2026_7_1);
}

#[test]
fn a_crash_after_any_single_effect_on_2026_9_6_ends_as_the_undisturbed_run_does() {
    check(SimDialect::V2026_9_6);
}

fn check(dialect: SimDialect) {
    let templates = TemplateSet::builtin();
    let calm = simulate(run(dialect, None, &templates)).unwrap();
    let requests = (1..=calm.requests).map(Point::Request);
    let points: Vec<Point> = requests.chain((1..=calm.store_writes).map(Point::Write)).collect();
    let mut wrong = Vec::new();
    let mut most = 0;
    for &point in &points {
        match simulate(run(dialect, Some(point), &templates)) {
            Ok(crashed) => {
                most = most.max(crashed.store_writes.saturating_sub(calm.store_writes));
                wrong.extend(compare(&calm, &crashed).map(|problem| format!("{point:?}: {problem}")));
            }
            Err(problem) => wrong.push(format!("{point:?}: {problem}")),
        }
    }
    eprintln!(
        "{dialect:?}: a crash after each of {} requests ({} writes) and {} writes in the store, {} points; at most {most} \
         more writes in the store",
        calm.requests,
        calm.gateway_writes.len(),
        calm.store_writes,
        points.len(),
    );
    assert!(
        wrong.is_empty(),
        "{dialect:?}: {} points went wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What is wrong with a run that crashed, compared with the undisturbed one.
fn compare(calm: &Run, crashed: &Run) -> Option<String> {
    if crashed.end != calm.end {
        let (missing, new) = (only_in(&calm.end, &crashed.end), only_in(&crashed.end, &calm.end));
        return Some(format!(
            "another end state:\n  undisturbed:\n{missing}\n  crashed:\n{new}"
        ));
    }
    // What had landed is found there and not written again; what had not is written once.
    if crashed.gateway_writes.len() != calm.gateway_writes.len() {
        let extra = extra(&crashed.gateway_writes, &calm.gateway_writes);
        return Some(format!(
            "{} writes on the gateway, {} without a crash; more than there: {extra:?}",
            crashed.gateway_writes.len(),
            calm.gateway_writes.len(),
        ));
    }
    (crashed.store_writes > calm.store_writes + MORE_STORE_WRITES).then(|| {
        format!(
            "{} writes in the store, {} without a crash",
            crashed.store_writes, calm.store_writes
        )
    })
}

/// How many more writes in the store a crash may cost: a token whose plaintext died with the process is replaced, so there
/// may be another candidate for each of the three agents.
const MORE_STORE_WRITES: usize = 3;

/// The lines that one text has and the other has not.
fn only_in(text: &str, other: &str) -> String {
    let others: Vec<&str> = other.lines().collect();
    let lines: Vec<&str> = text.lines().filter(|line| !others.contains(line)).collect();
    lines.join("\n")
}

/// The writes that are in one list more often than in the other.
fn extra(these: &[String], those: &[String]) -> Vec<String> {
    let mut rest = those.to_vec();
    let mut extra = Vec::new();
    for write in these {
        match rest.iter().position(|other| other == write) {
            Some(at) => drop(rest.swap_remove(at)),
            None => extra.push(write.clone()),
        }
    }
    extra
}

/// Provisions a lead, a worker and a main agent; crashes once, if asked to.
async fn run(dialect: SimDialect, point: Option<Point>, templates: &TemplateSet) -> Result<Run, String> {
    let mut world = World::new(templates.clone());
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    world.add_agent(id, Some(board), true);
    world.add_agent(id, Some(board), false);
    world.add_agent(id, None, false);
    let gateway = world.places[0].gateway.clone();
    let told = point.map(|point| match point {
        Point::Request(nth) => gateway.freeze_after(nth),
        Point::Write(nth) => world.store.cut_after_write(nth),
    });
    let mut replica = world.start(1);
    if let Some(told) = told {
        replica = crash(&mut world, replica, told).await?;
    }
    let begin = Instant::now();
    let mut seen = None;
    loop {
        let now = (gateway.writes(), world.store.writes());
        if seen != Some(now) {
            seen = Some(now);
            nobody_is_locked_out(&world).await?;
            if promise::broken(&world).await.is_empty() {
                break;
            }
        }
        if begin.elapsed() > BOUND {
            let problems = promise::broken(&world).await;
            return Err(format!("not within {BOUND:?}: {}", problems.join("; ")));
        }
        sleep(LOOK).await;
    }
    // What still follows from the last write, a restart above all; requests are counted up to here.
    sleep(Duration::from_secs(20)).await;
    let requests = gateway.journal().len();
    let before = (gateway.writes(), world.store.writes());
    sleep(RESYNC.mul_f64(1.1)).await;
    if (gateway.writes(), world.store.writes()) != before {
        let (gateway_log, store_log) = (world.gateway_write_log(), world.store.write_log());
        return Err(format!(
            "written again after it had converged: {:?} {:?}",
            &gateway_log[before.0..],
            &store_log[before.1..]
        ));
    }
    let run = Run {
        end: end_state(&world),
        requests,
        gateway_writes: world.gateway_write_log(),
        store_writes: world.store.writes(),
    };
    replica.stop().await;
    Ok(run)
}

async fn crash(world: &mut World, replica: Replica, told: oneshot::Receiver<()>) -> Result<Replica, String> {
    let told = timeout(BOUND, told).await;
    told.map_err(|_| "the point was never reached")?
        .map_err(|_| "the point was forgotten")?;
    replica.crash().await;
    world.calm();
    nobody_is_locked_out(world).await?;
    Ok(world.start(2))
}

/// Whatever token an agent's file holds, the database knows its hash: as the agent's, or as a candidate.
async fn nobody_is_locked_out(world: &World) -> Result<(), String> {
    for (place, row) in agents(world) {
        let id = row.gateway_agent_id(place.id);
        let file = place.gateway.dialect().expected().token_file();
        let Some(text) = place.gateway.file(id.as_str(), file.as_str()) else {
            continue;
        };
        let state = world.store.token_state(row.id).await.unwrap();
        let known: Vec<&String> = state
            .current_hash
            .iter()
            .chain(state.candidates.iter().map(|candidate| &candidate.hash))
            .collect();
        let extracted = token::extract(&text);
        for secret in extracted.tokens() {
            if !known
                .iter()
                .any(|hash| token::verify(secret.expose_secret(), hash) == Ok(true))
            {
                return Err(format!("{id} is locked out: {} hashes, none of its token", known.len()));
            }
        }
    }
    Ok(())
}

fn agents(world: &World) -> impl Iterator<Item = (&Place, AgentRow)> {
    let place = &world.places[0];
    let ids = world.store.agent_ids().into_iter();
    ids.filter_map(move |id| Some((place, world.store.agent(id)?)))
}

/// All that must be the same whatever happened on the way: without times, tokens and what follows from them.
fn end_state(world: &World) -> String {
    let mut text = String::new();
    let mut config = world.places[0].gateway.config();
    if let Some(root) = config.as_object_mut() {
        root.remove("meta");
    }
    // An order of the roster in a list is nobody's wish.
    if let Some(Value::Array(list)) = config.pointer_mut("/agents/list") {
        list.sort_by_key(|item| item["id"].to_string());
    }
    let _ = writeln!(text, "config {config}");
    for (place, row) in agents(world) {
        let id = row.gateway_agent_id(place.id);
        for file in FileName::ALL {
            let held = place.gateway.file(id.as_str(), file.as_str());
            let held = held.map(|held| {
                let extracted = token::extract(&held);
                let secret = extracted.tokens().first().map(ExposeSecret::expose_secret);
                token::redact(&held, secret)
            });
            let _ = writeln!(text, "{id} {file} {held:?}");
        }
        let record = world.store.agent_record(row.id).unwrap_or_default();
        let _ = writeln!(
            text,
            "{id} generation {} at {:?}, ours {}, provisioned {}, session {:?}, error {:?}, status {}",
            record.generation,
            record.placement,
            record.registering_since.is_some(),
            record.first_provisioned_at.is_some(),
            row.session_key,
            row.last_provision_error,
            row.status,
        );
        for c in record.conditions.iter() {
            let _ = writeln!(text, "{id} {} {} {} {}", c.kind, c.status, c.reason, c.message);
        }
    }
    let record = world.store.gateway_record(world.places[0].id).unwrap_or_default();
    for c in record.conditions.iter() {
        let _ = writeln!(text, "gateway {} {} {} {}", c.kind, c.status, c.reason, c.message);
    }
    let scout = world.places[0].gateway.file(FOREIGN, "AGENTS.md");
    let _ = writeln!(text, "foreign {scout:?}");
    text
}
