-- Triggers that tell the controller which gateway's rows changed.
--
-- Each is AFTER … FOR EACH STATEMENT and compares the old and new rows itself: no WHEN and no column list, which would keep
-- the other program's migrations from changing those columns. Identical payloads of one transaction collapse, so a
-- transaction sends at most one hint per gateway. The functions
--   * write nothing, and never fail the statement: what goes wrong inside becomes the hint '*' (look at everything);
--   * never wait long: a lock that is not free within 100 ms is such a failure, well before deadlock_timeout;
--   * run as their owner, because the other program's role has no rights here, with a search path that holds nothing but
--     the system catalogue, and every table under its full name;
--   * join old and new rows by FULL JOIN, which is never a nested loop: a plan made for one row may serve ten thousand.

CREATE FUNCTION openclaw_controller.install_hints() RETURNS integer
    LANGUAGE plpgsql AS
$install$
DECLARE
    -- What a function is made of: its name, the events that it serves, and the query for the gateways concerned.
    body record;
    event text;
    trigger_name text;
    target regclass;
    installed integer := 0;
    options constant text :=
        'LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = ''100ms'' SET jit = off';
    -- Python's idea of whitespace, since Python wrote the rows.
    blank constant text :=
        $q$E'\t\n\u000B\f\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'$q$;
BEGIN
    FOR body IN
        SELECT t.table_name, t.event_name, t.query
          FROM (VALUES
            ('gateways', 'insert', 'SELECT id FROM new_rows'),
            ('gateways', 'delete', 'SELECT id FROM old_rows'),
            ('gateways', 'update', $q$
                SELECT unnest(ARRAY[n.id, o.id]) FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                 WHERE (n.id, n.organization_id, n.name, n.url, n.token, n.workspace_root, n.disable_device_pairing,
                        n.allow_insecure_tls)
                    IS DISTINCT FROM
                       (o.id, o.organization_id, o.name, o.url, o.token, o.workspace_root, o.disable_device_pairing,
                        o.allow_insecure_tls)$q$),
            ('boards', 'insert', 'SELECT gateway_id FROM new_rows'),
            ('boards', 'delete', 'SELECT gateway_id FROM old_rows'),
            -- The agents of a board that lost its gateway belong to the gateways of their own rows.
            ('boards', 'update', $q$
                WITH changed AS (
                    SELECT n.id AS new_id, n.gateway_id AS new_gateway, o.gateway_id AS old_gateway
                      FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                     WHERE (n.id, n.organization_id, n.name, n.slug, n.gateway_id, n.board_type, n.objective,
                            n.success_metrics::text, n.target_date, n.goal_confirmed, n.require_approval_for_done,
                            n.require_review_before_done, n.block_status_changes_with_pending_approval,
                            n.only_lead_can_change_status, n.comment_required_for_review, n.max_agents)
                        IS DISTINCT FROM
                           (o.id, o.organization_id, o.name, o.slug, o.gateway_id, o.board_type, o.objective,
                            o.success_metrics::text, o.target_date, o.goal_confirmed, o.require_approval_for_done,
                            o.require_review_before_done, o.block_status_changes_with_pending_approval,
                            o.only_lead_can_change_status, o.comment_required_for_review, o.max_agents))
                SELECT old_gateway FROM changed
                UNION ALL SELECT new_gateway FROM changed
                UNION ALL SELECT a.gateway_id FROM changed JOIN {agents} a ON a.board_id = changed.new_id
                           WHERE changed.new_gateway IS DISTINCT FROM changed.old_gateway
                             AND (changed.new_gateway IS NULL OR changed.old_gateway IS NULL)$q$),
            ('agents', 'insert', $q$
                SELECT coalesce(b.gateway_id, n.gateway_id) FROM new_rows n LEFT JOIN {boards} b ON b.id = n.board_id$q$),
            ('agents', 'delete', $q$
                SELECT coalesce(b.gateway_id, o.gateway_id) FROM old_rows o LEFT JOIN {boards} b ON b.id = o.board_id$q$),
            ('agents', 'update', $q$
                WITH changed AS (
                    SELECT n.board_id AS new_board, n.gateway_id AS new_gateway,
                           o.board_id AS old_board, o.gateway_id AS old_gateway
                      FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                     WHERE (n.id, n.board_id, n.gateway_id, n.name, n.is_board_lead, n.delete_requested_at,
                            n.agent_token_hash, n.heartbeat_config::text, n.identity_profile::text, n.identity_template,
                            n.soul_template)
                        IS DISTINCT FROM
                           (o.id, o.board_id, o.gateway_id, o.name, o.is_board_lead, o.delete_requested_at,
                            o.agent_token_hash, o.heartbeat_config::text, o.identity_profile::text, o.identity_template,
                            o.soul_template)),
                place AS (
                    SELECT new_board AS board_id, new_gateway AS gateway_id FROM changed
                    UNION ALL SELECT old_board, old_gateway FROM changed)
                SELECT coalesce(b.gateway_id, place.gateway_id) FROM place LEFT JOIN {boards} b ON b.id = place.board_id$q$),
            -- Only an organisation's owner is rendered. A user who has just been made is no member yet.
            ('users', 'delete', $q$
                SELECT g.id FROM old_rows o JOIN {organization_members} m ON m.user_id = o.id
                  JOIN {gateways} g ON g.organization_id = m.organization_id WHERE m.role = 'owner'$q$),
            ('users', 'insert', $q$
                SELECT g.id FROM new_rows n JOIN {organization_members} m ON m.user_id = n.id
                  JOIN {gateways} g ON g.organization_id = m.organization_id WHERE m.role = 'owner'$q$),
            ('users', 'update', $q$
                WITH changed AS (
                    SELECT n.id FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                     WHERE (n.id, n.email, n.name, n.preferred_name, n.pronouns, n.timezone, n.notes, n.context)
                        IS DISTINCT FROM
                           (o.id, o.email, o.name, o.preferred_name, o.pronouns, o.timezone, o.notes, o.context))
                SELECT g.id FROM changed JOIN {organization_members} m ON m.user_id = changed.id
                  JOIN {gateways} g ON g.organization_id = m.organization_id WHERE m.role = 'owner'$q$),
            ('organization_members', 'insert', $q$
                SELECT g.id FROM new_rows n JOIN {gateways} g ON g.organization_id = n.organization_id
                 WHERE n.role = 'owner'$q$),
            ('organization_members', 'delete', $q$
                SELECT g.id FROM old_rows o JOIN {gateways} g ON g.organization_id = o.organization_id
                 WHERE o.role = 'owner'$q$),
            ('organization_members', 'update', $q$
                SELECT g.id FROM new_rows n FULL JOIN old_rows o ON n.id = o.id
                  JOIN {gateways} g ON g.organization_id IN (n.organization_id, o.organization_id)
                 WHERE 'owner' IN (n.role, o.role)
                   AND (n.id, n.organization_id, n.user_id, n.role, n.created_at)
                       IS DISTINCT FROM (o.id, o.organization_id, o.user_id, o.role, o.created_at)$q$),
            ('board_memory', 'insert', $q$
                SELECT b.gateway_id FROM new_rows n JOIN {boards} b ON b.id = n.board_id
                 WHERE n.is_chat AND lower(btrim(n.content::text, {blank})) IN ('/pause', '/resume')$q$),
            ('board_memory', 'delete', $q$
                SELECT b.gateway_id FROM old_rows o JOIN {boards} b ON b.id = o.board_id
                 WHERE o.is_chat AND lower(btrim(o.content::text, {blank})) IN ('/pause', '/resume')$q$),
            ('board_memory', 'update', $q$
                WITH word AS (
                    SELECT true AS is_new, id, board_id, created_at, lower(btrim(content::text, {blank})) AS word
                      FROM new_rows WHERE is_chat
                    UNION ALL
                    SELECT false, id, board_id, created_at, lower(btrim(content::text, {blank}))
                      FROM old_rows WHERE is_chat),
                told AS (SELECT * FROM word WHERE word IN ('/pause', '/resume')),
                changed AS (
                    SELECT n.board_id AS new_board, o.board_id AS old_board
                      FROM (SELECT * FROM told WHERE is_new) n FULL JOIN (SELECT * FROM told WHERE NOT is_new) o
                        ON n.id = o.id
                     WHERE (n.id, n.board_id, n.created_at, n.word) IS DISTINCT FROM (o.id, o.board_id, o.created_at, o.word))
                SELECT b.gateway_id FROM changed JOIN {boards} b ON b.id IN (changed.new_board, changed.old_board)$q$)
          ) AS t (table_name, event_name, query)
    LOOP
        trigger_name := 'openclaw_controller_' || body.event_name;
        target := body.table_name::regclass;
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = trigger_name);

        EXECUTE format($f$
            CREATE OR REPLACE FUNCTION openclaw_controller.%1$I() RETURNS trigger %2$s AS
            $hint$
            BEGIN
                BEGIN
                    PERFORM pg_notify('openclaw_controller', concerned.gateway::text)
                       FROM (SELECT DISTINCT listed.gateway FROM (%3$s) AS listed (gateway)) AS concerned
                      WHERE concerned.gateway IS NOT NULL;
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
            'hint_' || body.table_name || '_' || body.event_name,
            options,
            replace(replace(replace(replace(replace(body.query,
                '{blank}', blank),
                '{agents}', openclaw_controller.full_name('agents')),
                '{boards}', openclaw_controller.full_name('boards')),
                '{gateways}', openclaw_controller.full_name('gateways')),
                '{organization_members}', openclaw_controller.full_name('organization_members')));
        EXECUTE format('REVOKE ALL ON FUNCTION openclaw_controller.%I() FROM PUBLIC',
            'hint_' || body.table_name || '_' || body.event_name);
        EXECUTE format('CREATE TRIGGER %I AFTER %s ON %s %s FOR EACH STATEMENT EXECUTE FUNCTION openclaw_controller.%I()',
            trigger_name,
            upper(body.event_name),
            target,
            CASE body.event_name
                WHEN 'insert' THEN 'REFERENCING NEW TABLE AS new_rows'
                WHEN 'delete' THEN 'REFERENCING OLD TABLE AS old_rows'
                ELSE 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows'
            END,
            'hint_' || body.table_name || '_' || body.event_name);
        installed := installed + 1;
    END LOOP;

    FOREACH event IN ARRAY ARRAY['gateways', 'boards', 'agents', 'users', 'organization_members', 'board_memory']
    LOOP
        target := event::regclass;
        CONTINUE WHEN EXISTS (SELECT FROM pg_trigger WHERE tgrelid = target AND tgname = 'openclaw_controller_truncate');
        EXECUTE format('CREATE TRIGGER openclaw_controller_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION openclaw_controller.hint_everything()', target);
        installed := installed + 1;
    END LOOP;
    RETURN installed;
END
$install$;

COMMENT ON FUNCTION openclaw_controller.install_hints() IS
    'Creates those notification triggers that are missing, and returns their number. Harmless to call again.';

CREATE FUNCTION openclaw_controller.full_name(table_name text) RETURNS text
    LANGUAGE sql STABLE AS
$$
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = table_name::regclass
$$;

CREATE FUNCTION openclaw_controller.hint_everything() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
    BEGIN
        PERFORM pg_notify('openclaw_controller', '*');
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION openclaw_controller.install_hints(), openclaw_controller.full_name(text),
    openclaw_controller.hint_everything() FROM PUBLIC;

SELECT openclaw_controller.install_hints();
