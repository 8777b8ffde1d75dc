//! YAML as a tree in which everything knows its place.
//!
//! Nobody trusts the file's size: one that is small on disk can be huge once its aliases are followed. So what the tree may
//! hold is counted while it grows, with everything that an alias stands for.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use super::problem::{Mark, Problem};

/// The largest file that is read, in bytes: ten thousand agents with a page of text each fit in.
pub const MOST_BYTES: usize = 16 << 20;

/// How many values a file may hold, those behind aliases included.
const MOST_NODES: usize = 1_000_000;

/// How much text a file may hold, with that behind aliases, in bytes.
const MOST_TEXT: usize = 4 * MOST_BYTES;

/// A value, and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Mark,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Mark,
    pub(super) name: String,
}

impl Kind {
    /// What people call it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a truth value",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Node {
    /// The same as JSON, without the places.
    pub(super) fn into_json(self) -> Value {
        match self.kind {
            Kind::Null => Value::Null,
            Kind::Bool(value) => Value::Bool(value),
            Kind::Number(value) => Value::Number(value),
            Kind::Text(value) => Value::String(value),
            Kind::List(items) => Value::Array(items.into_iter().map(Self::into_json).collect()),
            Kind::Map(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key.name, value.into_json()))
                    .collect::<Map<_, _>>(),
            ),
        }
    }
}

/// Reads one document.
///
/// # Errors
/// All repeated keys that there are; or the first thing that keeps the rest from being understood.
pub(super) fn parse(text: &str) -> Result<Node, Vec<Problem>> {
    if text.len() > MOST_BYTES {
        return Err(vec![too_large(text.len())]);
    }
    let mut builder = Builder::default();
    // An anchor's id is given with its node; its name is needed for nothing.
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let mut problems = std::mem::take(&mut builder.problems);
            problems.push(Problem::new(
                place(error.marker()),
                format!("this is no YAML: {}", error.info()),
            ));
            problems
        })?;
        if let Err(problem) = builder.take(event, place(&span.start)) {
            builder.problems.push(problem);
            return Err(builder.problems);
        }
    }
    match builder.root {
        _ if !builder.problems.is_empty() => Err(builder.problems),
        Some(root) => Ok(root),
        None => Err(vec![Problem::new(Mark { line: 1, column: 1 }, "the file is empty")]),
    }
}

/// The problem of a file with too many bytes.
pub(super) fn too_large(bytes: usize) -> Problem {
    Problem::new(
        Mark { line: 1, column: 1 },
        format!(
            "the file has {} MiB or more, and at most {} MiB are read: apply one organisation at a time",
            bytes >> 20,
            MOST_BYTES >> 20
        ),
    )
}

fn place(marker: &Marker) -> Mark {
    Mark {
        line: marker.line(),
        column: marker.col() + 1,
    }
}

/// What a node costs.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    text: usize,
}

/// A list or mapping that is still being read.
struct Open {
    at: Mark,
    anchor: usize,
    /// What had been spent before it.
    before: Cost,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        /// The key whose value comes next.
        key: Option<Key>,
        names: HashSet<String>,
    },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, (Node, Cost)>,
    spent: Cost,
    problems: Vec<Problem>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Mark) -> Result<(), Problem> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => Err(Problem::new(
                at,
                "a second document begins here: give each document a file of its own",
            )),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(at, tag.is_some())?;
                self.spend(
                    at,
                    Cost {
                        nodes: 1,
                        text: text.len(),
                    },
                )?;
                if let Some(Open {
                    content: Content::Map { key, names, .. },
                    ..
                }) = self.open.last_mut()
                    && key.is_none()
                {
                    let name = text.into_owned();
                    if !names.insert(name.clone()) {
                        self.problems
                            .push(Problem::new(at, format!("`{name}` is given twice in one mapping")));
                    }
                    *key = Some(Key { at, name });
                    return Ok(());
                }
                let cost = Cost {
                    nodes: 1,
                    text: text.len(),
                };
                let kind = scalar(&text, style).map_err(|message| Problem::new(at, message))?;
                self.add(Node { at, kind }, anchor, cost)
            }
            Event::Alias(anchor) => {
                let Some((node, cost)) = self.anchors.get(&anchor) else {
                    return Err(Problem::new(
                        at,
                        "this alias stands for a key, or for something that it is part of",
                    ));
                };
                // Before it is copied.
                let cost = *cost;
                let node = node.clone_if(self.spent, cost);
                self.spend(at, cost)?;
                node.map_or(Ok(()), |node| self.add(node, 0, cost))
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_tag(at, tag.is_some())?;
                self.begin(at, anchor, Content::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_tag(at, tag.is_some())?;
                let content = Content::Map {
                    entries: Vec::new(),
                    key: None,
                    names: HashSet::new(),
                };
                self.begin(at, anchor, content)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let kind = match open.content {
                    Content::List(items) => Kind::List(items),
                    Content::Map { entries, .. } => Kind::Map(entries),
                };
                let cost = Cost {
                    nodes: self.spent.nodes - open.before.nodes,
                    text: self.spent.text - open.before.text,
                };
                self.add(Node { at: open.at, kind }, open.anchor, cost)
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Mark, anchor: usize, content: Content) -> Result<(), Problem> {
        let before = self.spent;
        self.spend(at, Cost { nodes: 1, text: 0 })?;
        self.open.push(Open {
            at,
            anchor,
            before,
            content,
        });
        Ok(())
    }

    fn spend(&mut self, at: Mark, cost: Cost) -> Result<(), Problem> {
        self.spent.nodes = self.spent.nodes.saturating_add(cost.nodes);
        self.spent.text = self.spent.text.saturating_add(cost.text);
        if self.spent.within() {
            Ok(())
        } else {
            Err(Problem::new(
                at,
                format!(
                    "the file holds more than {MOST_NODES} values or {} MiB of text from here on, counting what its aliases \
                     stand for: apply one organisation at a time, and use fewer aliases",
                    MOST_TEXT >> 20
                ),
            ))
        }
    }

    fn add(&mut self, node: Node, anchor: usize, cost: Cost) -> Result<(), Problem> {
        if anchor != 0 {
            // It is kept twice from here on.
            self.spend(node.at, cost)?;
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, .. }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => return Err(Problem::new(node.at, "a key has to be text")),
            },
        }
        Ok(())
    }
}

impl Cost {
    fn within(self) -> bool {
        self.nodes <= MOST_NODES && self.text <= MOST_TEXT
    }
}

impl Node {
    /// A copy, unless that is more than may be spent.
    fn clone_if(&self, spent: Cost, cost: Cost) -> Option<Self> {
        let sum = Cost {
            nodes: spent.nodes.saturating_add(cost.nodes),
            text: spent.text.saturating_add(cost.text),
        };
        sum.within().then(|| self.clone())
    }
}

fn refuse_tag(at: Mark, tagged: bool) -> Result<(), Problem> {
    if tagged {
        Err(Problem::new(at, "tags (`!…`) mean nothing here: leave it out"))
    } else {
        Ok(())
    }
}

/// What a scalar stands for in YAML 1.2's core schema.
fn scalar(text: &str, style: ScalarStyle) -> Result<Kind, String> {
    if style != ScalarStyle::Plain {
        return Ok(Kind::Text(text.to_owned()));
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => match number(text) {
            Some(Ok(number)) => Kind::Number(number),
            Some(Err(TooLarge)) => {
                return Err(format!(
                    "{text} is a number that cannot be stored; quote it if it is text"
                ));
            }
            None => Kind::Text(text.to_owned()),
        },
    })
}

/// A number that JSON cannot hold.
struct TooLarge;

/// A number, if it looks like one, as JSON can hold it.
fn number(text: &str) -> Option<Result<Number, TooLarge>> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix)
            && !digits.is_empty()
            && digits.chars().all(|digit| digit.is_digit(radix))
        {
            return Some(
                u64::from_str_radix(digits, radix)
                    .map(Number::from)
                    .map_err(|_| TooLarge),
            );
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Some(Err(TooLarge));
    }
    let (mantissa, exponent) = unsigned
        .split_once(['e', 'E'])
        .map_or((unsigned, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, fraction) = mantissa
        .split_once('.')
        .map_or((mantissa, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_exponent = |text: &str| {
        let text = text.strip_prefix(['+', '-']).unwrap_or(text);
        !text.is_empty() && digits(text)
    };
    let some_digit = !whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty());
    if !some_digit || !digits(whole) || !fraction.is_none_or(digits) || !exponent.is_none_or(is_exponent) {
        return None;
    }
    if fraction.is_none() && exponent.is_none() {
        if let Ok(number) = text.parse::<i64>() {
            return Some(Ok(number.into()));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Some(Ok(number.into()));
        }
    }
    // Exactly what the digits say: what was written from a number is that number again.
    Some(text.parse::<f64>().ok().and_then(Number::from_f64).ok_or(TooLarge))
}
