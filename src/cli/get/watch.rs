//! `get --watch`: what changes, as it does.
//!
//! The database announces what people and other programs change; what a controller writes down of its looks is found by looking.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::Kind;
use super::selection::Selection;
use crate::cli::out;
use crate::cli::table::{Columns, Item, Output, yaml};
use crate::cli::waiting::{INTERRUPTED, interrupted};
use crate::store::{HintSource, PgStore};

/// After something was announced, the least time since the last look: announcements come in crowds.
const AT_LEAST: Duration = Duration::from_millis(300);

/// A look may take this part of the time at most: one over it.
const SHARE: u32 = 5;

/// Prints the list, and then what changes, until a signal comes.
pub(super) async fn command(
    store: &PgStore,
    selection: &Selection,
    output: Output,
    interval: Duration,
) -> anyhow::Result<ExitCode> {
    let interrupted = interrupted()?;
    tokio::select! {
        ended = follow(store, selection, output, interval) => ended.map(|()| ExitCode::SUCCESS),
        () = interrupted => Ok(ExitCode::from(INTERRUPTED)),
    }
}

async fn follow(store: &PgStore, selection: &Selection, output: Output, interval: Duration) -> anyhow::Result<()> {
    let mut hints = store.listen();
    let mut shown = Shown {
        // An event that makes room for newer ones has not gone.
        forgets: selection.kind() == Kind::Events,
        ..Shown::default()
    };
    let mut is_away = false;
    loop {
        let began = Instant::now();
        match selection.items(store).await {
            Ok(items) => {
                if items.is_empty() && shown.looks == 0 {
                    out::note(format_args!("no {} found; waiting for some", selection.kind().plural()));
                }
                let news = shown.news(items);
                print(&mut shown.columns, &news, output)?;
                is_away = false;
            }
            // A database that restarts is waited for like everything else.
            Err(error) if error.is_transient() => {
                if !is_away {
                    out::note(format_args!("waiting for the database: {error}"));
                }
                is_away = true;
            }
            Err(error) => return Err(error.into()),
        }
        let took = began.elapsed();
        tokio::select! {
            // Whether it was a hint or a failure to listen: both are reasons to look.
            _ = hints.next() => sleep_until(began + AT_LEAST.max(took * SHARE)).await,
            () = sleep(interval.max(took * SHARE)) => {}
        }
    }
}

fn print(columns: &mut Columns, news: &[Item], output: Output) -> anyhow::Result<()> {
    if news.is_empty() {
        return Ok(());
    }
    match output {
        Output::Table | Output::Wide => out::line(columns.lines(news, output == Output::Wide))?,
        Output::Json => {
            let lines: Vec<_> = news.iter().map(|item| item.json.to_string() + "\n").collect();
            out::print(&lines.concat())?;
        }
        Output::Yaml => {
            for item in news {
                out::print(&format!("---\n{}", yaml(&item.json)?))?;
            }
        }
    }
    Ok(())
}

/// What was printed last of each object.
#[derive(Default)]
struct Shown {
    columns: Columns,
    looks: usize,
    /// Whether nothing is said of what has gone.
    forgets: bool,
    last: HashMap<String, Item>,
}

impl Shown {
    /// The items that are new, or not what they were, and those that have gone.
    fn news(&mut self, items: Vec<Item>) -> Vec<Item> {
        self.looks += 1;
        let mut gone = std::mem::take(&mut self.last);
        let mut news = Vec::new();
        for item in items {
            if gone.remove(&item.key).is_none_or(|last| last.news != item.news) {
                news.push(item.clone());
            }
            self.last.insert(item.key.clone(), item);
        }
        let mut gone: Vec<_> = gone.into_values().filter(|_| !self.forgets).collect();
        gone.sort_by(|a, b| a.key.cmp(&b.key));
        news.extend(gone.into_iter().map(as_gone));
        news
    }
}

/// An object that does not belong to the list any more.
fn as_gone(mut item: Item) -> Item {
    for cell in &mut item.cells {
        if cell.title == "READY" {
            "Gone".clone_into(&mut cell.text);
        }
    }
    if let Value::Object(json) = &mut item.json {
        json.insert("gone".to_owned(), true.into());
    }
    item
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::table::cell;

    fn item(key: &str, state: &str, seen: u32) -> Item {
        let cells = vec![cell("NAME", key), cell("READY", state)];
        Item::new(key, cells, json!({"state": state, "seen": seen})).but_for(&["seen"])
    }

    #[test]
    fn only_what_is_new_changed_or_gone_is_news() {
        let mut shown = Shown::default();
        let keys = |news: Vec<Item>| news.into_iter().map(|item| item.key).collect::<Vec<_>>();
        assert_eq!(keys(shown.news(vec![item("a", "x", 1), item("b", "x", 1)])), ["a", "b"]);
        assert!(shown.news(vec![item("a", "x", 2), item("b", "x", 1)]).is_empty());
        assert_eq!(
            keys(shown.news(vec![item("a", "x", 2), item("b", "y", 1), item("c", "x", 1)])),
            ["b", "c"]
        );
        let gone = shown.news(vec![item("b", "y", 1), item("c", "x", 1)]);
        assert_eq!((gone.len(), gone[0].cells[1].text.as_str()), (1, "Gone"));
        assert_eq!(gone[0].json["gone"], true);
        assert_eq!(
            keys(shown.news(vec![item("a", "x", 1), item("b", "y", 1), item("c", "x", 1)])),
            ["a"]
        );
    }
}
