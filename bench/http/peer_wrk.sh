#!/bin/sh
# The bench many.lua for wrk, which drops bodies: CPU time of the whole program. What it asks a
# second is the server's ceiling.
#
#   peer_wrk.sh URL SECONDS C
set -eu
export TIMEFORMAT='cpu %U %S'
bash -c 'time wrk -t 1 -c "$1" -d "$2s" "$3"' bench "$3" "$2" "$1" 2>&1 |
  awk '/requests in/ { n = $1 } /Requests\/sec/ { rate = $2 } /^cpu/ { spent = $2 + $3 }
    /Non-2xx|Socket errors/ { print; exit 1 }
    END { printf "bench=http_wrk n=%d cpu_us=%.2f req_s=%.0f\n", n, spent * 1e6 / n, rate }'
