//! Events as they come, as server-sent events.
//!
//! Each follower has its own place and reads on from there, no faster than it is read from: nothing is buffered for it beyond what
//! one look brings. The database is asked once a second per follower, and there are a few followers at most.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Datelike, TimeDelta};
use futures::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::answer::Problem;
use super::desk::Desk;
use super::item::Event;
use super::query::{self, Asked};
use crate::store::{EventPosition, EventSummary, StoreError, ViewStore};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often is looked for more.
const EVERY: Duration = Duration::from_secs(1);
/// How long to wait after the database did not answer.
const TROUBLE: Duration = Duration::from_secs(5);
/// How soon a follower comes back that was cut off.
const RETRY: Duration = Duration::from_secs(3);
/// How often a silent stream says that it is there: more often than connections may be silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How many events one look brings at most.
const BATCH: u32 = 200;

/// An event has its time before its transaction is complete: for so long one may still turn up before others that were sent.
const LATE: TimeDelta = TimeDelta::seconds(30);
/// How many events are remembered, and looked through for late ones.
const REMEMBERED: u32 = 1_000;

/// Follows the events: from the one that `Last-Event-ID` names on, or from now on.
pub(super) async fn follow<S: ViewStore>(
    State(desk): State<Arc<Desk<S>>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match start(&desk, query.as_deref(), &headers).await {
        Ok((place, permit)) => {
            let stop = desk.stop.clone();
            let follower = Follower::new(desk, place, permit);
            let messages = stream::unfold(follower, |mut follower| async move {
                let message = follower.next().await;
                Some((Ok::<_, Infallible>(message), follower))
            });
            Sse::new(messages.take_until(stop.cancelled_owned()))
                .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive"))
                .into_response()
        }
        Err(problem) => problem.json(),
    }
}

async fn start<S: ViewStore>(
    desk: &Desk<S>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<(EventPosition, OwnedSemaphorePermit), Problem> {
    Asked::read(query, query::NOTHING)?;
    let permit = Arc::clone(&desk.streams).try_acquire_owned().map_err(|_| {
        let text = "As many follow the events as may; try again later, or read /api/v1/events from time to time.";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, text).retry_after(10)
    })?;
    let place = if let Some(id) = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty()) {
        id.to_str().ok().and_then(read).ok_or_else(|| {
            let text = "Last-Event-ID is not one that this stream has sent; leave it out to follow from now on.";
            Problem::new(StatusCode::BAD_REQUEST, text)
        })?
    } else {
        let _turn = desk.turn().await?;
        desk.store.view_last_event().await?
    };
    Ok((place, permit))
}

/// A place as the id of a message.
fn write(place: EventPosition) -> String {
    format!("{}-{}", place.last_seen.timestamp_micros(), place.id)
}

fn read(id: &str) -> Option<EventPosition> {
    let (micros, id) = id.split_once('-')?;
    Some(EventPosition {
        last_seen: DateTime::from_timestamp_micros(micros.parse().ok()?)
            .filter(|at| (1970..=9999).contains(&at.year()))?,
        id: id.parse().ok()?,
    })
}

/// Somebody who follows.
struct Follower<S> {
    desk: Arc<Desk<S>>,
    /// After this everything is still to come.
    place: EventPosition,
    /// Before this nothing is looked for: whoever comes has its own idea of what was before.
    beginning: EventPosition,
    /// What was sent lately, by number, with its count.
    sent: HashMap<i64, (EventPosition, i64)>,
    waiting: VecDeque<EventSummary>,
    greeted: bool,
    /// How long to wait before the next look.
    pause: Duration,
    _permit: OwnedSemaphorePermit,
}

impl<S: ViewStore> Follower<S> {
    fn new(desk: Arc<Desk<S>>, place: EventPosition, permit: OwnedSemaphorePermit) -> Self {
        Self {
            desk,
            place,
            beginning: place,
            sent: HashMap::new(),
            waiting: VecDeque::new(),
            greeted: false,
            pause: Duration::ZERO,
            _permit: permit,
        }
    }

    /// The next message, as soon as there is one.
    async fn next(&mut self) -> Message {
        if !self.greeted {
            self.greeted = true;
            // So that whoever is cut off before the first event goes on from here as well.
            return Message::default()
                .retry(RETRY)
                .id(write(self.place))
                .comment("following");
        }
        loop {
            if let Some(view) = self.waiting.pop_front() {
                let position = view.position();
                self.sent.insert(view.id, (position, view.recorded.count));
                self.place = self.place.max(position);
                let message = Message::default().id(write(self.place));
                match message.json_data(Event::from(view)) {
                    Ok(message) => return message,
                    Err(error) => tracing::warn!(%error, "an event could not be sent"),
                }
                continue;
            }
            tokio::time::sleep(self.pause).await;
            self.pause = match self.look().await {
                Ok(()) => EVERY,
                Err(error) => {
                    tracing::debug!(%error, "the events could not be followed; they are later");
                    TROUBLE
                }
            };
        }
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let store = &self.desk.store;
        let next = store.view_events_after(self.place, BATCH).await?;
        if next.is_empty() {
            let last_seen = self.place.last_seen.checked_sub_signed(LATE);
            let from = EventPosition {
                last_seen: last_seen.unwrap_or_default(),
                id: 0,
            };
            self.sent.retain(|_, (position, _)| *position >= from);
            let from = from.max(self.beginning);
            if from < self.place {
                let late = store.view_events_after(from, REMEMBERED).await?;
                let sent = &self.sent;
                let is_new = |view: &EventSummary| {
                    sent.get(&view.id)
                        .is_none_or(|(_, count)| *count != view.recorded.count)
                };
                self.waiting.extend(late.into_iter().filter(is_new));
            }
        }
        self.waiting.extend(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_where_to_go_on() {
        let place = EventPosition {
            last_seen: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            id: 42,
        };
        assert_eq!(read(&write(place)), Some(place));
        for bad in [
            "",
            "-",
            "1",
            "x-1",
            "1-x",
            "-1-1",
            "99999999999999999999-1",
            "9223372036854775807-1",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
