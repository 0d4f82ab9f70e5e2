#!/usr/bin/env python3
"""A writer for VSS in Python's standard library alone.

While a shadow copy is cut it keeps a lock file in place, which its application honours before each write.
Usage: writer.py SOCKET DATA_DIRECTORY LOCK_FILE        for example: writer.py /run/vss/writer /srv/shop /run/shop.hold
"""
import json, os, socket, sys

SOCKET, DATA, LOCK = sys.argv[1:4]
CLASS_ID = "6f1c3f6e-3c7b-4c0a-9d3e-2f6a1b5c7d90"  # yours: make one with uuidgen and keep it for ever


def identify(_):
    return {"components": [{"type": "file_group", "name": "data", "files": [{"path": DATA, "recursive": True}]}]}


def freeze(event):
    open(LOCK, "x").close()  # an exception is a failure: Abort follows
    # A real application: wait here until it says that it has seen the lock; at most event["time_left_ms"].
    return {}


def thaw(_):
    if os.path.exists(LOCK):
        os.unlink(LOCK)
    return {}


def nothing(_):
    return {}


EVENTS = {"Identify": identify, "PrepareBackup": nothing, "PrepareSnapshot": nothing, "Freeze": freeze, "Thaw": thaw,
          "PostSnapshot": nothing, "Abort": thaw, "BackupComplete": nothing, "BackupShutdown": nothing}

line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
line.connect(SOCKET)
stream = line.makefile("rb")


def send(message):
    line.sendall(json.dumps(message).encode() + b"\0")


def messages():
    while message := b"".join(iter(lambda: stream.read(1) or b"\0", b"\0")):
        yield json.loads(message)


try:
    send({"method": "org.linuxvss.Writer.Register", "upgrade": True,
          "parameters": {"class_id": CLASS_ID, "name": "python-example", "freeze_timeout_ms": 20000}})
    for message in messages():
        if "method" not in message:  # the answer to Register
            print("registered" if "error" not in message else message, flush=True)
            continue
        name = message["method"].rsplit(".", 1)[1]
        try:
            send({"parameters": EVENTS[name](message["parameters"])})
        except Exception as error:
            send({"parameters": {"code": "VSS_E_WRITERERROR_NONRETRYABLE", "message": str(error)}})
finally:
    thaw(None)  # the service is gone: nobody else would
