//! The dry run: what `run` would do now, found by the same code and stopped before anything is written.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::compatible::{check_shape, known_dialect};
use super::failure::AgentFailure;
use super::foresee::foresee;
use super::gateway_status::GatewayFailure;
use super::memory::AgentMemory;
use super::observe::{Reading, TokenFile, Workspace};
use super::rotation::Due;
use super::session::Session;
use super::spec::{self, AgentSpec, Excluded, GatewaySpec};
use super::world::Settings;
use super::{agent, fights, goal, leftovers, removal, restarts};
use crate::gateway::{Connector, Target};
use crate::model::{
    AgentId, AgentPlan, AgentRow, BoardId, ConfigStep, FileName, GatewayAgentId, GatewayId, GatewayPlan,
    GatewaySnapshot, Leftover, NewLead, ObjectRef, ObservedConfig, Undoing,
};
use crate::plan::{AgentGoal, FilePolicy, ObservedFile, ObservedFiles, Refused, plan_agent, plan_gateway, plan_leads};
use crate::render::TemplateSet;
use crate::store::{Store, StoreError};

/// What would change on one gateway.
#[derive(Debug, Serialize)]
pub struct GatewayDiff {
    /// The gateway.
    pub gateway: GatewayId,
    /// Its display name.
    pub name: String,
    /// The leads whose rows would be made.
    pub leads: Vec<NewLead>,
    /// Why rows of others could not be.
    pub lead_problems: Vec<String>,
    /// The agents that would be made, the config steps, as one patch, with those for the leads above, and the agents that would be
    /// removed.
    pub config: GatewayPlan,
    /// The agents for which anything would be written or said.
    pub agents: Vec<AgentDiff>,
    /// Why the gateway could not be looked at.
    pub error: Option<String>,
}

/// What would change for one agent.
#[derive(Debug, Serialize)]
pub struct AgentDiff {
    /// The agent's row.
    pub agent: AgentId,
    /// Its display name.
    pub name: String,
    /// Its id on the gateway.
    pub gateway_agent_id: String,
    /// The files that would be written.
    pub files: Vec<FileDiff>,
    /// What would happen to its token, if anything.
    pub token: Option<String>,
    /// Why it is not managed, or what would not be written and why.
    pub notes: Vec<String>,
    /// Why its workspace could not be looked at.
    pub error: Option<String>,
}

/// What would change in one file. Tokens are redacted in both texts.
#[derive(Debug, Serialize)]
pub struct FileDiff {
    /// The file.
    pub file: FileName,
    /// Why it would be written.
    pub why: String,
    /// What it holds; `None` if it does not exist or could not be read.
    pub before: Option<String>,
    /// What it would hold.
    pub after: String,
}

impl GatewayDiff {
    /// Whether anything would be written.
    pub fn differs(&self) -> bool {
        !self.leads.is_empty()
            || !self.config.is_empty()
            || !self.config.held.is_empty()
            || !self.config.held_creations.is_empty()
            || !self.config.held_removals.is_empty()
            || self.agents.iter().any(AgentDiff::differs)
    }

    /// Whether anything could not be looked at.
    pub fn failed(&self) -> bool {
        self.error.is_some() || self.agents.iter().any(|agent| agent.error.is_some())
    }
}

impl GatewayDiff {
    /// Leaves out what is not about these agents, and leads of other boards than these.
    pub fn keep_only(&mut self, agents: &HashSet<GatewayAgentId>, boards: &HashSet<BoardId>) {
        let about = |step: &ConfigStep| step.change.agent().is_some_and(|id| agents.contains(id));
        self.leads.retain(|lead| boards.contains(&lead.board));
        self.lead_problems.clear();
        self.config.creations.retain(|step| agents.contains(&step.id));
        self.config.steps.retain(about);
        self.config.held.retain(about);
        self.config.removals.retain(|step| agents.contains(&step.id));
        self.config.held_removals.retain(|step| agents.contains(&step.id));
        self.config.warnings.clear();
        // It would carry out the steps of all.
        self.config.patch = None;
    }
}

impl AgentDiff {
    fn differs(&self) -> bool {
        !self.files.is_empty() || self.token.is_some()
    }
}

/// The agents that a controller would find left on gateways as soon as it looked at these rows.
pub fn left_behind(fleet: &[GatewaySnapshot]) -> Vec<Leftover> {
    let specs = fleet.iter().map(|snapshot| spec::derive(snapshot.clone(), "", 0));
    let now = chrono::Utc::now();
    specs.flat_map(|spec| leftovers::about_to_be_left(&spec, now)).collect()
}

/// Finds what would change on a gateway now. `left`: what is [`left_behind`] in the whole fleet.
pub async fn diff<S: Store, C: Connector>(
    store: &S,
    connector: &C,
    templates: &TemplateSet,
    settings: &Settings,
    snapshot: GatewaySnapshot,
    left: &[Leftover],
) -> Result<GatewayDiff, StoreError> {
    diff_some(store, connector, templates, settings, snapshot, left, |_| true).await
}

/// The same, with a look at the workspaces of those agents only that are `meant`.
pub async fn diff_some<S: Store, C: Connector>(
    store: &S,
    connector: &C,
    templates: &TemplateSet,
    settings: &Settings,
    mut snapshot: GatewaySnapshot,
    left: &[Leftover],
    meant: impl Fn(&AgentRow) -> bool + Send,
) -> Result<GatewayDiff, StoreError> {
    let boards = snapshot.boards.values();
    let leads = plan_leads(
        settings.ensure_leads,
        snapshot.gateway.id,
        boards,
        &snapshot.agents,
        &snapshot.lead_settings,
    );
    // As if their rows were there; their ids are not known yet, so their files cannot be shown.
    let now = chrono::Utc::now().naive_utc();
    let foreseen = leads.create.iter().map(|lead| lead.row(AgentId(lead.board.0), now));
    let to_come: HashSet<AgentId> = foreseen.clone().map(|row| row.id).collect();
    snapshot.agents.extend(foreseen);
    let spec = spec::derive(snapshot, templates.digest(), 0);
    let mut diff = GatewayDiff {
        gateway: spec.id(),
        name: spec.snapshot.gateway.name.clone(),
        leads: leads.create,
        lead_problems: leads.refused,
        config: GatewayPlan::default(),
        agents: Vec::new(),
        error: None,
    };
    for agent in &spec.agents {
        if let Some(excluded) = agent.excluded
            && excluded != Excluded::Deleting
            && meant(&agent.row)
            && !to_come.contains(&agent.row.id)
        {
            diff.agents.push(AgentDiff::of(agent, [excluded.message().to_owned()]));
        }
    }
    let (session, config) = match look(connector, settings, &spec).await {
        Ok(seen) => seen,
        Err(failure) => {
            diff.error = Some(failure.into_error().to_string());
            return Ok(diff);
        }
    };
    let mut goal = goal::gateway(&spec, &session.dialect, &std::collections::HashMap::new());
    let mut traces = store.traces(spec.id()).await?;
    let left = left.iter().filter(|leftover| leftover.gateway == spec.id());
    traces.leftovers.extend(left.cloned());
    goal.gateway.removals = removal::removals(&spec, &[], &traces, settings.prune, |_| Refused::No);
    goal.gateway.removed = traces.removed.into_keys().collect();
    let (history, now) = (store.history(spec.id()).await?, chrono::Utc::now());
    let dialect = (*session.dialect)
        .clone()
        .restarted_by(&restarts::learnt(&history, now));
    let own = (ObjectRef::Gateway(spec.id()), spec.generation);
    let agents = spec
        .managed()
        .map(|agent| (ObjectRef::Agent(agent.row.id), agent.generation));
    for (object, generation) in agents.chain([own]) {
        let fields = fights::left_alone(&history.undone, object, generation, now);
        goal.gateway
            .hold
            .fields
            .extend(fields.map(|undoing| undoing.field.clone()));
    }
    diff.config = plan_gateway(&goal.gateway, &config, &dialect);
    if diff.config.restarts() && restarts::spent(&history, settings.max_restarts_per_hour, now).is_some() {
        goal.gateway.hold.restarts = true;
        diff.config = plan_gateway(&goal.gateway, &config, &dialect);
    }
    let skipped = |agent: &AgentSpec| to_come.contains(&agent.row.id) || !meant(&agent.row);
    for agent in spec.managed().filter(|agent| !skipped(agent)) {
        let registered = config
            .entry(&agent.gateway_agent_id)
            .is_some_and(|entry| entry.workspace.as_deref() == Some(&agent.workspace));
        let looked = diff_agent(store, templates, settings, &spec, agent, &session, registered).await;
        let looked = looked.map(|mut looked| {
            let fought = fights::left_alone(&history.undone, ObjectRef::Agent(agent.row.id), agent.generation, now);
            looked.leave_alone(fought);
            looked
        });
        match looked {
            Ok(agent) if agent.differs() || !agent.notes.is_empty() => diff.agents.push(agent),
            Ok(_) => {}
            Err(AgentFailure::Store(error)) => return Err(error),
            Err(failure) => {
                let mut failed = AgentDiff::of(agent, []);
                failed.error = Some(failure.to_string());
                diff.agents.push(failed);
            }
        }
    }
    session.client.close();
    Ok(diff)
}

/// Connects and reads the config, and refuses what `run` would refuse.
async fn look<C: Connector>(
    connector: &C,
    settings: &Settings,
    spec: &GatewaySpec,
) -> Result<(Session, ObservedConfig), GatewayFailure> {
    let target = Target::of(&spec.snapshot.gateway);
    let client = connector.connect(&target).await.map_err(GatewayFailure::Connect)?;
    let dialect = known_dialect(&client, settings.min_gateway_version.as_ref()).await?;
    let config = client.config_get().await.map_err(GatewayFailure::Config)?;
    check_shape(&config, &dialect).map_err(GatewayFailure::Incompatible)?;
    Ok((Session::new(client, dialect, target), config))
}

async fn diff_agent<S: Store>(
    store: &S,
    templates: &TemplateSet,
    settings: &Settings,
    spec: &GatewaySpec,
    agent: &AgentSpec,
    session: &Session,
    registered: bool,
) -> Result<AgentDiff, AgentFailure> {
    let rendered = goal::files(spec, agent, &session.dialect, templates, settings);
    let names = || rendered.files.keys().copied();
    let memory = AgentMemory::default();
    let state = store.token_state(agent.row.id).await?;
    let policy = settings.tokens;
    let due = Due::of(agent.row.requests.rotate, &state, policy, chrono::Utc::now());
    let (observed, workspace, decided): (ObservedFiles, _, _) = if registered {
        let workspace = Workspace::read(session, agent, names(), &memory, Reading::All).await?;
        let decided = foresee(&state, &memory, &workspace, &due, policy, chrono::Utc::now()).await?;
        (
            workspace.observed(names(), decided.token.as_ref()),
            Some(workspace),
            decided,
        )
    } else {
        // The gateway does not know the agent, so nothing of its workspace can be read.
        let none = names().map(|file| (file, ObservedFile::Missing)).collect();
        let workspace = Workspace::unknown(TokenFile::Missing);
        (
            none,
            None,
            foresee(&state, &memory, &workspace, &due, policy, chrono::Utc::now()).await?,
        )
    };
    let policy = FilePolicy {
        is_main: agent.role.is_main(),
        first_provisioning: agent.record.first_provisioned_at.is_none() && !registered,
        has_token: decided.available,
        ..FilePolicy::default()
    };
    let goal = AgentGoal {
        files: &rendered.files,
        policy,
    };
    let AgentPlan { files, warnings } = plan_agent(&goal, &observed, &session.dialect);
    let mut diff = AgentDiff::of(agent, warnings);
    if settings.withhold_existing_files && agent::existed_before_us(spec, agent) && !files.is_empty() {
        diff.notes
            .push("these files are withheld until --templates-dir and --base-url are given".into());
    }
    diff.notes.extend(
        rendered
            .errors
            .iter()
            .map(|error| format!("{}: {}", error.file, error.message)),
    );
    diff.notes.extend(goal::heartbeat_error(agent, &session.dialect));
    diff.token = decided.change;
    let before: BTreeMap<_, _> = files
        .iter()
        .filter_map(|step| Some((step.file, workspace.as_ref()?.text(step.file, decided.token.as_ref())?)))
        .collect();
    diff.files = files
        .into_iter()
        .map(|step| FileDiff {
            before: before.get(&step.file).cloned(),
            file: step.file,
            why: step.why,
            after: step.text,
        })
        .collect();
    Ok(diff)
}

impl AgentDiff {
    /// Files that somebody else fights over are not written.
    fn leave_alone<'a>(&mut self, fought: impl Iterator<Item = &'a Undoing>) {
        for undoing in fought {
            let before = self.files.len();
            self.files.retain(|file| file.file.as_str() != undoing.field);
            if self.files.len() < before {
                self.notes.push(format!(
                    "{} differs, and is left alone until {}: something else insists on another text",
                    undoing.field,
                    undoing.next_try().format("%F %T UTC"),
                ));
            }
        }
    }

    fn of(agent: &AgentSpec, notes: impl IntoIterator<Item = String>) -> Self {
        Self {
            agent: agent.row.id,
            name: agent.row.name.clone(),
            gateway_agent_id: agent.gateway_agent_id.to_string(),
            files: Vec::new(),
            token: None,
            notes: notes.into_iter().collect(),
            error: None,
        }
    }
}
