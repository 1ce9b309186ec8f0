# The HTTP benches for aiohttp.
#
#   peer_aiohttp.py [--uvloop] many URL N C BYTES     N GETs, C at once, connections kept
#   peer_aiohttp.py [--uvloop] cold URL N RUNS        N GETs at once over a session that is new

import asyncio
import sys
import time

import aiohttp

arguments = sys.argv[1:]
if arguments[0] == "--uvloop":
    import uvloop
    uvloop.install()
    arguments.pop(0)
what, url, *numbers = arguments
numbers = [int(n) for n in numbers]


async def get(session):
    async with session.get(url) as response:
        assert response.status == 200, "a wrong answer"
        return len(await response.read())


async def many(n, c, size):
    left = n

    async def worker():
        nonlocal left
        while left > 0:
            left -= 1
            assert await get(session) == size, "a wrong answer"

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=c)) as session:
        await get(session)
        wall, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*[worker() for _ in range(c)])
        wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"bench=http_aiohttp n={n} c={c} cpu_us={cpu * 1e6 / n:.2f} req_s={n / wall:.0f}")


async def cold(n):
    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[get(session) for _ in range(n)])


if what == "many":
    asyncio.run(many(*numbers))
else:
    n, runs = numbers
    cpu = time.process_time()
    for _ in range(runs):
        asyncio.run(cold(n))
    cpu = time.process_time() - cpu
    print(f"bench=http_aiohttp n={n} runs={runs} cpu_ms={cpu * 1e3 / runs:.3f}")
