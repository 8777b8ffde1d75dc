-- One-shot syncs: what was asked for, what is done of it, and what came of it. Whoever holds the lease does them; everything
-- here goes away a day after it was asked for.

CREATE TABLE openclaw_controller.sync_requests (
    id uuid PRIMARY KEY,
    -- gateways.id
    gateway_id uuid NOT NULL,
    options json NOT NULL,
    -- By the database's clock; also the name of the request for new tokens, if there is one.
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    -- How many agents are looked at; null until that is known.
    agents integer,
    result json
);
CREATE INDEX ON openclaw_controller.sync_requests (requested_at) WHERE finished_at IS NULL;

CREATE TABLE openclaw_controller.sync_agents (
    sync_id uuid NOT NULL REFERENCES openclaw_controller.sync_requests ON DELETE CASCADE,
    -- agents.id
    agent_id uuid NOT NULL,
    -- Set before the agent's session is reset: it is not reset a second time, whatever became of the first.
    reset_at timestamptz,
    -- Null until the agent is done.
    updated boolean,
    error json,
    PRIMARY KEY (sync_id, agent_id)
);

CREATE FUNCTION openclaw_controller.hint_sync_requests() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    PERFORM pg_notify('openclaw_controller', 'sync:' || NEW.gateway_id::text);
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION openclaw_controller.hint_sync_requests() FROM PUBLIC;

CREATE TRIGGER hint AFTER INSERT ON openclaw_controller.sync_requests
    FOR EACH ROW EXECUTE FUNCTION openclaw_controller.hint_sync_requests();
