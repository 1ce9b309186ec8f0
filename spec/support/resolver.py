# The program behind resolver.lua: a DNS server on port 53 of some 127.x.y.z. It writes that
# address to the file `address` and the names it is asked for to the file `asked`.

import os
import random
import socket
import struct
import threading
import time

LOCALHOST = socket.inet_aton("127.0.0.1")
lock = threading.Lock()


def listen():
    for _ in range(100):
        address = "127.%d.%d.%d" % tuple(random.randint(1, 250) for _ in range(3))
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((address, 53))
            return address, sock
        except PermissionError:
            raise SystemExit("port 53 is not ours to have")
        except OSError:
            sock.close()
    raise SystemExit("no address")


# The name, and where in the packet the question ends.
def read_name(packet):
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1:at + 1 + packet[at]].decode("latin-1"))
        at += packet[at] + 1
    return ".".join(labels).lower(), at + 5


def serve(sock, packet, peer):
    name, end = read_name(packet)
    with lock, open("asked", "a") as file:
        file.write(name + "\n")
    what, _, number = name.split(".")[0].partition("-")
    wants_ipv4 = packet[end - 4:end - 2] == b"\0\1"
    code, answer = 0, b""
    if what == "never":
        return
    if what == "slow":
        time.sleep(int(number or 100) / 1000)
    if what == "broken":
        code = 2
    elif what == "none":
        code = 3
    elif wants_ipv4:
        answer = struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + LOCALHOST
    flags = 0x8180 | code
    counts = struct.pack(">HHHH", 1, 1 if answer else 0, 0, 0)
    sock.sendto(packet[:2] + struct.pack(">H", flags) + counts + packet[12:end] + answer, peer)


address, sock = listen()
open("asked", "w").close()
with open("address.new", "w") as file:
    file.write(address)
os.rename("address.new", "address")
while True:
    packet, peer = sock.recvfrom(4096)
    threading.Thread(target=serve, args=(sock, packet, peer), daemon=True).start()
