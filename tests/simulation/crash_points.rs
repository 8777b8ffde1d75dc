//! Each thing that the controller does, crashed around each single effect: every request that a gateway receives and every
//! write in the store, once right before it has an effect and once right after, before the controller hears of it. (Whether
//! it had heard of it makes no difference: a crash forgets what was heard.) The points are counted in an undisturbed run.
//!
//! The end state must be that of the undisturbed run, the writes on the gateway too, and at no moment may an agent hold a
//! token that the database knows nothing of.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
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
use crate::scenarios::{Before, SCENARIOS, Scenario};

/// How long anything may take with three agents, crash included: the lease of the dead expires after 15 s, an old gateway
/// restarts for about 10 s, and a request whose answer is lost is waited for for 30 s.
const BOUND: Duration = Duration::from_secs(90);

/// How often the tokens are looked at, if anything was written: faster than any request takes.
const LOOK: Duration = Duration::from_millis(2);

/// How long what follows from the last write may take: a restart above all.
const AFTERMATH: Duration = Duration::from_secs(20);

/// Around which effect the controller crashes, counted from the beginning of what is watched.
#[derive(Clone, Copy, Debug)]
enum Point {
    BeforeRequest(usize),
    AfterRequest(usize),
    BeforeWrite(usize),
    AfterWrite(usize),
}

/// What a run left behind.
struct Run {
    end: String,
    requests: usize,
    gateway_writes: Vec<String>,
    store_writes: usize,
    problems: Vec<String>,
}

#[test]
fn a_crash_around_any_single_effect_ends_as_the_undisturbed_run_does() {
    let templates = TemplateSet::builtin();
    let (mut points, mut wrong) = (0, Vec::new());
    for scenario in SCENARIOS {
        for dialect in SimDialect::ALL {
            let (count, problems) = check(scenario, dialect, &templates);
            points += count;
            wrong.extend(problems);
        }
    }
    tell(&format!("crash points: {points} in all, {} violations", wrong.len()));
    assert!(wrong.is_empty(), "{} violations:\n{}", wrong.len(), wrong.join("\n"));
}

/// Says something in passing tests as well, whose prints are held back.
fn tell(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
}

/// Crashes a scenario at all its points. Returns how many there were, and what went wrong.
fn check(scenario: &Scenario, dialect: SimDialect, templates: &TemplateSet) -> (usize, Vec<String>) {
    let told = |point: &str, problem: String| format!("{dialect:?}, {}, {point}: {problem}", scenario.name);
    let calm = match simulate(run(scenario, dialect, None, templates)) {
        Ok(calm) => calm,
        Err(problem) => return (0, vec![told("undisturbed", problem)]),
    };
    let requests = (1..=calm.requests).flat_map(|nth| [Point::BeforeRequest(nth), Point::AfterRequest(nth)]);
    let writes = (1..=calm.store_writes).flat_map(|nth| [Point::BeforeWrite(nth), Point::AfterWrite(nth)]);
    let points: Vec<Point> = requests.chain(writes).collect();
    let wrong: Mutex<Vec<String>> = Mutex::new(
        calm.problems
            .iter()
            .map(|problem| told("undisturbed", problem.clone()))
            .collect(),
    );
    let (next, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(&point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let problems = match simulate(run(scenario, dialect, Some(point), templates)) {
                        Ok(crashed) => {
                            let more = crashed.store_writes.saturating_sub(calm.store_writes);
                            most.fetch_max(more, Ordering::Relaxed);
                            compare(scenario, &calm, crashed)
                        }
                        Err(problem) => vec![problem],
                    };
                    let problems = problems.into_iter().map(|problem| told(&format!("{point:?}"), problem));
                    wrong.lock().unwrap().extend(problems);
                }
            });
        }
    });
    tell(&format!(
        "{dialect:?}, {}: a crash before and after each of {} requests ({} of them writes) and {} writes in the store, {} \
         points; at most {} more writes in the store",
        scenario.name,
        calm.requests,
        calm.gateway_writes.len(),
        calm.store_writes,
        points.len(),
        most.into_inner(),
    ));
    (points.len(), wrong.into_inner().unwrap())
}

/// What is wrong with a run that crashed, compared with the undisturbed one.
fn compare(scenario: &Scenario, calm: &Run, crashed: Run) -> Vec<String> {
    let mut problems = crashed.problems;
    if crashed.end != calm.end {
        let (missing, new) = (only_in(&calm.end, &crashed.end), only_in(&crashed.end, &calm.end));
        problems.push(format!(
            "another end state:\n  undisturbed:\n{missing}\n  crashed:\n{new}"
        ));
    }
    // What had landed is found there and not written again; what had not is written once.
    let more = extra(&crashed.gateway_writes, &calm.gateway_writes);
    let fewer = extra(&calm.gateway_writes, &crashed.gateway_writes);
    let repeatable = |write: &String| {
        let method = write.split(' ').next().unwrap_or_default();
        scenario.repeatable.contains(&method)
    };
    let counted = |writes: Vec<String>| {
        writes
            .into_iter()
            .filter(|write| !repeatable(write))
            .collect::<Vec<_>>()
    };
    let (more, fewer) = (counted(more), counted(fewer));
    if more.len() != fewer.len() {
        problems.push(format!(
            "{} writes on the gateway, {} without a crash; more than there: {more:?}; fewer: {fewer:?}",
            crashed.gateway_writes.len(),
            calm.gateway_writes.len(),
        ));
    }
    if crashed.store_writes > calm.store_writes + scenario.more_store_writes {
        problems.push(format!(
            "{} writes in the store, {} without a crash",
            crashed.store_writes, calm.store_writes
        ));
    }
    problems
}

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

/// Plays a scenario; crashes once, if asked to.
async fn run(
    scenario: &Scenario,
    dialect: SimDialect,
    point: Option<Point>,
    templates: &TemplateSet,
) -> Result<Run, String> {
    let mut world = World::new(templates.clone());
    (scenario.prepare)(&mut world, dialect);
    let gateway = world.places[0].gateway.clone();
    let mut replica = None;
    if scenario.act.is_some() {
        replica = Some(world.start(1));
        converge(&world, Vec::new).await?;
        sleep(AFTERMATH).await;
    }
    let begun = (
        gateway.journal().len(),
        world.gateway_write_log().len(),
        world.store.writes(),
    );
    let before = before(&world);
    let told = point.map(|point| match point {
        Point::BeforeRequest(nth) => gateway.freeze_before(nth),
        Point::AfterRequest(nth) => gateway.freeze_after(nth),
        Point::BeforeWrite(nth) => world.store.cut_before_write(nth),
        Point::AfterWrite(nth) => world.store.cut_after_write(nth),
    });
    if let Some(act) = scenario.act {
        act(&world);
    }
    let mut replica = replica.unwrap_or_else(|| world.start(1));
    if let Some(told) = told {
        replica = crash(&mut world, replica, told).await?;
    }
    converge(&world, || (scenario.missing)(&world, &before)).await?;
    sleep(AFTERMATH).await;
    let requests = gateway.journal().len() - begun.0;
    let written = (gateway.writes(), world.store.writes());
    sleep(RESYNC.mul_f64(1.1)).await;
    if (gateway.writes(), world.store.writes()) != written {
        let (gateway_log, store_log) = (world.gateway_write_log(), world.store.write_log());
        return Err(format!(
            "written again after it had converged: {:?} {:?}",
            &gateway_log[written.0..],
            &store_log[written.1..]
        ));
    }
    let run = Run {
        end: end_state(&world),
        requests,
        gateway_writes: world.gateway_write_log().split_off(begun.1),
        store_writes: world.store.writes() - begun.2,
        problems: (scenario.missing)(&world, &before),
    };
    replica.stop().await;
    Ok(run)
}

/// Waits until the promise holds and nothing is missing, and looks at the tokens after each write.
async fn converge(world: &World, missing: impl Fn() -> Vec<String>) -> Result<(), String> {
    let begin = Instant::now();
    let mut seen = None;
    loop {
        // Agents check in without a write of ours.
        let now = (world.gateway_writes(), world.store.writes(), begin.elapsed().as_secs());
        if seen != Some(now) {
            seen = Some(now);
            nobody_is_locked_out(world).await?;
            let mut problems = promise::broken(world).await;
            problems.extend(missing());
            if problems.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > BOUND {
                return Err(format!("not within {BOUND:?}: {}", problems.join("; ")));
            }
        }
        sleep(LOOK).await;
    }
}

/// The agents as they are.
fn before(world: &World) -> Before {
    let tokens = agents(world).filter_map(|(place, row)| {
        let file = place.gateway.dialect().expected().token_file();
        let text = place
            .gateway
            .file(row.gateway_agent_id(place.id).as_str(), file.as_str())?;
        let secret = token::extract(&text).tokens().first()?.expose_secret().to_owned();
        Some((row.id, secret))
    });
    Before {
        tokens: tokens.collect(),
    }
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
