#!/bin/sh
# The bench many.lua for curl --parallel: CPU time of the whole program.
#
#   peer_curl.sh URL N C        C: at most 300
set -eu
list=$(mktemp)
trap 'rm -f "$list"' EXIT
i=0
while [ $i -lt "$2" ]; do
  printf 'url = "%s"\noutput = /dev/null\n' "$1"
  i=$((i + 1))
done >"$list"
export TIMEFORMAT='%U %S'
spent=$(bash -c 'time curl -s -S -f --parallel --parallel-immediate --parallel-max "$1" -K "$2"' \
  bench "$3" "$list" 2>&1)
echo "$spent" | awk -v n="$2" 'NF == 2 { printf "bench=http_curl n=%d cpu_us=%.2f\n", n,
  ($1 + $2) * 1e6 / n; found = 1 } END { exit !found }'
