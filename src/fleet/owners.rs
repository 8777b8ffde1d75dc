//! Owners of organisations: made where there are none.

use uuid::Uuid;

use super::change::{Cell, Table};
use super::columns::Columns;
use super::diff::Differ;
use super::model::{Nullable, Owner};

impl Differ<'_> {
    /// An owner for an organisation that has none.
    pub(super) fn owner(&mut self, it: &Owner, organization: Uuid, shown: &str, new_id: &mut dyn FnMut(usize) -> Uuid) {
        if it.user.value.trim().is_empty() {
            self.tell(it.user.at, "`user` is not blank");
        }
        let is_user = Cell::Text(Some(it.user.value.clone()));
        let earlier = self.plan.changes.iter().find(|change| {
            change.table == Table::Users
                && change
                    .fields
                    .iter()
                    .any(|field| field.column == "clerk_user_id" && field.to == is_user)
        });
        let known = self
            .rows
            .users
            .get(&it.user.value)
            .copied()
            .or(earlier.map(|change| change.id));
        let user = known.unwrap_or_else(|| {
            let id = new_id(it.key);
            self.user(it, id);
            id
        });
        let mut columns = Columns {
            is_new: true,
            fields: Vec::new(),
        };
        columns.set(
            "organization_id",
            || Cell::Unreadable,
            Some(Cell::Id(Some(organization))),
        );
        columns.set("user_id", || Cell::Unreadable, Some(Cell::Id(Some(user))));
        columns.set("role", || Cell::Unreadable, Some(Cell::Text(Some("owner".to_owned()))));
        columns.default("all_boards_read", Cell::Bool(Some(true)));
        columns.default("all_boards_write", Cell::Bool(Some(true)));
        let name = format!("{shown} / {}", it.user.value);
        // Keys are counted upwards; a membership has none of its own.
        let id = new_id(usize::MAX - it.key);
        self.plan.changes.extend(columns.into_change(Table::Members, id, name));
    }

    fn user(&mut self, it: &Owner, id: Uuid) {
        let mut columns = Columns {
            is_new: true,
            fields: Vec::new(),
        };
        let given = |field: &Nullable<String>| field.as_ref().map(|field| Cell::Text(field.value.clone()));
        columns.set(
            "clerk_user_id",
            || Cell::Unreadable,
            Some(Cell::Text(Some(it.user.value.clone()))),
        );
        for (column, field) in [
            ("email", &it.email),
            ("name", &it.name),
            ("preferred_name", &it.preferred_name),
            ("pronouns", &it.pronouns),
            ("timezone", &it.timezone),
            ("notes", &it.notes),
            ("context", &it.context),
        ] {
            columns.set(column, || Cell::Unreadable, given(field));
        }
        columns.default("is_super_admin", Cell::Bool(Some(false)));
        self.plan
            .changes
            .extend(columns.into_change(Table::Users, id, it.user.value.clone()));
    }
}
