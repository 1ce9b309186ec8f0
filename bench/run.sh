#!/bin/sh
# `./dev bench [NAME ...]`: makes the floors, then runs each bench beside its floor;
# `./dev bench http [CASE ...]`: those of HTTP; `./dev bench embed [CLIENTS ...]`: a C host.
# Outside ./dev it wants the build's directory in MOONLOOP_BUILD and its paths set.
set -eu
cd "$(dirname "$0")/.."
module=$(lua5.4 -e 'io.write(assert(package.searchpath("moonloop", package.cpath)))')
out=$(dirname "$module")/bench
make -s -C bench OUT="$out"
if [ "${1:-}" = http ]; then
  shift
  exec lua5.4 bench/http/run.lua "$out" "$@"
fi
if [ "${1:-}" = embed ]; then
  shift
  make -s -C bench OUT="$out" embed
  exec lua5.4 bench/embed/run.lua "$out" "$@"
fi
lua5.4 bench/run.lua "$out" "$@"
[ $# != 0 ] || exec lua5.4 bench/http/run.lua "$out"
