-- The tables of the other program, where the database has none of them; then our own.
--
-- Whether the database is empty, complete, or neither is decided before this file runs: with any one of the tables there,
-- all of them are, and nothing of theirs is touched here. Unqualified names go into the connection's current schema.

DO $$
BEGIN
    IF to_regclass('agents') IS NOT NULL THEN
        RETURN;
    END IF;

    CREATE TABLE organizations (
        id uuid PRIMARY KEY,
        name character varying,
        created_at timestamp without time zone,
        updated_at timestamp without time zone
    );

    CREATE TABLE users (
        id uuid PRIMARY KEY,
        clerk_user_id character varying NOT NULL UNIQUE,
        email character varying,
        name character varying,
        preferred_name character varying,
        pronouns character varying,
        timezone character varying,
        notes character varying,
        context character varying,
        is_super_admin boolean NOT NULL,
        active_organization_id uuid REFERENCES organizations (id)
    );

    CREATE TABLE organization_members (
        id uuid PRIMARY KEY,
        organization_id uuid REFERENCES organizations (id),
        user_id uuid REFERENCES users (id),
        role character varying,
        all_boards_read boolean,
        all_boards_write boolean,
        created_at timestamp without time zone,
        updated_at timestamp without time zone,
        UNIQUE (organization_id, user_id)
    );
    CREATE INDEX ON organization_members (user_id);

    CREATE TABLE gateways (
        id uuid PRIMARY KEY,
        organization_id uuid REFERENCES organizations (id),
        name character varying,
        url character varying NOT NULL,
        token character varying,
        workspace_root character varying NOT NULL,
        disable_device_pairing boolean NOT NULL,
        allow_insecure_tls boolean NOT NULL,
        created_at timestamp without time zone,
        updated_at timestamp without time zone
    );
    CREATE INDEX ON gateways (organization_id);

    CREATE TABLE boards (
        id uuid PRIMARY KEY,
        organization_id uuid REFERENCES organizations (id),
        name character varying,
        slug character varying,
        gateway_id uuid REFERENCES gateways (id),
        board_group_id uuid,
        board_type character varying,
        objective character varying,
        success_metrics json,
        target_date timestamp without time zone,
        goal_confirmed boolean,
        goal_source character varying,
        description character varying NOT NULL,
        require_approval_for_done boolean DEFAULT true,
        require_review_before_done boolean DEFAULT false,
        block_status_changes_with_pending_approval boolean DEFAULT false,
        only_lead_can_change_status boolean DEFAULT false,
        comment_required_for_review boolean DEFAULT false,
        max_agents integer NOT NULL,
        created_at timestamp without time zone,
        updated_at timestamp without time zone
    );
    CREATE INDEX ON boards (gateway_id);

    CREATE TABLE board_memory (
        id uuid PRIMARY KEY,
        board_id uuid REFERENCES boards (id),
        content text,
        tags json,
        is_chat boolean,
        source character varying,
        created_at timestamp without time zone
    );
    -- Only the words that pause and resume a board: the whitespace is what the loading query trims, character by character.
    CREATE INDEX ON board_memory (board_id, created_at DESC NULLS LAST, id DESC)
        WHERE is_chat
          AND lower(btrim(content::text, E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000')) IN ('/pause', '/resume');
    CREATE INDEX ON board_memory (board_id);

    CREATE TABLE agents (
        id uuid PRIMARY KEY,
        board_id uuid REFERENCES boards (id),
        gateway_id uuid NOT NULL REFERENCES gateways (id),
        name character varying,
        status character varying,
        openclaw_session_id character varying,
        agent_token_hash character varying,
        heartbeat_config json,
        identity_profile json,
        identity_template text,
        soul_template text,
        provision_requested_at timestamp without time zone,
        provision_confirm_token_hash character varying,
        provision_action character varying,
        delete_requested_at timestamp without time zone,
        delete_confirm_token_hash character varying,
        last_seen_at timestamp without time zone,
        is_board_lead boolean NOT NULL,
        lifecycle_generation integer NOT NULL,
        wake_attempts integer NOT NULL,
        last_wake_sent_at timestamp without time zone,
        checkin_deadline_at timestamp without time zone,
        last_provision_error text,
        created_at timestamp without time zone,
        updated_at timestamp without time zone
    );
    CREATE INDEX ON agents (board_id);
    CREATE INDEX ON agents (gateway_id);
END
$$;

-- Nothing of ours refers to their tables: a foreign key would stand in the way of their deletes and of their migrations.

CREATE TABLE openclaw_controller.leases (
    scope text PRIMARY KEY,
    -- Null after a release.
    holder text,
    term bigint NOT NULL,
    expires_at timestamptz NOT NULL
);
COMMENT ON TABLE openclaw_controller.leases IS 'Who may write. The term only grows; times are this database''s.';

CREATE TABLE openclaw_controller.gateway_records (
    gateway_id uuid PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 0,
    spec_digest text,
    conditions jsonb NOT NULL DEFAULT '[]',
    server_version text,
    protocol integer
);

CREATE TABLE openclaw_controller.agent_records (
    agent_id uuid PRIMARY KEY,
    generation bigint NOT NULL DEFAULT 0,
    spec_digest text,
    conditions jsonb NOT NULL DEFAULT '[]',
    -- The gateway that the rows last said; the placement is where we really put or found it.
    home_gateway_id uuid,
    placement_gateway_id uuid,
    placement_agent_id text,
    registering_since timestamptz,
    first_provisioned_at timestamptz,
    CHECK ((placement_gateway_id IS NULL) = (placement_agent_id IS NULL))
);
CREATE INDEX ON openclaw_controller.agent_records ((coalesce(placement_gateway_id, home_gateway_id)));

CREATE TABLE openclaw_controller.verified_tokens (
    agent_id uuid PRIMARY KEY,
    hash text NOT NULL,
    token_sha256 text NOT NULL
);
-- A check-in is found by its token, without running a key derivation for every agent.
CREATE INDEX ON openclaw_controller.verified_tokens (token_sha256);

CREATE TABLE openclaw_controller.token_candidates (
    agent_id uuid NOT NULL,
    hash text NOT NULL,
    token_sha256 text NOT NULL,
    -- agents.agent_token_hash when it was made: if it is another one since, somebody else has set it.
    replaces text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (agent_id, hash)
);

CREATE TABLE openclaw_controller.token_mismatches (
    agent_id uuid PRIMARY KEY,
    -- The agents.agent_token_hash that the token on the gateway did not belong to.
    hash text,
    since timestamptz NOT NULL
);

CREATE TABLE openclaw_controller.events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_kind text NOT NULL CHECK (object_kind IN ('gateway', 'agent')),
    object_id uuid NOT NULL,
    kind text NOT NULL CHECK (kind IN ('Normal', 'Warning')),
    reason text NOT NULL,
    message text NOT NULL,
    count bigint NOT NULL DEFAULT 1,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL
);
-- The digest stands for the message, which may be longer than an index entry can be.
CREATE UNIQUE INDEX ON openclaw_controller.events (object_kind, object_id, kind, reason, md5(message));
CREATE INDEX ON openclaw_controller.events (last_seen);
