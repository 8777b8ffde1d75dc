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
