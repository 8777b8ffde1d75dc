-- One organisation with its owner, a gateway, two boards, and six agents: a lead and workers for each board, and the
-- gateway's own. The gateway's particulars come from the session's settings, set just before.
BEGIN;

INSERT INTO organizations (id, name, created_at, updated_at)
VALUES ('0a000000-0000-4000-8000-000000000001', 'Lighthouse', timezone('UTC', now()), timezone('UTC', now()));

INSERT INTO users (id, clerk_user_id, email, name, preferred_name, pronouns, timezone, notes, context, is_super_admin,
                   active_organization_id)
VALUES ('0b000000-0000-4000-8000-000000000001', 'demo-owner', 'robin@example.org', 'Robin Keeper', 'Robin', 'they/them',
        'Europe/Lisbon', 'Prefers short answers.', 'Runs a small harbour museum.', false,
        '0a000000-0000-4000-8000-000000000001');

INSERT INTO organization_members (id, organization_id, user_id, role, all_boards_read, all_boards_write, created_at,
                                  updated_at)
VALUES ('0c000000-0000-4000-8000-000000000001', '0a000000-0000-4000-8000-000000000001',
        '0b000000-0000-4000-8000-000000000001', 'owner', true, true, timezone('UTC', now()), timezone('UTC', now()));

INSERT INTO gateways (id, organization_id, name, url, token, workspace_root, disable_device_pairing, allow_insecure_tls,
                      created_at, updated_at)
VALUES ('0d000000-0000-4000-8000-000000000001', '0a000000-0000-4000-8000-000000000001', 'Demo gateway',
        current_setting('demo.gateway_url'), current_setting('demo.gateway_token'), current_setting('demo.workspace_root'),
        false, false, timezone('UTC', now()), timezone('UTC', now()));

INSERT INTO boards (id, organization_id, name, slug, gateway_id, board_type, objective, success_metrics, target_date,
                    goal_confirmed, description, max_agents, created_at, updated_at)
VALUES ('0e000000-0000-4000-8000-000000000001', '0a000000-0000-4000-8000-000000000001', 'Website', 'website',
        '0d000000-0000-4000-8000-000000000001', 'goal', 'A new website for the museum', '{"pages": 12, "languages": 2}',
        timezone('UTC', now()) + interval '90 days', true, 'Everything about the new website.', 5,
        timezone('UTC', now()), timezone('UTC', now())),
       ('0e000000-0000-4000-8000-000000000002', '0a000000-0000-4000-8000-000000000001', 'Newsletter', 'newsletter',
        '0d000000-0000-4000-8000-000000000001', 'general', NULL, NULL, NULL, false, 'The monthly letter to members.', 3,
        timezone('UTC', now()), timezone('UTC', now()));

INSERT INTO agents (id, board_id, gateway_id, name, status, openclaw_session_id, heartbeat_config, identity_profile,
                    provision_requested_at, provision_action, is_board_lead, lifecycle_generation, wake_attempts, created_at,
                    updated_at)
SELECT id::uuid, board::uuid, '0d000000-0000-4000-8000-000000000001', name, 'provisioning', session, heartbeat::json,
       identity::json, timezone('UTC', now()), 'provision', lead, 0, 0,
       timezone('UTC', now()) + number * interval '1 millisecond', timezone('UTC', now())
FROM (VALUES
    (1, '0f000000-0000-4000-8000-000000000001', NULL, 'Gatekeeper', false,
     'agent:mc-gateway-0d000000-0000-4000-8000-000000000001:main', NULL, '{"role": "Gateway Agent"}'),
    (2, '0f000000-0000-4000-8000-000000000002', '0e000000-0000-4000-8000-000000000001', 'Marlow', true,
     'agent:lead-0e000000-0000-4000-8000-000000000001:main', NULL,
     '{"role": "Board Lead", "communication_style": "direct, concise, practical", "emoji": ":gear:"}'),
    (3, '0f000000-0000-4000-8000-000000000003', '0e000000-0000-4000-8000-000000000001', 'Wren', false,
     'agent:mc-0f000000-0000-4000-8000-000000000003:main', '{"every": "15m"}',
     '{"role": "Writer", "emoji": ":pencil:", "personality": "warm and exact"}'),
    (4, '0f000000-0000-4000-8000-000000000004', '0e000000-0000-4000-8000-000000000001', 'Pascal', false,
     'agent:mc-0f000000-0000-4000-8000-000000000004:main', NULL,
     '{"role": "Web developer", "custom_instructions": "Test on a phone first."}'),
    (5, '0f000000-0000-4000-8000-000000000005', '0e000000-0000-4000-8000-000000000002', 'Isolde', true,
     'agent:lead-0e000000-0000-4000-8000-000000000002:main', NULL, '{"role": "Board Lead", "update_cadence": "weekly"}'),
    (6, '0f000000-0000-4000-8000-000000000006', '0e000000-0000-4000-8000-000000000002', 'Juno', false,
     'agent:mc-0f000000-0000-4000-8000-000000000006:main', '{"every": "1h"}', '{"role": "Editor"}')
) AS seeds (number, id, board, name, lead, session, heartbeat, identity);

COMMIT;
