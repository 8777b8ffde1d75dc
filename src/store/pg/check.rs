//! What must be true of a database before anything in it is changed.

use std::fmt::Write as _;

use sqlx::PgConnection;

use crate::store::{SCHEMA, StoreError};

/// A family of column types that we can read.
#[derive(Clone, Copy)]
enum Kind {
    Uuid,
    Text,
    Bool,
    Int,
    Json,
    Time,
}

impl Kind {
    /// The names that Postgres gives to its members, without their length.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Uuid => &["uuid"],
            Self::Text => &["text", "character varying"],
            Self::Bool => &["boolean"],
            Self::Int => &["integer", "smallint", "bigint"],
            Self::Json => &["json", "jsonb"],
            Self::Time => &["timestamp without time zone"],
        }
    }
}

/// A table of the other program, with the columns that we read.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, Kind)],
    /// Those that we also write.
    written: &'static [&'static str],
}

use Kind::{Bool, Int, Json, Text, Time, Uuid};

/// What the loading queries and the triggers use. `organizations` is only there to be referred to.
const TABLES: [Table; 6] = [
    Table {
        name: "gateways",
        columns: &[
            ("id", Uuid),
            ("organization_id", Uuid),
            ("name", Text),
            ("url", Text),
            ("token", Text),
            ("workspace_root", Text),
            ("disable_device_pairing", Bool),
            ("allow_insecure_tls", Bool),
            ("created_at", Time),
        ],
        written: &[],
    },
    Table {
        name: "boards",
        columns: &[
            ("id", Uuid),
            ("organization_id", Uuid),
            ("name", Text),
            ("slug", Text),
            ("gateway_id", Uuid),
            ("board_type", Text),
            ("objective", Text),
            ("success_metrics", Json),
            ("target_date", Time),
            ("goal_confirmed", Bool),
            ("require_approval_for_done", Bool),
            ("require_review_before_done", Bool),
            ("block_status_changes_with_pending_approval", Bool),
            ("only_lead_can_change_status", Bool),
            ("comment_required_for_review", Bool),
            ("max_agents", Int),
        ],
        written: &[],
    },
    Table {
        name: "agents",
        columns: &[
            ("id", Uuid),
            ("board_id", Uuid),
            ("gateway_id", Uuid),
            ("name", Text),
            ("status", Text),
            ("openclaw_session_id", Text),
            ("agent_token_hash", Text),
            ("heartbeat_config", Json),
            ("identity_profile", Json),
            ("identity_template", Text),
            ("soul_template", Text),
            ("delete_requested_at", Time),
            ("last_seen_at", Time),
            ("is_board_lead", Bool),
            ("wake_attempts", Int),
            ("last_wake_sent_at", Time),
            ("checkin_deadline_at", Time),
            ("last_provision_error", Text),
            ("created_at", Time),
            ("wake_attempts", Int),
            ("checkin_deadline_at", Time),
        ],
        written: &[
            "gateway_id",
            "status",
            "openclaw_session_id",
            "agent_token_hash",
            "last_provision_error",
            "last_seen_at",
            "wake_attempts",
            "last_wake_sent_at",
            "checkin_deadline_at",
        ],
    },
    Table {
        name: "users",
        columns: &[
            ("id", Uuid),
            ("email", Text),
            ("name", Text),
            ("preferred_name", Text),
            ("pronouns", Text),
            ("timezone", Text),
            ("notes", Text),
            ("context", Text),
        ],
        written: &[],
    },
    Table {
        name: "organization_members",
        columns: &[
            ("id", Uuid),
            ("organization_id", Uuid),
            ("user_id", Uuid),
            ("role", Text),
            ("created_at", Time),
        ],
        written: &[],
    },
    Table {
        name: "board_memory",
        columns: &[
            ("id", Uuid),
            ("board_id", Uuid),
            ("content", Text),
            ("is_chat", Bool),
            ("created_at", Time),
        ],
        written: &[],
    },
];

/// What stands in the way of the migrations, one line per object, each with what to do; empty if nothing does.
pub(super) async fn obstacles(conn: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let mut found = database(conn).await?;
    if !found.is_empty() {
        return Ok(found);
    }
    let mut present = Vec::new();
    let mut absent = Vec::new();
    for table in &TABLES {
        match relation(conn, table.name).await? {
            Some(relation) => present.push((table, relation)),
            None => absent.push(table.name),
        }
    }
    let organizations = relation(conn, "organizations").await?;
    let alembic = relation(conn, "alembic_version").await?;
    if present.is_empty() && organizations.is_none() && alembic.is_none() {
        return empty_database(conn).await;
    }

    for name in absent {
        let mut line = format!("table {name} is missing, though others of the same program are there");
        line.push_str(if alembic.is_some() {
            ": let that program run its own migrations first"
        } else {
            ": give this program an empty database, or one of a complete installation"
        });
        found.push(line);
    }
    for (table, relation) in present {
        if relation.kind != "table" {
            found.push(format!(
                "{} is a {}, a table is needed: rename it, or use another database",
                table.name, relation.kind
            ));
            continue;
        }
        found.extend(columns(conn, table).await?);
        found.extend(privileges(conn, table).await?);
    }
    Ok(found)
}

/// The database itself, and our right to make a schema in it.
async fn database(conn: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let (encoding, standby, version, schema_there, may_create): (String, bool, i32, bool, bool) = sqlx::query_as(
        "SELECT current_setting('server_encoding'), pg_is_in_recovery(), current_setting('server_version_num')::integer,
                to_regnamespace($1) IS NOT NULL,
                CASE WHEN to_regnamespace($1) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                     ELSE has_schema_privilege($1, 'CREATE') END",
    )
    .bind(SCHEMA)
    .fetch_one(&mut *conn)
    .await?;
    let mut found = Vec::new();
    if encoding != "UTF8" {
        found.push(format!(
            "the database's encoding is {encoding}: create it with ENCODING 'UTF8'"
        ));
    }
    if standby {
        found.push("the server is a read-only standby: connect to the primary".to_owned());
    }
    // Triggers with transition tables and EXECUTE FUNCTION: Postgres 11; nothing older than 13 is tested or supported.
    if version < 130_000 {
        found.push("the server is older than Postgres 13: upgrade it".to_owned());
    }
    if !may_create {
        found.push(if schema_there {
            format!("schema {SCHEMA}: this role may not create tables in it: run migrate as its owner, or grant CREATE on it")
        } else {
            format!("schema {SCHEMA} cannot be created: grant this role CREATE on the database")
        });
    }
    Ok(found)
}

struct Relation {
    kind: String,
}

/// The relation that this name stands for on the search path.
async fn relation(conn: &mut PgConnection, name: &str) -> Result<Option<Relation>, StoreError> {
    let kind: Option<String> = sqlx::query_scalar(
        "SELECT CASE relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
                     WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence'
                     WHEN 'c' THEN 'composite type' ELSE 'index' END
           FROM pg_class WHERE oid = to_regclass($1)",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await?;
    Ok(kind.map(|kind| Relation { kind }))
}

/// What stands in the way of creating all tables.
async fn empty_database(conn: &mut PgConnection) -> Result<Vec<String>, StoreError> {
    let (schema, may_create): (Option<String>, bool) = sqlx::query_as(
        "SELECT current_schema()::text, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)",
    )
    .fetch_one(&mut *conn)
    .await?;
    let Some(schema) = schema else {
        return Ok(vec![
            "no schema of the search path exists: create one, or set the role's search_path".to_owned(),
        ]);
    };
    if !may_create {
        return Ok(vec![format!(
            "schema {schema}: this role may not create tables in it: grant it CREATE on the schema"
        )]);
    }
    // A table brings a type of its name with it.
    let mut names: Vec<&str> = TABLES.iter().map(|table| table.name).collect();
    names.push("organizations");
    let types: Vec<String> = sqlx::query_scalar(
        "SELECT typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
          WHERE n.nspname = current_schema() AND typname = ANY ($1)",
    )
    .bind(&names)
    .fetch_all(&mut *conn)
    .await?;
    Ok(types
        .into_iter()
        .map(|name| format!("{name} is a type, a table is needed: rename it, or use another database"))
        .collect())
}

async fn columns(conn: &mut PgConnection, table: &Table) -> Result<Vec<String>, StoreError> {
    let present: Vec<(String, String)> = sqlx::query_as(
        "SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute
          WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
    )
    .bind(table.name)
    .fetch_all(&mut *conn)
    .await?;
    let mut found = Vec::new();
    for (column, kind) in table.columns {
        let Some((_, actual)) = present.iter().find(|(name, _)| name == column) else {
            found.push(format!(
                "column {}.{column} is missing: is this database of a version that this program knows?",
                table.name
            ));
            continue;
        };
        if !kind.names().contains(&actual.as_str()) {
            let mut line = format!("column {}.{column} is of type {actual}", table.name);
            let _ = write!(line, ", needed is {}: change it back", kind.names().join(" or "));
            found.push(line);
        }
    }
    Ok(found)
}

async fn privileges(conn: &mut PgConnection, table: &Table) -> Result<Vec<String>, StoreError> {
    let (selects, triggers, hidden): (bool, bool, bool) = sqlx::query_as(
        "SELECT has_table_privilege(oid, 'SELECT'), has_table_privilege(oid, 'TRIGGER'), row_security_active(oid)
           FROM (SELECT to_regclass($1)::oid AS oid) t",
    )
    .bind(table.name)
    .fetch_one(&mut *conn)
    .await?;
    let mut found = Vec::new();
    let name = table.name;
    if !selects {
        found.push(format!(
            "table {name}: this role may not read it: GRANT SELECT ON {name} to it"
        ));
    }
    if !triggers {
        found.push(format!(
            "table {name}: this role may not add triggers: GRANT TRIGGER ON {name} to it"
        ));
    }
    if hidden {
        found.push(format!(
            "table {name}: row security hides rows from this role: grant it BYPASSRLS"
        ));
    }
    for column in table.written {
        let may: Option<bool> = sqlx::query_scalar(
            "SELECT has_column_privilege(attrelid, attnum, 'UPDATE') FROM pg_attribute
              WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
        )
        .bind(name)
        .bind(column)
        .fetch_optional(&mut *conn)
        .await?;
        if may == Some(false) {
            found.push(format!(
                "column {name}.{column}: this role may not write it: GRANT UPDATE ({column}) ON {name} to it"
            ));
        }
    }
    Ok(found)
}
