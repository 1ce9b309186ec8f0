#!/bin/sh
# `./dev bench [NAME ...]`: makes the floors, then runs each bench beside its floor.
# Outside ./dev it wants the build's directory in MOONLOOP_BUILD and its paths set.
set -eu
cd "$(dirname "$0")/.."
module=$(lua5.4 -e 'io.write(assert(package.searchpath("moonloop", package.cpath)))')
out=$(dirname "$module")/bench
make -s -C bench OUT="$out"
exec lua5.4 bench/run.lua "$out" "$@"
