-- What people ask for beyond the rows of the other program, and what is remembered of doing it.

-- ---------------------------------------------------------------------------------------------------------------------
-- Desired state of ours. Timestamps are requests in the way of a rollout restart: a new one asks once more.

-- Not named like the tables of the other program: a role of the schema's name finds its schema first.

CREATE TABLE openclaw_controller.agent_requests (
    -- agents.id
    agent_id uuid PRIMARY KEY,
    -- A new token is wanted.
    rotate_requested_at timestamptz,
    -- A wake is wanted.
    wake_requested_at timestamptz
);

CREATE TABLE openclaw_controller.gateway_settings (
    -- gateways.id
    gateway_id uuid PRIMARY KEY,
    -- users.id of the person for whom files are rendered; null: the owner of the gateway's organisation.
    user_id uuid
);

-- ---------------------------------------------------------------------------------------------------------------------
-- Tokens.

ALTER TABLE openclaw_controller.agent_records
    -- The rotate_requested_at that the agent's token answers.
    ADD COLUMN rotated_for timestamptz;

ALTER TABLE openclaw_controller.token_candidates
    -- The rotate_requested_at that it answers once it is promoted; null: none.
    ADD COLUMN rotates timestamptz;
-- A check-in may come between the write of a file and the promotion.
CREATE INDEX ON openclaw_controller.token_candidates (token_sha256);

ALTER TABLE openclaw_controller.verified_tokens
    -- When the token was made, if we made it, else when it was first verified: its age counts from here.
    ADD COLUMN since timestamptz NOT NULL DEFAULT now();

-- Tokens that were replaced: an agent reads its new one at its next heartbeat only, and may check in with this one until then.
CREATE TABLE openclaw_controller.retired_tokens (
    agent_id uuid NOT NULL,
    token_sha256 text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (agent_id, token_sha256)
);
CREATE INDEX ON openclaw_controller.retired_tokens (token_sha256);
CREATE INDEX ON openclaw_controller.retired_tokens (until);

-- ---------------------------------------------------------------------------------------------------------------------
-- Hints for the tables above. Rows come one at a time, or as many as there are agents; identical hints collapse.

DO $do$
BEGIN
    EXECUTE format($f$
        CREATE FUNCTION openclaw_controller.hint_agent_requests() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
        $hint$
        BEGIN
            PERFORM pg_notify('openclaw_controller', coalesce(b.gateway_id, a.gateway_id)::text)
               FROM %s a LEFT JOIN %s b ON b.id = a.board_id WHERE a.id = coalesce(NEW.agent_id, OLD.agent_id);
            RETURN NULL;
        END
        $hint$ $f$,
        openclaw_controller.full_name('agents'), openclaw_controller.full_name('boards'));
END
$do$;

CREATE FUNCTION openclaw_controller.hint_gateway_settings() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM pg_notify('openclaw_controller', coalesce(NEW.gateway_id, OLD.gateway_id)::text);
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION openclaw_controller.hint_agent_requests(), openclaw_controller.hint_gateway_settings() FROM PUBLIC;

CREATE TRIGGER hint AFTER INSERT OR UPDATE OR DELETE ON openclaw_controller.agent_requests
    FOR EACH ROW EXECUTE FUNCTION openclaw_controller.hint_agent_requests();
CREATE TRIGGER hint AFTER INSERT OR UPDATE OR DELETE ON openclaw_controller.gateway_settings
    FOR EACH ROW EXECUTE FUNCTION openclaw_controller.hint_gateway_settings();

-- ---------------------------------------------------------------------------------------------------------------------
-- Wakes.

ALTER TABLE openclaw_controller.agent_records
    -- Digest of the agent's own row that it was last woken for, or that it was found with.
    ADD COLUMN woken_for text,
    -- The wake_requested_at that was answered.
    ADD COLUMN wake_asked timestamptz,
    -- Every wake ever; half of its idempotency key, so it never goes back.
    ADD COLUMN wake_counter bigint NOT NULL DEFAULT 0,
    -- Wakes since the last change or check-in.
    ADD COLUMN wake_attempts integer NOT NULL DEFAULT 0,
    -- Whether they tell of a first provisioning.
    ADD COLUMN wake_first boolean NOT NULL DEFAULT false,
    ADD COLUMN wake_sent_at timestamptz,
    -- Null unless a check-in is awaited.
    ADD COLUMN wake_deadline timestamptz,
    ADD COLUMN wake_gave_up boolean NOT NULL DEFAULT false,
    -- agents.last_wake_sent_at of the last wake that another program sent and that counted.
    ADD COLUMN wake_foreign timestamptz;

-- A check-in is awaited where a deadline is set, and where an agent was given up. All others are the other program's
-- business alone: they come every ten minutes from every agent. For the rules of such triggers see 0002_hints.sql.

ALTER FUNCTION openclaw_controller.install_hints() RENAME TO install_row_hints;

CREATE FUNCTION openclaw_controller.install_check_in_hint() RETURNS integer
    LANGUAGE plpgsql AS
$install$
DECLARE
    target constant regclass := 'agents'::regclass;
BEGIN
    IF EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = 'openclaw_controller_check_in') THEN
        RETURN 0;
    END IF;
    EXECUTE format($f$
        CREATE OR REPLACE FUNCTION openclaw_controller.hint_agents_check_in() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' SET jit = off AS
        $hint$
        BEGIN
            BEGIN
                IF EXISTS (SELECT FROM old_rows WHERE checkin_deadline_at IS NOT NULL OR status::text = 'offline') THEN
                    PERFORM pg_notify('openclaw_controller', concerned.gateway::text)
                       FROM (WITH seen AS (
                                 SELECT n.board_id, n.gateway_id FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                                  WHERE n.last_seen_at IS DISTINCT FROM o.last_seen_at
                                    AND (o.checkin_deadline_at IS NOT NULL OR o.status::text = 'offline'))
                             SELECT DISTINCT coalesce(b.gateway_id, seen.gateway_id)
                               FROM seen LEFT JOIN %s b ON b.id = seen.board_id) AS concerned (gateway)
                      WHERE concerned.gateway IS NOT NULL;
                END IF;
            EXCEPTION WHEN OTHERS THEN
                BEGIN
                    PERFORM pg_notify('openclaw_controller', '*');
                EXCEPTION WHEN OTHERS THEN
                    NULL;
                END;
            END;
            RETURN NULL;
        END
        $hint$ $f$,
        openclaw_controller.full_name('boards'));
    REVOKE ALL ON FUNCTION openclaw_controller.hint_agents_check_in() FROM PUBLIC;
    EXECUTE format('CREATE TRIGGER openclaw_controller_check_in AFTER UPDATE ON %s REFERENCING OLD TABLE AS old_rows '
                   'NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION openclaw_controller.hint_agents_check_in()', target);
    RETURN 1;
END
$install$;

CREATE FUNCTION openclaw_controller.install_hints() RETURNS integer
    LANGUAGE sql AS
$$
    SELECT openclaw_controller.install_row_hints() + openclaw_controller.install_check_in_hint()
$$;

COMMENT ON FUNCTION openclaw_controller.install_hints() IS
    'Creates those notification triggers that are missing, and returns their number. Harmless to call again.';
COMMENT ON FUNCTION openclaw_controller.install_row_hints() IS 'Those for the columns that are desired state.';
COMMENT ON FUNCTION openclaw_controller.install_check_in_hint() IS 'The one for check-ins that are awaited.';

REVOKE ALL ON FUNCTION openclaw_controller.install_hints(), openclaw_controller.install_check_in_hint() FROM PUBLIC;
