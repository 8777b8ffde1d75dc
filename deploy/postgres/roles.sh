#!/bin/sh
# usage: roles.sh
#
# Makes the roles of role.sql and sets their passwords from OWNER_PASSWORD and DAEMON_PASSWORD; to be run before the migration and
# after it, like role.sql. The database is that of PGHOST, PGUSER, PGPASSWORD, PGDATABASE.
set -eu

: "${OWNER_PASSWORD:?}" "${DAEMON_PASSWORD:?}"
psql -X -q -v ON_ERROR_STOP=1 -f "$(dirname "$0")/role.sql"
# From the environment, so that they are no arguments, which everybody on the machine can read.
psql -X -q -v ON_ERROR_STOP=1 <<'SQL'
\getenv owner_password OWNER_PASSWORD
\getenv daemon_password DAEMON_PASSWORD
ALTER ROLE openclaw_controller_owner PASSWORD :'owner_password';
ALTER ROLE openclaw_controller_daemon PASSWORD :'daemon_password';
SQL
