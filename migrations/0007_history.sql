-- What happened on gateways lately: it has to outlive us, or a controller that crashes again and again would restart gateways,
-- and fight with other writers, without end. Nothing is written here while everything is as desired.

-- Restarts that a config write of ours caused. A restart that is foreseen is written down before the write is sent, and taken out
-- again if it did not come. Rows of more than an hour ago go with the next one.
CREATE TABLE openclaw_controller.caused_restarts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- gateways.id
    gateway_id uuid NOT NULL,
    at timestamptz NOT NULL,
    foreseen boolean NOT NULL,
    -- What the write changed: roster, heartbeat, ownership, tools, channels.
    parts text[] NOT NULL
);
CREATE INDEX ON openclaw_controller.caused_restarts (gateway_id);

-- Fields that were as desired, and were found changed by somebody else.
CREATE TABLE openclaw_controller.undone_fields (
    -- gateways.id
    gateway_id uuid NOT NULL,
    object_kind text NOT NULL CHECK (object_kind IN ('gateway', 'agent')),
    object_id uuid NOT NULL,
    -- A path in the gateway's config, or the name of a file.
    field text NOT NULL,
    -- The object's generation at that time: it counts for that one only.
    generation bigint NOT NULL,
    -- When it was found, oldest first. Three within an hour are a fight.
    times timestamptz[] NOT NULL,
    -- When it was last put right, or would have been.
    tried_at timestamptz NOT NULL,
    PRIMARY KEY (gateway_id, object_kind, object_id, field)
);
