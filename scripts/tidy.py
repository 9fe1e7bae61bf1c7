#!/usr/bin/env python3
"""Checks what the compiler does not: the include table of ARCHITECTURE.md, what cores may not touch, file lengths.

Prints one line per finding, "file:line: what"; exit status 1 when there is any.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder -> folders whose headers it may include besides its own (ARCHITECTURE.md, "Rooms").
MAY_USE = {
    "base": set(),
    "crypto": {"base"},
    "net": {"crypto", "base"},
    "agreement": {"net", "crypto", "base"},
    "execution": {"net", "crypto", "base", "agreement"},
    "vmpool": {"net", "crypto", "base", "agreement"},
    "client": {"net", "crypto", "base", "agreement"},
    "apps": {"base", "crypto", "net", "agreement", "execution", "vmpool", "client"},
}
# What execution, vmpool and client may use of agreement: the messages, their encodings, the slot table that the order
# defines, and the rules of checkpoints; never its cores or driver.
SHARED_OF_AGREEMENT = {
    "agreement/messages.hpp", "agreement/codec.hpp", "agreement/agent_link.hpp", "agreement/slot_table.hpp",
    "agreement/checkpoint_clock.hpp", "agreement/certificates.hpp",
}

# What agreement may use of execution: what the state that it certifies is made of.
SHARED_OF_EXECUTION = "execution/state/parts.hpp"

# Cores: no clock, socket, disk, thread, randomness, wire format or logger.
CORES = [
    "agreement/evidence_book", "agreement/state_evidence",
    "agreement/replica", "agreement/request_table", "agreement/slot_log", "agreement/oversight", "agreement/vote_book",
    "agreement/slot_table", "agreement/epoch_rules", "agreement/suspect_book", "agreement/reply_book", "agreement/order_log",
    "agreement/authority", "agreement/view_change", "agreement/log_record", "agreement/proposal_history",
    "agreement/checkpoint_book", "agreement/catch_up", "agreement/primary_watch", "agreement/vouch_book",
    "agreement/service_instance", "agreement/messages", "agreement/certificates", "execution/executor",
    "execution/session_table", "execution/body_log", "execution/slot_state", "execution/slot_layout",
    "execution/order_window", "execution/epoch_table", "execution/statefs/file_system",
    "execution/state_fetcher", "execution/state_messages", "execution/state_source", "agreement/state_relay",
    "execution/statefs/file_data", "execution/statefs/directory", "execution/statefs/layout",
    "execution/statefs/transaction", "vmpool/pool", "vmpool/ballots", "client/session",
]
CORE_BANS = [
    (re.compile(r"#include <(boost/|capnp/|kj/|spdlog/|rocksdb/|libvirt/|thread|mutex|random|fstream|sys/|unistd)"),
     "a core may not include this"),
    (re.compile(r"steady_clock|system_clock|random_device|getenv|std::thread|std::mutex"), "a core may not use this"),
    (re.compile(r"\b(double|float)\b"), "no floating point in a core"),
]
LINE_LIMIT = 120
FILE_LIMIT = 600


def files():
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.cpp", "*.hpp"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    return sorted(path for path in listed if (ROOT / path).exists())


def check_includes(path, number, line):
    room = path.split("/")[0]
    match = re.match(r'#include "([^"]+)"', line)
    if not match or room not in MAY_USE:
        return
    target = match.group(1)
    other = target.split("/")[0]
    if target.endswith(".capnp.h"):
        if not path.startswith("agreement/codec_"):
            yield f"{path}:{number}: generated code is for the codec only"
        return
    if (path, target) == ("apps/sim_command.cpp", "tests/sim/run.hpp"):
        return  # the simulator is a part of the program
    if (room, target) == ("agreement", SHARED_OF_EXECUTION):
        return
    if other != room and other not in MAY_USE[room]:
        yield f"{path}:{number}: {room}/ may not include {target}"
    elif room in ("execution", "vmpool", "client") and other == "agreement" and target not in SHARED_OF_AGREEMENT:
        yield f"{path}:{number}: {room}/ may use agreement's messages only, not {target}"


def check(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = text.split("\n")
    is_core = any(path.rsplit(".", 1)[0] == core or path.startswith(core + "_") for core in CORES)
    if path.endswith(".hpp") and "#pragma once" not in text:
        yield f"{path}:1: header without #pragma once"
    if len(lines) > FILE_LIMIT + 1 and not path.startswith("tests/"):
        yield f"{path}:{len(lines)}: longer than {FILE_LIMIT} lines: look for the second thing it does"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_LIMIT:
            yield f"{path}:{number}: line longer than {LINE_LIMIT}"
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield f"{path}:{number}: unfinished mark"
        yield from check_includes(path, number, line)
        if is_core:
            code = line.split("//")[0]
            for pattern, why in CORE_BANS:
                if pattern.search(code):
                    yield f"{path}:{number}: {why}: {line.strip()}"


def main():
    findings = [finding for path in files() for finding in check(path)]
    print("\n".join(findings) if findings else "scripts/tidy.py: nothing to complain about")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
