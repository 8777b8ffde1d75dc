//! What every store must do.

use std::time::Duration;

use chrono::{DateTime, Utc};
use openclaw_controller::model::{
    AgentId, AgentRecord, BoardId, ConditionStatus, ConditionType, Conditions, Event, EventKind, GatewayAgentId,
    GatewayId, LeftoverReason, ObjectRef,
};
use openclaw_controller::store::{
    AgentStatusWrite, Candidate, Fence, GatewayStatusWrite, Hint, LeaseStore, Store, StoreError,
};

use super::memory::Memory;
use super::postgres::Postgres;
use super::world::{ORGANIZATION, TTL, World, agent, at, board, fence, gateway, id, next, owner};

mod history;
mod leads;
mod leases;
mod records;
mod removals;
mod requests;
mod rotations;
mod rows;
mod syncs;
mod tokens;
mod views;
mod wakes;

use self::history::*;
use self::leads::*;
use self::leases::*;
use self::records::*;
use self::removals::*;
use self::requests::*;
use self::rotations::*;
use self::rows::*;
use self::syncs::*;
use self::tokens::*;
use self::views::*;
use self::wakes::*;

/// What the daemon does is tried with its rights alone as well; `people` do the rest, with other roles.
macro_rules! every_store {
    (daemon { $($name:ident,)* } people { $($of_people:ident,)* }) => {
        mod in_memory {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Memory::new().await).await; })*
            $(#[tokio::test] async fn $of_people() { super::$of_people(&Memory::new().await).await; })*
        }
        mod in_postgres {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Postgres::new().await).await; })*
            $(#[tokio::test] async fn $of_people() { super::$of_people(&Postgres::new().await).await; })*
        }
        mod in_postgres_with_few_rights {
            use super::*;
            $(#[tokio::test] async fn $name() { super::$name(&Postgres::with_few_rights().await).await; })*
        }
    };
}

every_store!(
    daemon {
        a_snapshot_holds_what_the_rows_say,
        an_agent_belongs_to_the_gateway_of_its_board,
        boards_pause_and_resume,
        generations_count_changes_and_nothing_else,
        a_placement_is_remembered_from_the_first_word_on,
        a_forgotten_placement_starts_anew,
        records_outlive_rows_until_they_are_forgotten,
        a_gateway_status_is_written_once,
        an_agent_status_is_projected_where_it_differs,
        a_promotion_needs_the_hash_that_was_read,
        candidates_wait_until_they_are_dropped,
        a_promotion_takes_the_candidates_away_that_it_overtakes,
        a_mismatch_is_noted_once_per_hash,
        a_promotion_answers_its_request_and_retires_the_token_before_it,
        a_token_that_was_not_valid_is_not_retired,
        a_tokens_age_counts_from_when_it_was_first_verified,
        a_check_in_brings_the_agent_online,
        a_check_in_of_an_agent_that_is_being_deleted_leaves_its_status,
        new_tokens_are_requested_for_agents_that_have_rows,
        wakes_are_requested_beside_new_tokens,
        everybody_is_known_by_name_and_place,
        events_are_found_by_what_they_are_about,
        events_are_counted_rather_than_repeated,
        nobody_writes_without_the_lease,
        a_lease_changes_hands_with_a_growing_term,
        a_hint_comes_for_a_changed_spec_only,
        a_wake_is_recorded_once_for_what_was_read,
        an_agent_that_is_to_go_is_not_woken,
        the_end_of_a_wake_is_shown_in_the_row_if_the_wake_is_ours,
        a_baseline_is_recorded_without_a_word_in_the_row,
        a_forgotten_placement_keeps_the_wakes_counter_only,
        a_hint_comes_for_a_check_in_that_is_awaited_only,
        a_sync_is_asked_for_found_and_answered,
        a_session_is_noted_to_be_reset_once_per_request,
        a_syncs_new_tokens_are_asked_for_once_and_give_way_to_newer_requests,
        a_user_who_is_named_is_rendered_for_from_then_on,
        a_request_is_withdrawn_unless_it_is_answered,
        a_sync_is_removed_a_day_after_it_was_asked_for,
        nobody_carries_out_a_sync_without_the_lease,
        what_we_put_somewhere_is_left_there_and_what_we_found_is_not,
        a_row_that_is_gone_leaves_what_we_made_for_it,
        a_removal_is_begun_only_while_it_is_wanted,
        a_deleted_agent_has_no_place_no_token_and_no_deadline,
        an_agent_that_is_elsewhere_too_is_not_gone_from_there,
        a_lead_is_made_for_a_board_that_has_none,
        no_lead_is_made_for_a_board_that_has_one_or_is_elsewhere,
        what_is_chosen_for_a_boards_lead_is_loaded_with_its_gateway,
        restarts_are_remembered_for_an_hour,
        an_undone_field_has_one_record_which_a_newer_one_replaces,
        history_goes_with_the_rows_that_it_is_about,
        what_is_looked_for_is_found_and_what_is_not_ready_comes_first,
        events_are_found_and_followed,
    }
    people {
        a_board_is_paused_and_resumed_by_a_word_and_only_where_that_changes_something,
    }
);

const NEVER: &str = "nothing was to be written";

fn ago(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_770_000_000 - seconds, 0).unwrap()
}

fn conditions(reason: &str) -> Conditions {
    let mut conditions = Conditions::default();
    let message = format!("because of {reason}");
    conditions.set(ConditionType::Ready, ConditionStatus::False, reason, message, 3, ago(5));
    conditions
}

fn name(text: &str) -> GatewayAgentId {
    GatewayAgentId::observed(text)
}

fn candidate(hash: &str, created: i64) -> Candidate {
    Candidate {
        hash: hash.to_owned(),
        token_sha256: format!("sha-of-{hash}"),
        replaces: Some("replaced".to_owned()),
        created_at: ago(created),
        rotates: None,
    }
}

/// A gateway (10) with a board (20), its worker (30) and the gateway's main agent (31).
async fn small_fleet(world: &impl World) {
    world.put_gateway(&gateway(10)).await;
    world.put_board(&board(20, Some(10))).await;
    world.put_agent(&agent(30, Some(20), 10)).await;
    world.put_agent(&agent(31, None, 10)).await;
}

const GATEWAY: GatewayId = GatewayId(uuid::Uuid::from_u128(10));
const WORKER: AgentId = AgentId(uuid::Uuid::from_u128(30));
