//! The list of all checks, for whoever runs them: one macro, which hands the list to another.
//!
//! The checks of one gateway may share it, as long as each works on agents of its own. Those that cannot bear company run alone:
//! they restart the gateway, start a run (which keeps the old ones from answering), or use `agents.create`, which on the oldest
//! gateway writes back an old copy of the whole config.

/// Calls the macro `$then` with the names of all checks.
macro_rules! every_check {
    ($then:ident) => {
        $then! {
            shared {
                connect::every_scope_and_the_right_protocol_are_granted,
                connect::probing_finds_the_dialect_and_writes_nothing,
                facts::asking_finds_what_is_known,
                connect::a_wrong_token_is_refused,
                connect::a_missing_token_is_refused,
                connect::a_forged_device_is_refused,
                connect::an_unknown_protocol_is_refused,
                connect::a_foreign_control_ui_is_refused,
                connect::a_control_ui_without_a_device_is_refused_unless_the_operator_allows_it,
                connect::scopes_are_enforced,
                connect::odd_frames_are_answered_or_ignored,
                connect::unknown_methods_and_odd_parameters_are_refused,
                config::secrets_are_never_shown_and_survive_being_written_back,
                config::a_patch_needs_the_hash_of_what_it_changes,
                config::a_patch_that_changes_nothing_is_no_write,
                config::a_patch_that_is_no_object_is_refused,
                config::an_invalid_patch_names_every_path,
                config::include_reasoning_is_taken_by_old_gateways_only,
                config::a_patch_merges_an_agent_key_by_key,
                config::an_agent_is_not_lost_by_a_patch,
                config::several_agents_need_explicit_ownership,
                config::replace_paths_are_unknown_to_the_oldest_gateway,
                config::config_writes_are_limited_per_device,
                config::the_schema_tells_what_the_dialect_has,
                files::the_list_names_what_the_dialect_has,
                files::a_file_reads_back_as_it_was_written,
                files::a_retired_file_is_refused,
                files::identity_can_be_written_even_where_it_is_not_listed,
                files::an_unknown_agent_has_no_files,
                files::a_stale_hash_is_a_conflict_where_hashes_exist,
                agents::the_default_agent_is_main,
                agents::main_and_unknown_agents_are_not_removed,
                sessions::a_label_is_set_and_unique_within_its_agent,
                sessions::a_session_is_reset_even_if_it_was_missing,
                sessions::main_sessions_are_kept_where_the_dialect_keeps_them,
            }
            alone {
                agents::an_agent_is_removed_with_its_files,
                agents::agents_are_removed_one_right_after_the_other_with_their_sessions,
                agents::an_entry_may_lose_all_but_its_place_before_it_is_removed,
                agents::a_created_agent_has_a_workspace_with_files,
                agents::a_config_that_would_lose_half_its_size_is_not_written,
                agents::a_removed_agent_is_not_brought_back_by_a_patch_alone,
                config::channel_visibility_restarts_old_gateways_once,
                sessions::a_message_is_taken_once,
                contract_tour::every_frame_keeps_the_contract,
            }
        }
    };
}
