#!/usr/bin/env python3
"""A requester for VSS in Python's standard library alone: copies a directory as it was at one instant.

Usage: requester.py SOCKET SOURCE TARGET        for example: requester.py /run/vss/requester /srv/shop /backup/shop
"""
import json, pathlib, shutil, socket, sys

SOCKET, SOURCE, TARGET = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3])
line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
try:
    line.connect(SOCKET)  # one session; its end, also by our death, tells the writers and deletes the copy
except OSError as error:
    sys.exit(f"No service at {SOCKET}: {error}")
stream = line.makefile("rb")


class Failed(Exception):
    pass


def explain(error):  # {"code" or "name": "VSS_E_...", "message": what happened, "hint": what to do}
    return f"{error.get('message')} ({error.get('name', error.get('code'))}). {error.get('hint', '')}"


def call(method, **parameters):
    message = {"method": f"org.linuxvss.Requester.{method}", "parameters": parameters}
    line.sendall(json.dumps(message).encode() + b"\0")
    answer = json.loads(b"".join(iter(lambda: stream.read(1) or b"\0", b"\0")) or b'{"error": "the service has gone"}')
    if "error" in answer:
        raise Failed(explain(answer["parameters"]) if answer.get("parameters") else answer["error"])
    return answer.get("parameters", {})


def operate(method, **parameters):  # what takes time is an operation: Wait tells how far it is
    status = {"state": "pending", "progress": 0, "step": ""}
    operation = call(method, **parameters)["operation_id"]
    while status["state"] == "pending":
        before = status["step"]
        status = call("Wait", operation_id=operation, timeout_ms=10000, seen_progress=status["progress"])
        if status["step"] != before:
            print(status["step"], file=sys.stderr)
    if status["state"] != "finished":
        raise Failed(explain(status["error"]) if status.get("error") else status["state"])


def back_up():
    call("InitializeForBackup", requester="requester.py")
    call("SetContext", context="backup")
    call("SetBackupState", state={"backup_type": "full"})
    operate("GatherWriterMetadata")
    call("StartSnapshotSet")  # VSS_E_SNAPSHOT_SET_IN_PROGRESS: another set is being made; try again in a moment
    volume = call("AddToSnapshotSet", volume=str(SOURCE))
    operate("PrepareForBackup")
    operate("DoSnapshotSet", strict=True)  # a writer that fails, fails the set
    print("consistency:", call("GetSnapshotSet")["set"]["consistency"])
    copy = call("ExposeSnapshot", shadow_id=volume["shadow_id"])["path"]
    shutil.copytree(pathlib.Path(copy, volume["inner"]), TARGET, symlinks=True)
    operate("BackupComplete")  # only now may writers truncate their logs
    call("UnexposeSnapshot", shadow_id=volume["shadow_id"])


try:
    back_up()
except (Failed, OSError, shutil.Error) as error:
    sys.exit(str(error))
