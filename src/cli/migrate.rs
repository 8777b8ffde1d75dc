//! `openclaw-controller migrate`.

use crate::store::Migrated;

/// Migrates, and says what was done.
pub(super) async fn command() -> anyhow::Result<()> {
    let store = super::connect().await?;
    super::out::line(describe(&store.migrate().await?))?;
    Ok(())
}

/// What a migration did, as a sentence.
pub(super) fn describe(done: &Migrated) -> String {
    if done.applied.is_empty() && done.triggers == 0 {
        return "the database is up to date".to_owned();
    }
    let tables = if done.created_tables {
        "created all tables"
    } else {
        "created the schema openclaw_controller beside the existing tables"
    };
    let versions: Vec<_> = done.applied.iter().map(ToString::to_string).collect();
    match versions.as_slice() {
        [] => format!("{} missing notification triggers were created again", done.triggers),
        _ => format!(
            "{tables}; applied migrations {}; {} notification triggers",
            versions.join(", "),
            done.triggers
        ),
    }
}
