# The program behind misbehave.lua: an HTTP server whose paths are faults. It writes its
# ports to the file `ports`, and to the file `faults` one line when a fault happens,
# "CLOCK_MONOTONIC name", and one when a connection is made or gone, "+ NUMBER" and "- NUMBER".

import gzip
import os
import random
import re
import select
import socket
import struct
import threading
import time

faults = {}
lock = threading.Lock()
record = open("faults", "w", buffering=1)


def write(line):
    with lock:
        record.write(line + "\n")


class Gone(Exception):
    """The client has closed the connection."""


class Peer:
    def __init__(self, sock, number):
        self.sock, self.number, self.served, self.buffer = sock, number, 0, b""

    def send(self, data):
        self.sock.sendall(data)

    def happens(self, name):
        write("%.6f %s" % (time.monotonic(), name))

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # Waits until the client goes; what it sends meanwhile is dropped.
    def hold(self, seconds=60):
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0:
                return
            if select.select([self.sock], [], [], left)[0] and not self.sock.recv(65536):
                raise Gone

    # Sends byte by byte, slowly, until the client goes.
    def dribble(self, data):
        for i in range(len(data)):
            self.send(data[i:i + 1])
            self.hold(0.02)

    def read_head(self):
        while b"\r\n\r\n" not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise Gone
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        return head.decode("latin-1")

    # Reads a body that has a length.
    def read_body(self, head):
        length = 0
        for line in head.split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
        while len(self.buffer) < length:
            data = self.sock.recv(65536)
            if not data:
                raise Gone
            self.buffer += data
        self.buffer = self.buffer[length:]


def answer(body, more=b"", status=b"200 OK"):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), more, body)


# A fault function gets the peer and its argument; the connection is closed after it,
# unless it returns True.
def fault(name):
    def add(f):
        faults[name] = f
        return f
    return add


# What is sent, after which the connection is closed: both may be the fault.
def sends(name, data):
    def f(peer, _):
        peer.happens(name)
        peer.send(data)
        peer.happens(name)
    faults[name] = f


# What is sent, after which the connection stays: nothing more comes.
def sends_and_holds(name, data):
    def f(peer, _):
        peer.happens(name)
        peer.send(data)
        peer.hold()
    faults[name] = f


# A whole answer, if an odd one, after which the connection serves on.
def answers(name, data):
    def f(peer, _):
        peer.happens(name)
        peer.send(data)
        return True
    faults[name] = f


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

sends("close", b"")
sends("close-in-head", b"HTTP/1.1 200 OK\r\nContent-Le")
sends("close-after-interim", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
sends("short", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
sends("chunk-cut", CHUNKED + b"5\r\nhel")
sends("chunks-without-end", CHUNKED + b"5\r\nhello\r\n")
sends("garbage", b"SMTP at your service\r\n\r\n")
sends("posing", b"HTTP/2 200 OK\r\nContent-Length: 3\r\n\r\nabc")
sends("binary", bytes(range(256)) * 16)
sends("http-0.9", b"<html>hello</html>\n")
sends("no-status", b"HTTP/1.1\r\n\r\n")
sends("odd-status", b"HTTP/1.1 99999 What\r\nContent-Length: 0\r\n\r\n")
sends("two-lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 50\r\n\r\nhello")
sends("length-and-chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" + CHUNKED[17:]
      + b"7\r\nchunked\r\n0\r\n\r\n")
sends("gzip-cut", answer(gzip.compress(os.urandom(5000))[:1000], b"Content-Encoding: gzip\r\n"))
sends("early", answer(b"no\n", b"Connection: close\r\n", b"413 Content Too Large"))

sends_and_holds("stall-in-head", b"HTTP/1.1 200 OK\r\nContent-Le")
sends_and_holds("stall", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + b"x" * 10)
sends_and_holds("never", b"")
sends_and_holds("bad-chunk", CHUNKED + b"nonsense\r\nhello\r\n0\r\n\r\n")
sends_and_holds("bad-chunk-end", CHUNKED + b"5\r\nhelloworld\r\n0\r\n\r\n")
sends_and_holds("huge-chunk", CHUNKED + b"f" * 40 + b"\r\nhello\r\n0\r\n\r\n")
sends_and_holds("bad-length", b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello")
sends_and_holds("negative-length", b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello")
sends_and_holds("huge-length", b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\nhello")
answers("bad-gzip", answer(b"this is no gzip", b"Content-Encoding: gzip\r\n"))
answers("nul-in-header", answer(b"hello", b"X-Nul: a\0b\r\n"))
answers("no-colon", answer(b"hello", b"X-Odd\r\n: nameless\r\n"))
answers("folded", answer(b"hello", b"X-Folded: one\r\n two\r\n\tthree\r\n"))
FOLDED_FIRST = b" " + b"x" * 200 + b": y\r\nContent-Length: 5\r\n\r\nhello"
answers("folded-first", b"HTTP/1.1 200 OK\r\n" + FOLDED_FIRST)
answers("folded-after-interim", b"HTTP/1.1 103 Early Hints\r\n\r\nhttp/1.1 200 OK\r\n" + FOLDED_FIRST)
answers("bare-newlines", b"HTTP/1.1 200 OK\nContent-Length: 5\nX-A: b\n\nhello")
answers("redirect-bad", answer(b"", b"Location: http://[bad/\r\n", b"302 Found"))
answers("redirect-file", answer(b"", b"Location: file:///etc/passwd\r\n", b"302 Found"))
answers("redirect-nowhere", answer(b"", b"", b"302 Found"))
answers("huge-header", answer(b"hello", b"X-Huge: " + b"x" * 1000000 + b"\r\n"))


@fault("ok")
def ok(peer, _):
    peer.send(answer(b"ok\n"))
    return True


@fault("reset")
def reset(peer, _):
    peer.happens("reset")
    peer.reset()


@fault("reset-in-body")
def reset_in_body(peer, _):
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 100)
    peer.hold(0.05)  # so that the bytes are not thrown away with the reset
    peer.happens("reset-in-body")
    peer.reset()


# More than Content-Length says. What follows must not be taken for the next answer.
@fault("long")
def long(peer, _):
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + answer(b"not yours"))
    return True


@fault("body-of-204")
def body_of_204(peer, _):
    peer.send(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot yours")
    return True


@fault("slow-head")
def slow_head(peer, _):
    peer.happens("slow-head")
    peer.dribble(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 5000)


@fault("slow-body")
def slow_body(peer, _):
    peer.happens("slow-body")
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    peer.dribble(b"x" * 5000)


@fault("endless-headers")
def endless_headers(peer, _):
    peer.happens("endless-headers")
    peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.send(b"X-More: " + b"x" * 1000 + b"\r\n")


@fault("endless-body")
def endless_body(peer, _):
    peer.happens("endless-body")
    peer.send(CHUNKED)
    while True:
        peer.send(b"400\r\n" + b"x" * 1024 + b"\r\n")


@fault("flood")  # of interim answers: /flood/100 or /flood/103
def flood(peer, code):
    peer.happens("flood")
    while True:
        peer.send(b"HTTP/1.1 %d Wait\r\nX-Wait: 1\r\n\r\n" % int(code or 100))


# /interim/N: N interim answers, then one that counts.
@fault("interim")
def interim(peer, n):
    peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * int(n or 1) + answer(b"ok\n"))
    return True


@fault("gzip-bomb")
def gzip_bomb(peer, _):
    peer.happens("gzip-bomb")
    peer.send(answer(gzip.compress(bytes(50000000)), b"Content-Encoding: gzip\r\n"))
    return True


# /keep/N answers, and closes the connection after its Nth request without a word.
@fault("keep")
def keep(peer, n):
    peer.send(answer(b"%d %d\n" % (peer.number, peer.served)))
    return peer.served < int(n or 1)


SEEDS = [
    answer(b"hello", b"Set-Cookie: a=b; Path=/\r\nX-Folded: one\r\n two\r\n"),
    answer(gzip.compress(b"hello" * 100, mtime=0), b"Content-Encoding: gzip\r\n"),
    CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer(b"hello", b"Connection: close\r\n"),
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"", b"Location: /ok\r\n", b"302 Found"),
    b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n",
    answer(b"[1, 2]", b"Content-Type: application/json; charset=utf-8\r\n", b"404 Not Found"),
]


def mutate(rnd, data):
    data = bytearray(data)
    for _ in range(rnd.choice((0, 1, 1, 2, 3, 8))):
        if not data:
            break
        at = rnd.randrange(len(data))
        to = at + rnd.randrange(min(20, len(data) - at) + 1)
        what = rnd.randrange(6)
        if what == 0:
            data[at] = rnd.randrange(256)
        elif what == 1:
            del data[at:to]
        elif what == 2:
            data[at:at] = data[at:to] * rnd.choice((1, 2, 50))
        elif what == 3:
            data[at:at] = rnd.choice((b"\r\n", b"\n", b"\0", b":", b" ", b"0", b"-1", b"f" * 20,
                                      b"HTTP/1.1 200 OK\r\n", b"\r\n\r\n", bytes(300)))
        elif what == 4:
            del data[to:]
        else:
            data[at] ^= 1 << rnd.randrange(8)
    return bytes(data)


# /random/SEED: an answer with a few mistakes, the same for the same seed.
# /random/SEED/pieces sends it in several.
@fault("random")
def anything(peer, argument):
    seed, _, pieces = argument.partition("/")
    rnd = random.Random(int(seed))
    # libcurl before 8 takes this for HTTP/2, and has other requests share the connection.
    data = re.sub(b"HTTP/[23]", b"HTTP/1", mutate(rnd, rnd.choice(SEEDS)))
    while data:
        n = rnd.choice((1, 10, 100)) if pieces else len(data)
        peer.send(data[:n])
        data = data[n:]
    peer.sock.shutdown(socket.SHUT_WR)  # a close would answer the next request with a reset
    peer.hold()


# Reads the head of an upload and for some time nothing of its body. Then it does: what is
# unread stands before the end of the connection.
@fault("deaf")
def deaf(peer, _):
    peer.happens("deaf")
    time.sleep(1.5)
    peer.hold()


# Takes the head of an upload and resets in its midst.
@fault("reset-upload")
def reset_upload(peer, _):
    peer.sock.recv(1000)
    peer.happens("reset-upload")
    peer.reset()


READS_NO_BODY = {"deaf", "early", "reset-upload"}


def serve(peer):
    while True:
        head = peer.read_head()
        path = head.split(" ")[1].split("?")[0].strip("/")
        name, _, argument = path.partition("/")
        if name not in READS_NO_BODY:
            peer.read_body(head)
        peer.served += 1
        if name not in faults:
            peer.send(answer(b"no such fault\n", b"", b"404 Not Found"))
        elif not faults[name](peer, argument):
            return


def serve_and_close(peer, f):
    write("+ %d" % peer.number)
    try:
        f(peer)
    except (OSError, Gone):
        pass
    write("- %d" % peer.number)
    peer.sock.close()


def listen(backlog=1000):
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(backlog)
    return sock


number = 0


def accept_all(server, f):
    global number
    while True:
        sock, _ = server.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with lock:
            number += 1
            peer = Peer(sock, number)
        threading.Thread(target=serve_and_close, args=(peer, f), daemon=True).start()


def mute(peer):
    peer.happens("mute")
    peer.hold()


def cut(peer):
    peer.sock.recv(65536)
    peer.happens("cut")


def noise(peer):
    peer.sock.recv(65536)
    peer.happens("noise")
    peer.send(b"this is no TLS, whatever you have hoped for\r\n" * 10)
    peer.hold()


# Nobody accepts here, and when its queue is full a connect gets no answer.
full = listen(0)
fillers = []
while True:
    filler = socket.socket()
    filler.setblocking(False)
    filler.connect_ex(full.getsockname())
    if not select.select([], [filler], [], 0.05)[1]:
        filler.close()
        break
    fillers.append(filler)

ports = {"full": full.getsockname()[1]}
for name, f in {"main": serve, "mute": mute, "cut": cut, "noise": noise}.items():
    server = listen()
    ports[name] = server.getsockname()[1]
    threading.Thread(target=accept_all, args=(server, f), daemon=True).start()
with open("ports.new", "w") as file:
    for name, port in ports.items():
        file.write("%s %d\n" % (name, port))
os.rename("ports.new", "ports")
threading.Event().wait()
