//! From YAML to what it says: every value has the type that its field wants, and all that is wrong is told at once.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use serde_json::Value;
use uuid::Uuid;

use super::model::{Agent, Board, Field, Fleet, Gateway, Instant, Marked, Named, Nullable, Organization, Owner, Text};
use super::problem::{Mark, Problem};
use super::tree::{self, Kind, Node};

/// Reads a fleet file.
///
/// # Errors
/// Everything that is wrong with it by itself, in the order of the lines.
pub fn read(bytes: &[u8]) -> Result<Fleet, Vec<Problem>> {
    if bytes.len() > tree::MOST_BYTES {
        return Err(vec![tree::too_large(bytes.len())]);
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let lines = before.split(|byte| *byte == b'\n');
        let (line, last) = lines.enumerate().last().unwrap_or_default();
        let column = String::from_utf8_lossy(last).chars().count() + 1;
        vec![Problem::new(
            Mark { line: line + 1, column },
            "this is no UTF-8: save the file in that encoding",
        )]
    })?;
    let root = tree::parse(text)?;
    let mut reader = Reader::default();
    let fleet = reader.fleet(root);
    reader.problems.sort();
    if reader.problems.is_empty() {
        Ok(fleet)
    } else {
        Err(reader.problems)
    }
}

#[derive(Default)]
struct Reader {
    problems: Vec<Problem>,
    /// Where each id of a kind is given first.
    ids: HashMap<(&'static str, Uuid), Mark>,
    /// The key of the object that was begun last.
    key: usize,
    /// The names of the file's templates.
    templates: BTreeMap<String, String>,
}

/// The fields of a mapping that nobody has asked for yet.
struct Fields {
    /// What the mapping is, for people.
    what: &'static str,
    at: Mark,
    left: HashMap<String, (Mark, Node)>,
    known: Vec<&'static str>,
}

impl Fields {
    fn take(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        self.left.remove(name).map(|(_, node)| node)
    }
}

/// What keeps objects apart that have the same parent.
struct Sibling {
    at: Mark,
    id: bool,
    name: Option<Marked<String>>,
}

impl Reader {
    fn tell(&mut self, at: Mark, message: impl Into<String>) {
        self.problems.push(Problem::new(at, message));
    }

    fn next(&mut self) -> usize {
        self.key += 1;
        self.key
    }

    fn fields(&mut self, node: Node, what: &'static str) -> Fields {
        let left = match node.kind {
            Kind::Map(entries) => entries
                .into_iter()
                .map(|(key, value)| (key.name, (key.at, value)))
                .collect(),
            kind => {
                self.tell(node.at, format!("{what} is a mapping, not {}", kind.name()));
                HashMap::new()
            }
        };
        Fields {
            what,
            at: node.at,
            left,
            known: Vec::new(),
        }
    }

    /// Tells of the fields that there are not.
    fn end(&mut self, fields: Fields) {
        for (name, (at, _)) in fields.left {
            let message = if name == "<<" {
                "merge keys (`<<`) mean nothing here: repeat the fields, or use an alias for a whole value".to_owned()
            } else {
                let known = fields.known.join(", ");
                format!("{} has no field `{name}`; there are: {known}", fields.what)
            };
            self.tell(at, message);
        }
    }

    fn fleet(&mut self, node: Node) -> Fleet {
        let mut fields = self.fields(node, "a fleet");
        let version = self.number(&mut fields, "version");
        if let Some(version) = version.as_ref().filter(|version| version.value != 1) {
            let message = format!("version {} of this format is not known, only 1", version.value);
            self.tell(version.at, message);
        }
        self.templates = self.texts_by_name(&mut fields, "templates");
        let organizations = self.list(&mut fields, "organizations", Self::organization);
        self.end(fields);
        let siblings = organizations
            .iter()
            .map(|it| sibling(it.at, it.id.as_ref(), it.name.as_ref()));
        self.apart("organization", siblings.collect());
        Fleet {
            version: version.and_then(|version| {
                u64::try_from(version.value)
                    .ok()
                    .map(|value| Marked { at: version.at, value })
            }),
            organizations,
            templates: std::mem::take(&mut self.templates),
        }
    }

    fn organization(&mut self, node: Node) -> Organization {
        let mut fields = self.fields(node, "an organization");
        let key = self.next();
        let (id, name) = self.identity(&mut fields, "organization");
        let owner = fields.take("owner").filter(|node| !matches!(node.kind, Kind::Null));
        let owner = owner.map(|node| self.owner(node));
        let gateways = self.list(&mut fields, "gateways", Self::gateway);
        let boards = self.list(&mut fields, "boards", Self::board);
        let at = fields.at;
        self.end(fields);
        let siblings = gateways
            .iter()
            .map(|it| sibling(it.at, it.id.as_ref(), it.name.as_ref()));
        self.apart("gateway", siblings.collect());
        let siblings = boards.iter().map(|it| sibling(it.at, it.id.as_ref(), it.name.as_ref()));
        self.apart("board", siblings.collect());
        Organization {
            at,
            key,
            id,
            name,
            owner,
            gateways,
            boards,
        }
    }

    fn owner(&mut self, node: Node) -> Owner {
        let mut fields = self.fields(node, "an owner");
        let at = fields.at;
        let before = self.problems.len();
        let user = self.text(&mut fields, "user");
        if user.is_none() && self.problems.len() == before {
            self.tell(
                at,
                "an owner needs a `user`: a unique name, as whoever signs people in calls them",
            );
        }
        let owner = Owner {
            at,
            key: self.next(),
            user: user.unwrap_or_default(),
            email: self.nullable_text(&mut fields, "email"),
            name: self.nullable_text(&mut fields, "name"),
            preferred_name: self.nullable_text(&mut fields, "preferred_name"),
            pronouns: self.nullable_text(&mut fields, "pronouns"),
            timezone: self.nullable_text(&mut fields, "timezone"),
            notes: self.nullable_text(&mut fields, "notes"),
            context: self.nullable_text(&mut fields, "context"),
        };
        self.end(fields);
        owner
    }

    fn gateway(&mut self, node: Node) -> Gateway {
        let mut fields = self.fields(node, "a gateway");
        let (id, name) = self.identity(&mut fields, "gateway");
        let gateway = Gateway {
            at: fields.at,
            key: self.next(),
            id,
            name,
            url: self.text(&mut fields, "url"),
            token: self.nullable_text(&mut fields, "token"),
            workspace_root: self.text(&mut fields, "workspace_root"),
            disable_device_pairing: self.truth(&mut fields, "disable_device_pairing"),
            allow_insecure_tls: self.truth(&mut fields, "allow_insecure_tls"),
            agents: self.agents(&mut fields),
        };
        for agent in &gateway.agents {
            if let Some(lead) = agent.is_board_lead.as_ref().filter(|lead| lead.value) {
                self.tell(
                    lead.at,
                    "an agent of a gateway leads no board: list it among a board's agents",
                );
            }
        }
        self.end(fields);
        gateway
    }

    fn board(&mut self, node: Node) -> Board {
        let mut fields = self.fields(node, "a board");
        let (id, name) = self.identity(&mut fields, "board");
        let board = Board {
            at: fields.at,
            key: self.next(),
            id,
            name,
            slug: self.nullable_text(&mut fields, "slug"),
            gateway: self.nullable_text(&mut fields, "gateway"),
            board_type: self.nullable_text(&mut fields, "board_type"),
            description: self.text(&mut fields, "description"),
            objective: self.nullable_text(&mut fields, "objective"),
            success_metrics: fields.take("success_metrics").map(|node| Marked {
                at: node.at,
                value: Some(node.into_json()).filter(|value| !value.is_null()),
            }),
            target_date: self.instant(&mut fields, "target_date"),
            goal_confirmed: self.nullable_truth(&mut fields, "goal_confirmed"),
            require_approval_for_done: self.nullable_truth(&mut fields, "require_approval_for_done"),
            require_review_before_done: self.nullable_truth(&mut fields, "require_review_before_done"),
            block_status_changes_with_pending_approval: self
                .nullable_truth(&mut fields, "block_status_changes_with_pending_approval"),
            only_lead_can_change_status: self.nullable_truth(&mut fields, "only_lead_can_change_status"),
            comment_required_for_review: self.nullable_truth(&mut fields, "comment_required_for_review"),
            max_agents: self.count(&mut fields, "max_agents"),
            lead_name: self.nullable_text(&mut fields, "lead_name"),
            lead_identity: self.object(&mut fields, "lead_identity"),
            agents: self.agents(&mut fields),
        };
        self.end(fields);
        board
    }

    fn agents(&mut self, fields: &mut Fields) -> Vec<Agent> {
        let agents = self.list(fields, "agents", Self::agent);
        let siblings = agents.iter().map(|it| sibling(it.at, it.id.as_ref(), it.name.as_ref()));
        self.apart("agent", siblings.collect());
        agents
    }

    fn agent(&mut self, node: Node) -> Agent {
        let mut fields = self.fields(node, "an agent");
        let (id, name) = self.identity(&mut fields, "agent");
        let agent = Agent {
            at: fields.at,
            key: self.next(),
            id,
            name,
            is_board_lead: self.truth(&mut fields, "is_board_lead"),
            heartbeat_config: self.object(&mut fields, "heartbeat_config"),
            identity_profile: self.object(&mut fields, "identity_profile"),
            identity_template: self.template(&mut fields, "identity_template"),
            soul_template: self.template(&mut fields, "soul_template"),
        };
        self.end(fields);
        agent
    }

    /// The two fields by which an object is found.
    fn identity(&mut self, fields: &mut Fields, kind: &'static str) -> (Field<Uuid>, Field<String>) {
        let id = fields.take("id").filter(|node| !matches!(node.kind, Kind::Null));
        let (at, had_id) = (fields.at, id.is_some());
        let id = id.and_then(|node| match node.kind {
            Kind::Text(text) => match Uuid::from_str(text.trim()) {
                Ok(id) if !id.is_nil() => Some(Marked { at: node.at, value: id }),
                _ => {
                    let message = format!("{text:?} is no id: an id is a UUID, and not all zeros");
                    self.tell(node.at, message);
                    None
                }
            },
            kind => {
                self.tell(node.at, format!("`id` is a UUID, not {}", kind.name()));
                None
            }
        });
        if let Some(id) = &id
            && let Some(first) = self.ids.insert((kind, id.value), id.at)
        {
            let message = format!("the {kind} with this id is given in line {} already", first.line);
            self.tell(id.at, message);
        }
        let before = self.problems.len();
        let name = self.text(fields, "name");
        if name.is_none() && !had_id && self.problems.len() == before {
            self.tell(at, format!("this {kind} has neither a `name` nor an `id`"));
        }
        (id, name)
    }

    /// Tells of objects that could be taken for each other.
    fn apart(&mut self, kind: &'static str, siblings: Vec<Sibling>) {
        let mut first: HashMap<String, (Mark, bool)> = HashMap::new();
        for sibling in siblings {
            let Some(name) = sibling.name else {
                continue;
            };
            match first.get(&name.value) {
                Some((at, with_id)) if !(*with_id && sibling.id) => {
                    let message = format!(
                        "a second {kind} is called {:?} (the first is in line {}): rename one, or give both their ids",
                        name.value, at.line
                    );
                    self.tell(name.at, message);
                }
                Some(_) => {}
                None => {
                    first.insert(name.value, (sibling.at, sibling.id));
                }
            }
        }
    }

    fn list<T>(&mut self, fields: &mut Fields, name: &'static str, read: fn(&mut Self, Node) -> T) -> Vec<T> {
        match fields.take(name).map(|node| (node.at, node.kind)) {
            None | Some((_, Kind::Null)) => Vec::new(),
            Some((_, Kind::List(items))) => items.into_iter().map(|item| read(self, item)).collect(),
            Some((at, kind)) => {
                self.tell(at, format!("`{name}` is a list (`- …`), not {}", kind.name()));
                Vec::new()
            }
        }
    }

    fn texts_by_name(&mut self, fields: &mut Fields, name: &'static str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        match fields.take(name).map(|node| (node.at, node.kind)) {
            None | Some((_, Kind::Null)) => {}
            Some((_, Kind::Map(entries))) => {
                for (key, node) in entries {
                    if let Some(text) = self.as_text(node, "a template") {
                        texts.insert(key.name, text.value);
                    }
                }
            }
            Some((at, kind)) => self.tell(at, format!("`{name}` are texts by name, not {}", kind.name())),
        }
        texts
    }

    /// A text that a column of the database can hold.
    fn as_text(&mut self, node: Node, what: &str) -> Option<Marked<String>> {
        match node.kind {
            Kind::Text(text) if text.contains('\0') => {
                self.tell(
                    node.at,
                    format!("{what} holds a NUL character, which the database cannot store"),
                );
                None
            }
            Kind::Text(value) => Some(Marked { at: node.at, value }),
            kind @ (Kind::Number(_) | Kind::Bool(_)) => {
                self.tell(
                    node.at,
                    format!("{what} is text, and this is {}: put it in quotes", kind.name()),
                );
                None
            }
            kind => {
                self.tell(node.at, format!("{what} is text, not {}", kind.name()));
                None
            }
        }
    }

    fn text(&mut self, fields: &mut Fields, name: &'static str) -> Field<String> {
        let node = fields.take(name)?;
        self.as_text(node, &format!("`{name}`"))
    }

    /// A field that may be null.
    fn nullable<T>(
        &mut self,
        fields: &mut Fields,
        name: &'static str,
        read: impl FnOnce(&mut Self, Node) -> Option<Marked<T>>,
    ) -> Nullable<T> {
        let node = fields.take(name)?;
        if matches!(node.kind, Kind::Null) {
            return Some(Marked {
                at: node.at,
                value: None,
            });
        }
        read(self, node).map(|it| Marked {
            at: it.at,
            value: Some(it.value),
        })
    }

    fn nullable_text(&mut self, fields: &mut Fields, name: &'static str) -> Nullable<String> {
        self.nullable(fields, name, |this, node| this.as_text(node, &format!("`{name}`")))
    }

    fn as_truth(&mut self, node: &Node, name: &str) -> Option<Marked<bool>> {
        if let Kind::Bool(value) = node.kind {
            return Some(Marked { at: node.at, value });
        }
        self.tell(node.at, format!("`{name}` is true or false, not {}", node.kind.name()));
        None
    }

    fn truth(&mut self, fields: &mut Fields, name: &'static str) -> Field<bool> {
        let node = fields.take(name)?;
        self.as_truth(&node, name)
    }

    fn nullable_truth(&mut self, fields: &mut Fields, name: &'static str) -> Nullable<bool> {
        self.nullable(fields, name, |this, node| this.as_truth(&node, name))
    }

    fn number(&mut self, fields: &mut Fields, name: &'static str) -> Field<i64> {
        let node = fields.take(name)?;
        if let Kind::Number(number) = &node.kind
            && let Some(value) = number.as_i64()
        {
            return Some(Marked { at: node.at, value });
        }
        self.tell(node.at, format!("`{name}` is a whole number, not {}", node.kind.name()));
        None
    }

    fn count(&mut self, fields: &mut Fields, name: &'static str) -> Field<i32> {
        let number = self.number(fields, name)?;
        let Ok(value) = i32::try_from(number.value) else {
            self.tell(number.at, format!("`{name}` is too large or too small"));
            return None;
        };
        Some(Marked { at: number.at, value })
    }

    fn instant(&mut self, fields: &mut Fields, name: &'static str) -> Nullable<Instant> {
        self.nullable(fields, name, |this, node| {
            let text = this.as_text(node, &format!("`{name}`"))?;
            let Some(value) = Instant::parse(&text.value) else {
                let message = format!("`{name}` is a date, or a date and a time in UTC: 2027-01-31T12:00:00");
                this.tell(text.at, message);
                return None;
            };
            Some(Marked { at: text.at, value })
        })
    }

    fn object(&mut self, fields: &mut Fields, name: &'static str) -> Nullable<Value> {
        self.nullable(fields, name, |this, node| {
            let at = node.at;
            if !matches!(node.kind, Kind::Map(_)) {
                this.tell(at, format!("`{name}` is a mapping, not {}", node.kind.name()));
                return None;
            }
            Some(Marked {
                at,
                value: node.into_json(),
            })
        })
    }

    fn template(&mut self, fields: &mut Fields, name: &'static str) -> Nullable<Text> {
        self.nullable(fields, name, |this, node| {
            if !matches!(node.kind, Kind::Map(_)) {
                let text = this.as_text(node, &format!("`{name}`"))?;
                return Some(Marked {
                    at: text.at,
                    value: Text::Inline(text.value),
                });
            }
            let mut fields = this.fields(node, "a reference to a template");
            let named = this.text(&mut fields, "template");
            let at = fields.at;
            if named.is_none() {
                this.tell(at, format!("`{name}` is text, or names one: `{{template: <name>}}`"));
            }
            this.end(fields);
            let named = named?;
            if !this.templates.contains_key(&named.value) {
                let message = format!("there is no template {:?} below `templates` in this file", named.value);
                this.tell(named.at, message);
                return None;
            }
            Some(Marked {
                at,
                value: Text::Named(Named { template: named.value }),
            })
        })
    }
}

fn sibling(at: Mark, id: Option<&Marked<Uuid>>, name: Option<&Marked<String>>) -> Sibling {
    Sibling {
        at,
        id: id.is_some(),
        name: name.cloned(),
    }
}
