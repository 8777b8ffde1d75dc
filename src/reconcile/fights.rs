//! Fields that somebody else undoes. What makes a fight, and what is left alone in one, is `plan`'s to decide; here is what was
//! seen before, what is written down, and what is told.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound, Utc};

use super::memory::AgentMemory;
use super::observe::Workspace;
use super::session::Session;
use super::spec::{AgentSpec, GatewaySpec};
use super::tokens::TokenUse;
use super::world::World;
use crate::model::{
    AgentPlan, ConditionType, Conditions, ConfigChange, Dialect, FileName, GatewayAgentId, GatewayId, GatewayPlan,
    ObjectRef, ObservedConfig, RosterShape, TOKEN_SENTINEL, Undoing,
};
use crate::plan::{Differing, judge};
use crate::store::{Store, StoreError};

pub(super) use crate::model::FIGHTING_WRITER;

/// A field of an object of a gateway.
pub(super) type FieldKey = (GatewayId, ObjectRef, String);

/// What was last seen of a gateway's config: what differs now and did not then was changed by somebody.
pub(super) struct SeenConfig {
    dialect: Arc<Dialect>,
    /// The objects that were compared, by their generations.
    generations: HashMap<ObjectRef, i64>,
    present: HashSet<GatewayAgentId>,
    differing: HashSet<String>,
}

/// What was last seen of an agent's files.
#[derive(Clone)]
pub(super) struct SeenFiles {
    dialect: Arc<Dialect>,
    generation: i64,
    differing: BTreeSet<FileName>,
}

/// What is fought over at present.
#[derive(Debug, Default)]
pub(super) struct Fights {
    /// Fields that are left as somebody else wants them until the next try.
    held: Vec<Undoing>,
    /// Fields that are as desired, and since when: the fight is over once they have stayed so for an hour.
    quiet: Vec<(Undoing, DateTime<Utc>)>,
}

impl Fights {
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.quiet.is_empty()
    }

    /// The fields that are not to be written now.
    pub(super) fn held(&self) -> impl Iterator<Item = &str> {
        self.held.iter().map(|undoing| undoing.field.as_str())
    }

    /// When there is something to do for it.
    pub(super) fn due(&self) -> Option<DateTime<Utc>> {
        let tries = self.held.iter().map(Undoing::next_try);
        tries
            .chain(self.quiet.iter().map(|(_, since)| *since + Undoing::SPAN))
            .min()
    }

    /// What to tell people.
    pub(super) fn message(&self) -> String {
        let names = |fields: Vec<&str>| fields.join(", ");
        let mut sentences = Vec::new();
        if let Some(next) = self.held.iter().map(Undoing::next_try).min() {
            sentences.push(format!(
                "something else changes {} back as soon as it is as desired, {} times within an hour; it is put right once an \
                 hour now, next at {}: find out what writes it, or change what the rows say",
                names(self.held().collect()),
                Undoing::FIGHT,
                next.format("%F %T UTC"),
            ));
        }
        if let Some(over) = self.quiet.iter().map(|(_, since)| *since + Undoing::SPAN).max() {
            let quiet = self.quiet.iter().map(|(undoing, _)| undoing.field.as_str());
            sentences.push(format!(
                "something else has changed {} back {} times within an hour; it is as desired now, and this is over at {} if it \
                 stays so",
                names(quiet.collect()),
                Undoing::FIGHT,
                over.format("%F %T UTC"),
            ));
        }
        sentences.join("; ")
    }
}

/// The fields of an object, of those that somebody else undoes, that are left alone now.
pub(super) fn left_alone(
    undone: &[Undoing],
    object: ObjectRef,
    generation: i64,
    now: DateTime<Utc>,
) -> impl Iterator<Item = &Undoing> {
    undone.iter().filter(move |undoing| {
        (undoing.object, undoing.generation) == (object, generation) && undoing.is_fight() && now < undoing.next_try()
    })
}

/// Where a field that was undone stands.
enum Standing {
    /// Somebody else looks after it.
    Elsewhere,
    /// Its object is not managed any more.
    Gone,
    /// Its object has this generation.
    At(i64),
}

impl<S: Store, C> World<S, C> {
    /// Judges what differs in a gateway's config. `plan` has all of it, nothing held.
    pub(super) async fn config_fights(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
    ) -> Result<Fights, StoreError> {
        let gateway = spec.id();
        let differing = self.differing_config(spec, session, config, plan);
        let agents: HashMap<ObjectRef, i64> = spec
            .managed()
            .map(|agent| (ObjectRef::Agent(agent.row.id), agent.generation))
            .collect();
        let standing = |undoing: &Undoing| match undoing.object {
            ObjectRef::Gateway(_) => Standing::At(spec.generation),
            ObjectRef::Agent(_) if is_file(&undoing.field) => Standing::Elsewhere,
            object @ ObjectRef::Agent(_) => agents.get(&object).map_or(Standing::Gone, |at| Standing::At(*at)),
        };
        self.fights(gateway, &differing, standing).await
    }

    fn differing_config(
        &self,
        spec: &GatewaySpec,
        session: &Session,
        config: &ObservedConfig,
        plan: &GatewayPlan,
    ) -> Vec<Differing> {
        let gateway = spec.id();
        let shape = config.shape.unwrap_or(session.dialect.roster);
        let agents: HashMap<&GatewayAgentId, &Arc<AgentSpec>> =
            spec.managed().map(|agent| (&agent.gateway_agent_id, agent)).collect();
        let mut state = self.state();
        let sent = state.sent.remove(&gateway).unwrap_or_default();
        let last = state.seen_configs.remove(&gateway);
        let mut differing = Vec::new();
        for change in plan.steps.iter().map(|step| &step.change) {
            let (object, generation) = match (change, change.agent()) {
                (ConfigChange::Lighten { .. } | ConfigChange::SetOwnership, _) => continue,
                (_, None) => (ObjectRef::Gateway(gateway), spec.generation),
                (_, Some(id)) => match agents.get(id) {
                    Some(agent) => (ObjectRef::Agent(agent.row.id), agent.generation),
                    None => continue,
                },
            };
            let field = change.field(shape);
            let was_right = match &last {
                Some(last) => {
                    *last.dialect == *session.dialect
                        && last.generations.get(&object) == Some(&generation)
                        && change.agent().is_none_or(|id| last.present.contains(id))
                        && !last.differing.contains(&field)
                }
                // What an earlier tenure has told.
                None => told_synced(&state.gateways, spec, session, object, |agent| {
                    state
                        .agents
                        .get(&agent.row.id)
                        .and_then(|memory| memory.conditions.clone())
                }),
            };
            differing.push(Differing {
                object,
                undone: was_right || sent.contains(&field),
                field,
                generation,
            });
        }
        let compared = agents
            .values()
            .map(|agent| (ObjectRef::Agent(agent.row.id), agent.generation));
        let own = (!agents.is_empty()).then_some((ObjectRef::Gateway(gateway), spec.generation));
        let seen = SeenConfig {
            dialect: Arc::clone(&session.dialect),
            generations: compared.chain(own).collect(),
            present: config.roster.iter().map(|entry| entry.id.clone()).collect(),
            differing: differing.iter().map(|field| field.field.clone()).collect(),
        };
        state.seen_configs.insert(gateway, seen);
        differing
    }

    /// Remembers what a patch has changed, for the next look at the config.
    pub(super) fn config_sent(&self, gateway: GatewayId, plan: &GatewayPlan, shape: RosterShape) {
        let fields = plan.steps.iter().map(|step| step.change.field(shape));
        self.state().sent.insert(gateway, fields.collect());
    }

    /// Judges what differs among an agent's files, and takes out of the plan what is left as it is.
    pub(super) async fn file_fights(
        &self,
        gateway: &GatewaySpec,
        agent: &AgentSpec,
        session: &Session,
        memory: &AgentMemory,
        (workspace, token): (&Workspace, &TokenUse),
        plan: &mut AgentPlan,
    ) -> Result<Fights, StoreError> {
        let object = ObjectRef::Agent(agent.row.id);
        let same_token = token.is(memory.files_token.as_ref());
        // Whoever took away the token that was there has changed the file, whatever has to follow.
        let known = memory.token.as_ref().filter(|_| token.replaces_lost());
        let taken = known.is_some_and(|known| workspace.has_lost(&known.token));
        let differing: Vec<_> = plan
            .files
            .iter()
            .map(|step| {
                let was_right = match &memory.seen {
                    Some(seen) => {
                        *seen.dialect == *session.dialect
                            && seen.generation == agent.generation
                            && !seen.differing.contains(&step.file)
                    }
                    None => {
                        told_version(&self.state().gateways, gateway, session)
                            && is_told(&agent.record.conditions, ConditionType::FilesSynced, agent.generation)
                    }
                };
                // Another token is another text, whoever wants it.
                let rekeyed = step.text.contains(TOKEN_SENTINEL)
                    && !taken
                    && (token.promote.is_some() || (memory.seen.is_some() && !same_token));
                Differing {
                    object,
                    field: step.file.to_string(),
                    generation: agent.generation,
                    undone: (was_right && !rekeyed) || memory.not_kept.contains(&step.file),
                }
            })
            .collect();
        self.files_seen(agent, session, plan.files.iter().map(|step| step.file));
        let standing = |undoing: &Undoing| match undoing.object {
            of if of == object && is_file(&undoing.field) => Standing::At(agent.generation),
            _ => Standing::Elsewhere,
        };
        let fights = self.fights(gateway.id(), &differing, standing).await?;
        plan.files.retain(|step| {
            // A new token has to be where all files say that it is, and one that was lost has to be back: or its agent is locked out.
            let needed = token.has_to_be_written() && step.text.contains(TOKEN_SENTINEL);
            needed || fights.held().all(|field| field != step.file.as_str())
        });
        Ok(fights)
    }

    /// Remembers which of an agent's files are not as desired.
    pub(super) fn files_seen(&self, agent: &AgentSpec, session: &Session, differing: impl Iterator<Item = FileName>) {
        let seen = SeenFiles {
            dialect: Arc::clone(&session.dialect),
            generation: agent.generation,
            differing: differing.collect(),
        };
        let mut state = self.state();
        let memory = state.agents.entry(agent.row.id).or_default();
        memory.seen = Some(seen);
        memory.not_kept.clear();
    }

    /// Judges fields that differ, and writes down what follows before anything else is written. `standing` says of a field that
    /// was undone before whether it is among those that were compared.
    async fn fights(
        &self,
        gateway: GatewayId,
        differing: &[Differing],
        standing: impl Fn(&Undoing) -> Standing,
    ) -> Result<Fights, StoreError> {
        let (mut known, mut over) = (Vec::new(), Vec::new());
        for undoing in self.history(gateway).await?.undone {
            match standing(&undoing) {
                Standing::At(generation) if generation == undoing.generation => known.push(undoing),
                Standing::At(_) | Standing::Gone if undoing.is_fight() => over.push(undoing),
                Standing::Elsewhere | Standing::At(_) | Standing::Gone => {}
            }
        }
        if known.is_empty() && over.is_empty() && differing.iter().all(|field| !field.undone) {
            return Ok(Fights::default());
        }
        // As the database keeps it.
        let now = self.now().trunc_subsecs(6);
        let judgement = judge(differing, &known, now);
        for undoing in &judgement.record {
            let (field, times) = (&undoing.field, undoing.times.len());
            tracing::info!(%gateway, object = ?undoing.object, field, times, "somebody else has changed what was as desired");
        }
        if !judgement.record.is_empty() {
            self.record_undone(gateway, &judgement.record).await?;
        }
        let mut quiet = Vec::new();
        {
            let mut state = self.state();
            for fight in known.into_iter().filter(Undoing::is_fight) {
                let key = (gateway, fight.object, fight.field.clone());
                if differing
                    .iter()
                    .any(|field| field.object == fight.object && field.field == fight.field)
                {
                    state.quiet.remove(&key);
                    continue;
                }
                let since = *state.quiet.entry(key.clone()).or_insert(now);
                if now - since >= Undoing::SPAN {
                    over.push(fight);
                } else {
                    quiet.push((fight, since));
                }
            }
        }
        if !over.is_empty() {
            let over: Vec<_> = over.into_iter().map(|fight| (fight.object, fight.field)).collect();
            self.forget_undone(gateway, &over).await?;
            let mut state = self.state();
            for (object, field) in over {
                tracing::info!(%gateway, ?object, field, "nobody fights over this any more");
                state.quiet.remove(&(gateway, object, field));
            }
        }
        Ok(Fights {
            held: judgement.held,
            quiet,
        })
    }

    /// How long until something that is due at that time.
    pub(super) fn until(&self, due: DateTime<Utc>) -> Duration {
        (due - self.now()).to_std().unwrap_or_default()
    }
}

/// Whether a field is a file; all others are paths.
fn is_file(field: &str) -> bool {
    FileName::of(field).is_some()
}

/// Whether the gateway has told the same version when its status was last written: another one may want other values.
fn told_version(
    written: &HashMap<GatewayId, crate::store::GatewayStatusWrite>,
    spec: &GatewaySpec,
    session: &Session,
) -> bool {
    let version = match written.get(&spec.id()) {
        Some(status) => status.server_version.as_ref(),
        None => spec.snapshot.record.server_version.as_ref(),
    };
    version == Some(&session.client.hello().server_version)
}

fn told_synced(
    written: &HashMap<GatewayId, crate::store::GatewayStatusWrite>,
    spec: &GatewaySpec,
    session: &Session,
    object: ObjectRef,
    of_agent: impl Fn(&AgentSpec) -> Option<Conditions>,
) -> bool {
    if !told_version(written, spec, session) {
        return false;
    }
    match object {
        ObjectRef::Gateway(id) => {
            let record = &spec.snapshot.record.conditions;
            let conditions = written.get(&id).map_or(record, |status| &status.conditions);
            is_told(conditions, ConditionType::ConfigSynced, spec.generation)
        }
        ObjectRef::Agent(id) => spec.managed().find(|agent| agent.row.id == id).is_some_and(|agent| {
            let conditions = of_agent(agent).unwrap_or_else(|| agent.record.conditions.clone());
            is_told(&conditions, ConditionType::Registered, agent.generation)
        }),
    }
}

/// Whether a condition was written for this generation, and holds.
fn is_told(conditions: &Conditions, kind: ConditionType, generation: i64) -> bool {
    conditions.is_true(kind)
        && conditions
            .get(kind)
            .is_some_and(|condition| condition.observed_generation == generation)
}
