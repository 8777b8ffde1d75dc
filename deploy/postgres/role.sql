-- Two roles: one that migrates and owns the schema openclaw_controller, and one that the daemon runs with, which may do what it
-- does and nothing else. Both are this program's alone: take no role of another program.
--
--   psql -v ON_ERROR_STOP=1 -f role.sql "$ADMIN_URL"            as a superuser, or as whoever owns the database and its tables
--   \password openclaw_controller_owner                         passwords are set apart from this: none stands in here
--   \password openclaw_controller_daemon
--   DATABASE_URL=… openclaw-controller migrate                  as the owner
--   psql -v ON_ERROR_STOP=1 -f role.sql "$ADMIN_URL"            again: now all tables are there to be granted
--   DATABASE_URL=… openclaw-controller run --no-migrate         as the daemon
--
-- Run it after each upgrade, too: it takes back what it granted before, and grants what this version needs. Variables (-v NAME=VALUE):
--   owner, daemon   other names for the two roles
--   schema          where the tables agents, boards, … are, or are to be made (public)
--   leads           true or false: whether the daemon may make board leads (--ensure-leads). Not given, it may unless another
--                   backend's migrations own the tables (alembic_version), which is where `run` makes none by default either
\set ON_ERROR_STOP on
\if :{?owner} \else \set owner openclaw_controller_owner \endif
\if :{?daemon} \else \set daemon openclaw_controller_daemon \endif
\if :{?schema} \else \set schema public \endif
SELECT to_regclass(format('%I.alembic_version', :'schema')) IS NULL AS alone \gset
\if :{?leads} \else \set leads :alone \endif

BEGIN;
-- That something is there already is no news.
SET LOCAL client_min_messages TO warning;

SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') AS no_owner,
       NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'daemon') AS no_daemon,
       NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AS no_superuser \gset
\if :no_owner
    CREATE ROLE :"owner" LOGIN;
\endif
\if :no_daemon
    CREATE ROLE :"daemon" LOGIN;
\endif
\if :no_superuser
    -- Only a member can make a schema for a role, or say what is granted on its tables.
    GRANT :"owner" TO CURRENT_USER;
\endif

SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I', current_database(), :'owner', :'daemon') \gexec
GRANT USAGE ON SCHEMA :"schema" TO :"owner", :"daemon";

-- ---------------------------------------------------------------------------------------------------------------------
-- Our own schema. It belongs to the owner; the daemon reads and writes rows there. What was migrated is not its to say.

CREATE SCHEMA IF NOT EXISTS openclaw_controller AUTHORIZATION :"owner";
REVOKE ALL ON ALL TABLES IN SCHEMA openclaw_controller FROM :"daemon";
GRANT USAGE ON SCHEMA openclaw_controller TO :"daemon";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA openclaw_controller TO :"daemon";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA openclaw_controller
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"daemon";

SELECT to_regclass('openclaw_controller.migrations') IS NOT NULL AS migrated,
       to_regclass(format('%I.agents', :'schema')) IS NOT NULL AS tables \gset
\if :migrated
    REVOKE INSERT, UPDATE, DELETE ON openclaw_controller.migrations FROM :"daemon";
    -- A term only ever grows, so the row of a lease stays.
    REVOKE DELETE ON openclaw_controller.leases FROM :"daemon";
\endif

-- ---------------------------------------------------------------------------------------------------------------------
-- The tables that say which agents should exist.

\if :tables
    SET LOCAL search_path TO :"schema";

    -- The migration adds triggers, which run as their owner and look at these tables.
    GRANT SELECT, TRIGGER ON gateways, boards, agents, users, organization_members, board_memory TO :"owner";
    GRANT UPDATE (gateway_id, status, openclaw_session_id, agent_token_hash, last_provision_error, last_seen_at,
                  wake_attempts, last_wake_sent_at, checkin_deadline_at)
       ON agents TO :"owner";

    REVOKE ALL ON gateways, boards, agents, users, organization_members, board_memory FROM :"daemon";
    GRANT SELECT (id, organization_id, name, url, token, workspace_root, disable_device_pairing, allow_insecure_tls, created_at)
       ON gateways TO :"daemon";
    GRANT SELECT (id, organization_id, name, slug, gateway_id, board_type, objective, success_metrics, target_date, goal_confirmed,
                  require_approval_for_done, require_review_before_done, block_status_changes_with_pending_approval,
                  only_lead_can_change_status, comment_required_for_review, max_agents)
       ON boards TO :"daemon";
    GRANT SELECT (id, board_id, gateway_id, name, status, openclaw_session_id, agent_token_hash, heartbeat_config,
                  identity_profile, identity_template, soul_template, delete_requested_at, last_seen_at, is_board_lead,
                  wake_attempts, last_wake_sent_at, checkin_deadline_at, last_provision_error, created_at),
          UPDATE (gateway_id, status, openclaw_session_id, agent_token_hash, last_provision_error, last_seen_at,
                  wake_attempts, last_wake_sent_at, checkin_deadline_at)
       ON agents TO :"daemon";
    GRANT SELECT (id, email, name, preferred_name, pronouns, timezone, notes, context) ON users TO :"daemon";
    GRANT SELECT (id, organization_id, user_id, role, created_at) ON organization_members TO :"daemon";
    GRANT SELECT (id, board_id, content, is_chat, created_at) ON board_memory TO :"daemon";
    \if :leads
        GRANT INSERT (id, board_id, gateway_id, name, status, openclaw_session_id, identity_profile, is_board_lead,
                      lifecycle_generation, wake_attempts, created_at, updated_at)
           ON agents TO :"daemon";
    \endif

    \if :alone
        -- It was only needed for making them.
        REVOKE CREATE ON SCHEMA :"schema" FROM :"owner";
    \endif
\else
    GRANT CREATE ON SCHEMA :"schema" TO :"owner";
\endif

COMMIT;

\if :migrated
    \echo The daemon may run as :daemon, with --no-migrate.
\else
    \echo Next: openclaw-controller migrate, as :owner, then this file again.
\endif
