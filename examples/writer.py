#!/usr/bin/env python3
"""A writer for VSS in Python's standard library alone.

While a shadow copy is cut it keeps a lock file in place, which its application honours before each write.
Usage: writer.py SOCKET DATA_DIRECTORY LOCK_FILE        for example: writer.py /run/vss/writer /srv/shop /run/shop.hold
"""
import json, pathlib, signal, socket, sys

SOCKET, DATA, LOCK = sys.argv[1:4]
CLASS_ID = "6f1c3f6e-3c7b-4c0a-9d3e-2f6a1b5c7d90"  # make your own with uuidgen and keep it for ever
frozen = set()  # the session that is frozen: what other sessions say meanwhile does not end its hold
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    line.connect(SOCKET)
except OSError as error:
    sys.exit(f"No service at {SOCKET}: {error}")
stream = line.makefile("rb")


def send(message):
    line.sendall(json.dumps(message).encode() + b"\0")


def messages():  # each is JSON and a NUL byte; nothing before the NUL: the service has closed the connection
    while message := b"".join(iter(lambda: stream.read(1) or b"\0", b"\0")):
        yield json.loads(message)


def identify(_):
    return {"components": [{"type": "file_group", "name": "data", "files": [{"path": DATA, "recursive": True}]}]}


def freeze(event):
    open(LOCK, "x").close()  # a real application: wait here until it says that it has seen the lock
    frozen.add(event["session_id"])
    line.settimeout(event["time_left_ms"] / 1000)  # no Thaw within this time: an exception, and the end below
    return {}


def thaw(event=None):
    if event is None or event["session_id"] in frozen:
        frozen.clear()
        line.settimeout(None)
        pathlib.Path(LOCK).unlink(missing_ok=True)
    return {}


HANDLERS = {"Identify": identify, "Freeze": freeze, "Thaw": thaw, "Abort": thaw}  # the others need nothing done
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
send({"method": "org.linuxvss.Writer.Register", "upgrade": True,
      "parameters": {"class_id": CLASS_ID, "name": "python-example", "freeze_timeout_ms": 20000}})
if "error" in (answer := next(messages(), {"error": "the service has gone"})):
    sys.exit(f"refused: {answer}")
try:
    thaw()  # only one of us can be registered: a killed one left it
    for call in messages():
        try:
            send({"parameters": HANDLERS.get(call["method"].rsplit(".", 1)[1], lambda _: {})(call["parameters"])})
        except FileExistsError as error:
            send({"parameters": {"code": "VSS_E_WRITERERROR_RETRYABLE", "message": f"Held by another: {error}"}})
finally:
    thaw()  # whatever ends us: nobody else would
