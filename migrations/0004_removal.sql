-- What is left on gateways, and what was removed there. Neither depends on a row: the rows are gone, or say something else.

-- Agents that we put on a gateway and that no row explains any more.
CREATE TABLE openclaw_controller.leftovers (
    -- gateways.id
    gateway_id uuid NOT NULL,
    -- The agent's id on that gateway.
    gateway_agent_id text NOT NULL,
    -- The agents.id that it was made for.
    agent_id uuid NOT NULL,
    since timestamptz NOT NULL,
    -- RowDeleted, Moved or IdChanged.
    reason text NOT NULL,
    PRIMARY KEY (gateway_id, gateway_agent_id)
);

-- Agents that we have begun to remove from a gateway. It is kept after that: newer gateways remember whom they removed, and
-- take an agent of the same id back in another way than a new one.
CREATE TABLE openclaw_controller.removed_agents (
    gateway_id uuid NOT NULL,
    gateway_agent_id text NOT NULL,
    -- Whether the gateway has answered that it is done.
    done boolean NOT NULL DEFAULT false,
    PRIMARY KEY (gateway_id, gateway_agent_id)
);
