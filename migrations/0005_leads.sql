-- What is chosen for the leads that this controller makes. It counts when the row of a board's lead is made: afterwards the
-- row is what counts.

CREATE TABLE openclaw_controller.board_settings (
    -- boards.id
    board_id uuid PRIMARY KEY,
    -- The lead's name; null or blank: "Lead Agent".
    lead_name text,
    -- Overrides of the lead's identity profile, a JSON object; null and blank texts in it override nothing.
    lead_identity json
);

DO $do$
BEGIN
    EXECUTE format($f$
        CREATE FUNCTION openclaw_controller.hint_board_settings() RETURNS trigger
            LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
        $hint$
        BEGIN
            PERFORM pg_notify('openclaw_controller', b.gateway_id::text)
               FROM %s b WHERE b.id IN (NEW.board_id, OLD.board_id) AND b.gateway_id IS NOT NULL;
            RETURN NULL;
        END
        $hint$ $f$,
        openclaw_controller.full_name('boards'));
END
$do$;

REVOKE ALL ON FUNCTION openclaw_controller.hint_board_settings() FROM PUBLIC;

CREATE TRIGGER hint AFTER INSERT OR UPDATE OR DELETE ON openclaw_controller.board_settings
    FOR EACH ROW EXECUTE FUNCTION openclaw_controller.hint_board_settings();
