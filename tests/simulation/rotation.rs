//! Rotations: asked for, by age, as repairs, and crashed after each single effect.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};
use openclaw_controller::model::{AgentId, ConditionStatus, ConditionType, EventKind, FileName};
use openclaw_controller::reconcile::TokenPolicy;
use openclaw_controller::render::TemplateSet;
use openclaw_controller::sim::{SimDialect, SimGateway};
use openclaw_controller::store::{AgentSelector, CheckInStore, RequestStore, Store};
use openclaw_controller::token::{self, HashFormat};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::fleet::{RESYNC, World};
use crate::promise;
use crate::runner::simulate;
use crate::steady::{converge, rest};

/// How long a rotation may take, a crash included: the lease of the dead expires after 15 s, and a request whose answer is
/// lost is waited for for 30 s.
const BOUND: Duration = Duration::from_secs(90);

/// How often the tokens are looked at: faster than any request takes.
const LOOK: Duration = Duration::from_millis(2);

/// Templates as existing installations have them: several files hold the token.
fn legacy() -> (TempDir, TemplateSet) {
    let directory = TempDir::new().unwrap();
    for (name, text) in [
        (
            "TOOLS",
            "# Tools\n- `AUTH_TOKEN={{ auth_token }}`\n- `BASE_URL={{ base_url }}`",
        ),
        (
            "HEARTBEAT",
            "# Heartbeat\ncurl -H \"X-Agent-Token: {{ auth_token }}\" {{ base_url }}",
        ),
        ("AGENTS", "# Agents\nYour token is {{ auth_token }}, {{ agent_name }}."),
    ] {
        std::fs::write(directory.path().join(format!("BOARD_{name}.md.j2")), text).unwrap();
    }
    let set = TemplateSet::load(directory.path()).unwrap();
    (directory, set)
}

/// A world with a lead and a worker of ours, a worker of before, and a main agent, on one gateway.
fn world(dialect: SimDialect, templates: TemplateSet) -> (World, Vec<AgentId>) {
    let mut world = World::new(templates);
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    let agents = vec![
        world.add_agent(id, Some(board), true),
        world.add_agent(id, Some(board), false),
        world.add_existing_worker(0, board),
        world.add_agent(id, None, false),
    ];
    (world, agents)
}

/// An agent's id on the gateway.
fn name(world: &World, agent: AgentId) -> String {
    let row = world.store.agent(agent).unwrap();
    row.gateway_agent_id(world.places[0].id).to_string()
}

/// The token in the agent's file.
fn secret(world: &World, agent: AgentId) -> String {
    let gateway = &world.places[0].gateway;
    let file = gateway.dialect().expected().token_file();
    let text = gateway.file(&name(world, agent), file.as_str()).unwrap();
    let found = token::extract(&text);
    found.tokens()[0].expose_secret().to_owned()
}

fn secrets(world: &World, agents: &[AgentId]) -> Vec<String> {
    agents.iter().map(|agent| secret(world, *agent)).collect()
}

/// The files of an agent that hold this text.
fn files_with(gateway: &SimGateway, agent: &str, text: &str) -> Vec<FileName> {
    FileName::ALL
        .into_iter()
        .filter(|file| {
            gateway
                .file(agent, file.as_str())
                .is_some_and(|held| held.contains(text))
        })
        .collect()
}

async fn request(world: &World) -> DateTime<Utc> {
    world.store.request_rotation(&AgentSelector::All).await.unwrap().at
}

async fn check_in(world: &World, secret: &str) -> Option<AgentId> {
    let digest = token::fingerprint(secret);
    let seen = CheckInStore::check_in(&world.store, &digest).await.unwrap();
    seen.map(|seen| seen.agent)
}

/// How often a rotation was told of, by agent and reason.
async fn told(world: &World) -> BTreeSet<String> {
    let events = world.store.list_events(1000).await.unwrap();
    events
        .into_iter()
        .filter(|recorded| recorded.event.reason == "TokenRotated")
        .map(|recorded| {
            assert_eq!(recorded.event.kind, EventKind::Normal);
            let why = recorded.event.message.split(['(', ')']).nth(1).unwrap().to_owned();
            format!("{why} x{}", recorded.count)
        })
        .collect()
}

#[test]
fn every_agent_that_is_asked_for_gets_a_new_token_and_the_old_one_is_in_no_file() {
    let (_directory, legacy) = legacy();
    for templates in [TemplateSet::builtin(), legacy] {
        for dialect in SimDialect::ALL {
            simulate(async {
                let (mut world, agents) = world(dialect, templates.clone());
                let replica = world.start(1);
                converge(&world, BOUND).await;
                for round in 1..3 {
                    let old = secrets(&world, &agents);
                    let at = request(&world).await;
                    converge(&world, BOUND).await;
                    for (agent, old) in agents.iter().zip(&old) {
                        let new = secret(&world, *agent);
                        assert_ne!(*old, new);
                        let (gateway, name) = (&world.places[0].gateway, name(&world, *agent));
                        assert_eq!(files_with(gateway, &name, old), [], "{name} still holds its old token");
                        let record = world.store.agent_record(*agent).unwrap();
                        assert_eq!(record.rotated_for, Some(at));
                        assert_eq!(check_in(&world, &new).await, Some(*agent));
                        assert_eq!(
                            check_in(&world, old).await,
                            Some(*agent),
                            "it has not read the new one yet"
                        );
                    }
                    assert_eq!(told(&world).await, BTreeSet::from([format!("requested x{round}")]));
                    sleep(Duration::from_secs(20)).await;
                    rest(&world, &replica).await;
                }
                replica.stop().await;
            });
        }
    }
}

#[test]
fn a_token_that_was_replaced_is_never_the_agents_again() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_9_6, TemplateSet::builtin());
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let (gateway, agent) = (world.places[0].gateway.clone(), agents[1]);
        let (file, id) = (gateway.dialect().expected().token_file(), name(&world, agent));
        let candidates = async || world.store.token_state(agent).await.unwrap().candidates.len();
        let mut replaced = Vec::new();
        for _ in 0..5 {
            replaced.push((secret(&world, agent), gateway.file(&id, file.as_str()).unwrap()));
            request(&world).await;
            converge(&world, BOUND).await;
            sleep(Duration::from_mins(11)).await;
            assert_eq!(candidates().await, 1, "what was replaced is forgotten");
        }
        // Another program replaces it in its turn, right after us.
        request(&world).await;
        converge(&world, BOUND).await;
        replaced.push((secret(&world, agent), gateway.file(&id, file.as_str()).unwrap()));
        let theirs = token::mint();
        let hash = token::hash(&theirs, HashFormat::Pbkdf2OneRound).unwrap();
        world.store.edit_agent(agent, |row| row.token_hash = Some(hash));
        let text = replaced[5].1.replace(&replaced[5].0, theirs.expose_secret());
        gateway.edit_file(&id, file.as_str(), &text);
        converge(&world, RESYNC * 2).await;
        sleep(Duration::from_mins(11)).await;
        for (old, text) in &replaced {
            // Three times within an hour would be a fight, and be told.
            sleep(Duration::from_mins(35)).await;
            gateway.edit_file(&id, file.as_str(), text);
            sleep(RESYNC * 4).await;
            converge(&world, BOUND).await;
            let now = secret(&world, agent);
            assert!(replaced.iter().all(|(old, _)| *old != now), "an old one is back");
            assert_eq!(check_in(&world, old).await, None);
            assert_eq!(check_in(&world, &now).await, Some(agent));
        }
        replica.stop().await;
    });
}

#[test]
fn a_token_that_comes_of_age_is_replaced_at_the_next_look() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_9_6, TemplateSet::builtin());
        let max_age = Duration::from_hours(3);
        world.tokens.max_age = Some(max_age);
        let began = Instant::now();
        let replica = world.start(1);
        converge(&world, BOUND).await;
        let first = secrets(&world, &agents);
        sleep_until(began + max_age.saturating_sub(Duration::from_secs(1))).await;
        assert_eq!(secrets(&world, &agents), first, "too early");
        // A resync, its jitter of a tenth, and what the work takes.
        sleep(BOUND + RESYNC.mul_f64(1.1)).await;
        let second = secrets(&world, &agents);
        for (first, second) in first.iter().zip(&second) {
            assert_ne!(first, second);
        }
        converge(&world, BOUND).await;
        assert_eq!(told(&world).await, BTreeSet::from(["age x1".to_owned()]));
        // A new process counts from when the token was made, too.
        replica.stop().await;
        let replica = world.start(2);
        sleep(max_age / 2).await;
        assert_eq!(secrets(&world, &agents), second);
        sleep(max_age / 2 + BOUND + RESYNC.mul_f64(1.1)).await;
        for (second, third) in second.iter().zip(secrets(&world, &agents)) {
            assert_ne!(*second, third);
        }
        replica.stop().await;
    });
}

#[test]
fn without_automatic_repair_a_mismatch_is_told_and_waits_for_a_request() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_9_6, TemplateSet::builtin());
        world.tokens = TokenPolicy {
            repair_auto: false,
            ..TokenPolicy::default()
        };
        let replica = world.start(1);
        converge(&world, BOUND).await;
        replica.stop().await;
        for agent in &agents {
            let hash = token::hash(&token::mint(), HashFormat::Pbkdf2OneRound).unwrap();
            world.store.edit_agent(*agent, |row| row.token_hash = Some(hash));
        }
        let replica = world.start(2);
        sleep(token::STABLE_FOR + RESYNC * 2).await;
        for agent in &agents {
            let conditions = world.store.agent_record(*agent).unwrap().conditions;
            let condition = conditions.get(ConditionType::TokenValid).unwrap();
            assert_eq!(condition.status, ConditionStatus::False);
            assert!(
                condition.message.contains("rotate-token --agent"),
                "{}",
                condition.message
            );
        }
        rest(&world, &replica).await;
        request(&world).await;
        converge(&world, BOUND).await;
        assert_eq!(told(&world).await, BTreeSet::from(["requested x1".to_owned()]));
        replica.stop().await;
    });
}

#[test]
fn where_files_are_withheld_a_rotation_waits_and_says_so() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_9_6, TemplateSet::builtin());
        world.withhold = true;
        let existing = agents[2];
        let old = secret(&world, existing);
        let replica = world.start(1);
        sleep(BOUND).await;
        request(&world).await;
        sleep(BOUND).await;
        let told = || {
            let conditions = world.store.agent_record(existing).unwrap().conditions;
            conditions.get(ConditionType::TokenValid).unwrap().clone()
        };
        assert_eq!(
            (told().status, told().reason.as_str()),
            (ConditionStatus::False, "Withheld")
        );
        assert!(told().message.contains("the rotation waits"), "{}", told().message);
        assert_eq!(secret(&world, existing), old);
        // Ours are not withheld.
        let record = world.store.agent_record(agents[0]).unwrap();
        assert!(record.rotated_for.is_some());
        rest(&world, &replica).await;
        assert_eq!(check_in(&world, &old).await, Some(existing), "its token stays valid");
        replica.stop().await;
        world.withhold = false;
        let replica = world.start(2);
        converge(&world, BOUND).await;
        assert_ne!(secret(&world, existing), old);
        replica.stop().await;
    });
}

#[test]
fn a_repair_is_told_as_one() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_7_1, TemplateSet::builtin());
        let replica = world.start(1);
        converge(&world, BOUND).await;
        replica.stop().await;
        let hash = token::hash(&token::mint(), HashFormat::Pbkdf2OneRound).unwrap();
        world.store.edit_agent(agents[0], |row| row.token_hash = Some(hash));
        let replica = world.start(2);
        converge(&world, token::STABLE_FOR + BOUND).await;
        assert_eq!(told(&world).await, BTreeSet::from(["repair x1".to_owned()]));
        replica.stop().await;
    });
}

#[test]
fn a_rotation_beside_another_writer_loses_nothing_of_either() {
    simulate(async {
        let (mut world, agents) = world(SimDialect::V2026_9_6, TemplateSet::builtin());
        world.second_writer = true;
        let replica = world.start(1);
        converge(&world, BOUND).await;
        // The other program has set a hash and is about to write its token, when a new one is requested.
        let gateway = world.places[0].gateway.clone();
        let file = gateway.dialect().expected().token_file();
        let (agent, theirs) = (agents[1], token::mint());
        let hash = token::hash(&theirs, HashFormat::Pbkdf2OneRound).unwrap();
        world.store.edit_agent(agent, |row| row.token_hash = Some(hash.clone()));
        request(&world).await;
        sleep(Duration::from_secs(30)).await;
        assert_eq!(
            world.store.agent(agent).unwrap().token_hash,
            Some(hash),
            "it is waited for"
        );
        let (id, old) = (name(&world, agent), secret(&world, agent));
        let text = gateway.file(&id, file.as_str()).unwrap();
        gateway.edit_file(&id, file.as_str(), &text.replace(&old, theirs.expose_secret()));
        converge(&world, RESYNC * 2).await;
        assert_eq!(
            files_with(&gateway, &id, theirs.expose_secret()),
            [],
            "the request is newer"
        );
        replica.stop().await;
    });
}

#[test]
fn a_rotation_that_crashes_after_any_single_effect_is_completed_and_locks_nobody_out() {
    let (_directory, legacy) = legacy();
    for (what, templates) in [("built-in", TemplateSet::builtin()), ("legacy", legacy)] {
        for dialect in SimDialect::ALL {
            let calm = simulate(crashed(dialect, None, &templates)).unwrap();
            let points = (1..=calm.requests).map(Point::Request);
            let points: Vec<_> = points.chain((1..=calm.store_writes).map(Point::Write)).collect();
            let mut wrong = Vec::new();
            for &point in &points {
                match simulate(crashed(dialect, Some(point), &templates)) {
                    // Where several files hold the token, some of them may hold one whose plaintext died.
                    Ok(run) if run.gateway_writes > calm.gateway_writes + calm.files - 1 => {
                        wrong.push(format!("{point:?}: {} writes on the gateway", run.gateway_writes));
                    }
                    Ok(_) => {}
                    Err(problem) => wrong.push(format!("{point:?}: {problem}")),
                }
            }
            eprintln!(
                "{dialect:?}, {what} templates: a rotation crashed after each of {} requests and {} writes in the store",
                calm.requests, calm.store_writes
            );
            assert!(wrong.is_empty(), "{dialect:?} {what}:\n{}", wrong.join("\n"));
        }
    }
}

/// After which effect the controller crashes.
#[derive(Clone, Copy, Debug)]
enum Point {
    Request(usize),
    Write(usize),
}

/// Whatever token the agent's file holds, the database knows its hash: as the agent's, or as a candidate.
async fn is_not_locked_out(world: &World, agent: AgentId) -> Result<(), String> {
    let state = world.store.token_state(agent).await.unwrap();
    let candidates = state.candidates.iter().map(|candidate| &candidate.hash);
    let secret = secret(world, agent);
    let mut known = state.current_hash.iter().chain(candidates);
    if known.any(|hash| token::verify(&secret, hash) == Ok(true)) {
        Ok(())
    } else {
        Err("the agent is locked out: its file's token belongs to no hash".to_owned())
    }
}

/// What a rotation took.
struct Taken {
    requests: usize,
    gateway_writes: usize,
    store_writes: usize,
    /// How many files of an agent hold its token.
    files: usize,
}

/// Rotates the token of one agent in a converged fleet; crashes once, if asked to.
async fn crashed(dialect: SimDialect, point: Option<Point>, templates: &TemplateSet) -> Result<Taken, String> {
    let mut world = World::new(templates.clone());
    let id = world.add_gateway(dialect);
    let board = world.add_board(Some(id));
    let agent = world.add_agent(id, Some(board), false);
    let mut replica = world.start(1);
    converge(&world, BOUND).await;
    sleep(Duration::from_secs(20)).await;
    let gateway = world.places[0].gateway.clone();
    let before = (gateway.journal().len(), gateway.writes(), world.store.writes());
    let old = secret(&world, agent);
    let files = files_with(&gateway, &name(&world, agent), &old).len();
    let reached = point.map(|point| match point {
        Point::Request(nth) => gateway.freeze_after(nth),
        Point::Write(nth) => world.store.cut_after_write(nth),
    });
    let at = request(&world).await;
    if let Some(reached) = reached {
        let reached = timeout(BOUND, reached).await;
        reached
            .map_err(|_| "the point was never reached")?
            .map_err(|_| "the point was forgotten")?;
        replica.crash().await;
        world.calm();
        is_not_locked_out(&world, agent).await?;
        replica = world.start(2);
    }
    let begin = Instant::now();
    let mut seen = None;
    loop {
        let now = (gateway.writes(), world.store.writes());
        if seen != Some(now) {
            seen = Some(now);
            is_not_locked_out(&world, agent).await?;
            if check_in(&world, &secret(&world, agent)).await != Some(agent) {
                return Err("the token in its file is not taken at a check-in".to_owned());
            }
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
    let after = (gateway.journal().len(), gateway.writes(), world.store.writes());
    if world.store.agent_record(agent).and_then(|record| record.rotated_for) != Some(at) {
        return Err("the request is not answered".to_owned());
    }
    if !files_with(&gateway, &name(&world, agent), &old).is_empty() {
        return Err("the old token is still in a file".to_owned());
    }
    at_rest(&world).await?;
    replica.stop().await;
    Ok(Taken {
        requests: after.0 - before.0,
        gateway_writes: after.1 - before.1,
        store_writes: after.2 - before.2,
        files,
    })
}

/// Nothing is written any more; what still follows from the last write is let pass.
async fn at_rest(world: &World) -> Result<(), String> {
    sleep(Duration::from_secs(20)).await;
    let before = (world.gateway_writes(), world.store.writes());
    sleep(RESYNC.mul_f64(1.1)).await;
    let after = (world.gateway_writes(), world.store.writes());
    if before == after {
        Ok(())
    } else {
        Err(format!("written again after it had converged: {before:?} {after:?}"))
    }
}
