"""A WebSocket server for specs, on Debian's python3-websockets: see websockets.lua.

The path says what it does. What it saw of each connection it writes to the file
"seen", a line of JSON when the connection has ended.
"""

import asyncio
import http
import json
import logging
import ssl
import sys

import websockets

try:  # since 13; what was before ends with 14 at the latest
    from websockets.asyncio.server import serve
    from websockets.datastructures import Headers
    from websockets.http11 import Response
except ImportError:
    from websockets import serve
    Response = None

CHUNK = 1000


def path_of(ws):
    return ws.request.path if Response else ws.path


def headers_of(ws):
    return ws.request.headers if Response else ws.request_headers


async def echo(ws):
    async for message in ws:
        await ws.send(message)


async def fragments(ws):
    """Each message comes back in pieces, with a ping between."""
    async for message in ws:
        pieces = [message[i : i + CHUNK] for i in range(0, len(message), CHUNK)] or [message]
        for piece in pieces[:-1]:
            await ws.ping()

        async def generate():
            for piece in pieces:
                yield piece
                await ws.ping()

        await ws.send(generate())


async def close(ws, status="1000", *reason):
    await ws.close(int(status), "/".join(reason))


async def abort(ws):
    """Ends the connection without a word."""
    ws.transport.abort()


async def flood(ws, count, size):
    """Sends many messages; then how many it has sent."""
    for i in range(int(count)):
        await ws.send(("%08d" % i) + "x" * (int(size) - 8))
    await ws.close()


async def slow(ws, seconds):
    """Reads nothing for a while, then echoes."""
    ws.transport.pause_reading()
    await asyncio.sleep(float(seconds))
    ws.transport.resume_reading()
    await echo(ws)


async def mute(ws):
    """Takes nothing, answers nothing: not even a ping."""
    ws.transport.pause_reading()
    await asyncio.sleep(3600)


async def pings(ws, count):
    """Pings; says what the pongs were."""
    waiters = [await ws.ping("ping %d" % i) for i in range(int(count))]
    await asyncio.gather(*waiters)
    await ws.send("pongs: %d" % len(waiters))
    await echo(ws)


async def headers(ws):
    await ws.send(json.dumps(dict(headers_of(ws).raw_items())))


async def collect(ws):
    """Says the size and kind of each message."""
    async for message in ws:
        await ws.send("%s %d" % (type(message).__name__, len(message)))


HANDLERS = {f.__name__: f for f in
            (echo, fragments, close, abort, flood, slow, mute, pings, headers, collect)}


async def handle(ws):
    name, *arguments = path_of(ws).split("?")[0].strip("/").split("/")
    try:
        await HANDLERS[name or "echo"](ws, *arguments)
    except websockets.ConnectionClosed:
        pass
    finally:
        try:
            await asyncio.wait_for(ws.wait_closed(), 15)
        except asyncio.TimeoutError:
            pass
        with open("seen", "a") as seen:
            print(json.dumps({"path": path_of(ws), "code": ws.close_code, "reason": ws.close_reason}),
                  file=seen)


async def before(path, request_headers):
    """What is answered instead of a handshake: status, headers, body."""
    path = path.split("?")[0]
    if path.startswith("/status/"):
        status = http.HTTPStatus(int(path.split("/")[2]))
        return status, {"Location": "/echo", "X-Why": "because"}, b"no\n"
    if path == "/basic" and request_headers.get("Authorization") != "Basic bWU6czpjcmV0":
        return http.HTTPStatus.UNAUTHORIZED, {"WWW-Authenticate": "Basic"}, b""
    if path.startswith("/late/"):
        await asyncio.sleep(float(path.split("/")[2]))
    return None


async def before_since_13(ws, request):
    answer = await before(request.path, request.headers)
    if not answer:
        return None
    status, headers, body = answer
    headers = Headers(**headers, **{"Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


PROTOCOLS = ["chat.v2", "chat.v1"]


def select_since_13(ws, offered):
    return next((name for name in PROTOCOLS if name in offered), None)


HANDLERS["basic"] = echo
HANDLERS["late"] = lambda ws, *_: echo(ws)


async def main(tls):
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain("server.pem", "server.key")
    if Response:
        hooks = {"process_request": before_since_13, "select_subprotocol": select_since_13}
    else:
        hooks = {"process_request": before}
    server = await serve(
        handle, "127.0.0.1", 0, ssl=context, compression=None, subprotocols=PROTOCOLS,
        max_size=64 << 20, ping_interval=None, close_timeout=2, **hooks)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Future()


asyncio.run(main(sys.argv[1] == "tls"))
