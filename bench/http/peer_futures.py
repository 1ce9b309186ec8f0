# The bench cold.lua for requests-futures: N GETs at once over a session that is new, on two
# threads.
#
#   peer_futures.py URL N RUNS

import sys
import time

from requests_futures.sessions import FuturesSession

url, n, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

cpu = time.process_time()
for _ in range(runs):
    with FuturesSession(max_workers=2) as session:
        for future in [session.get(url) for _ in range(n)]:
            response = future.result()
            assert response.status_code == 200 and response.content, "a wrong answer"
cpu = time.process_time() - cpu
print(f"bench=http_futures n={n} runs={runs} cpu_ms={cpu * 1e3 / runs:.3f}")
