//! Postgres: desired state in, status out, leases, notifications, migrations.
