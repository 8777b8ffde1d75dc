-- What the backend's own migrations leave behind: its tables, those that refer to agents, and some rows.

CREATE TABLE alembic_version (version_num character varying(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('a1b2c3d4e5f6');

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
CREATE INDEX ix_organization_members_user_id ON organization_members (user_id);

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
CREATE INDEX ix_gateways_organization_id ON gateways (organization_id);

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
CREATE INDEX ix_boards_gateway_id ON boards (gateway_id);

CREATE TABLE board_memory (
    id uuid PRIMARY KEY,
    board_id uuid REFERENCES boards (id),
    content text,
    tags json,
    is_chat boolean,
    source character varying,
    created_at timestamp without time zone
);
CREATE INDEX ix_board_memory_board_id ON board_memory (board_id);

CREATE TABLE agents (
    id uuid PRIMARY KEY,
    board_id uuid REFERENCES boards (id),
    gateway_id uuid NOT NULL REFERENCES gateways (id),
    name character varying NOT NULL,
    status character varying NOT NULL,
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
CREATE INDEX ix_agents_board_id ON agents (board_id);
CREATE INDEX ix_agents_gateway_id ON agents (gateway_id);

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    board_id uuid REFERENCES boards (id),
    title character varying NOT NULL,
    assigned_agent_id uuid REFERENCES agents (id),
    created_at timestamp without time zone
);
CREATE TABLE approvals (
    id uuid PRIMARY KEY,
    board_id uuid NOT NULL REFERENCES boards (id),
    agent_id uuid REFERENCES agents (id)
);
CREATE TABLE activity_events (
    id uuid PRIMARY KEY,
    event_type character varying NOT NULL,
    agent_id uuid REFERENCES agents (id)
);
CREATE TABLE board_webhooks (
    id uuid PRIMARY KEY,
    board_id uuid NOT NULL REFERENCES boards (id),
    agent_id uuid REFERENCES agents (id)
);

INSERT INTO organizations (id, name) VALUES (gen_random_uuid(), 'them');
INSERT INTO users (id, clerk_user_id, name, is_super_admin) VALUES (gen_random_uuid(), 'ada', 'Ada', false);
INSERT INTO organization_members (id, organization_id, user_id, role, all_boards_read, all_boards_write, created_at)
    SELECT gen_random_uuid(), o.id, u.id, 'owner', true, true, now() FROM organizations o, users u;
INSERT INTO gateways (id, organization_id, name, url, workspace_root, disable_device_pairing, allow_insecure_tls, created_at)
    SELECT gen_random_uuid(), id, 'gateway', 'ws://127.0.0.1:1', '/srv', false, false, now() FROM organizations;
INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, goal_confirmed, description, max_agents)
    SELECT gen_random_uuid(), organization_id, 'board', 'board', id, 'goal', false, '', 5 FROM gateways;
INSERT INTO board_memory (id, board_id, content, is_chat, created_at)
    SELECT gen_random_uuid(), id, E'\u00A0/Pause \n', true, now() FROM boards
    UNION ALL SELECT gen_random_uuid(), id, '/resume', false, now() + interval '1 s' FROM boards
    UNION ALL SELECT gen_random_uuid(), id, '/resume', true, now() - interval '1 s' FROM boards
    UNION ALL SELECT gen_random_uuid(), id, 'please /resume', true, now() + interval '2 s' FROM boards;
-- A Python None in a JSON column is JSON's null.
INSERT INTO agents (id, board_id, gateway_id, name, status, heartbeat_config, is_board_lead, lifecycle_generation,
                    wake_attempts, created_at, updated_at)
    SELECT gen_random_uuid(), id, gateway_id, 'worker', 'online', 'null'::json, false, 1, 0, now(), now() FROM boards
    UNION ALL
    SELECT gen_random_uuid(), NULL, id, 'main', 'online', '{"every": "10m"}'::json, false, 1, 0, now(), now() FROM gateways;
