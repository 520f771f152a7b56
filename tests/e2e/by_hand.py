"""Daemons that a test starts one by one, without `baton up`."""

import contextlib
import os
import re
import signal
import subprocess
import time

from conftest import BIN, MODEL, run_baton

DAEMONS = {"router": "baton-router", "prefill": "baton-prefilld", "decode": "baton-decoded"}
ROLES = list(DAEMONS)


def keygen(path):
    """Writes a key pair as an operator would and returns the public key."""
    text = run_baton("keygen").stdout
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    return re.match(r"public=(\S+)\nsecret=\S+\n$", text).group(1)


class Daemon:
    """A daemon started from a configuration file; its log goes to a file."""

    def __init__(self, folder, role, lines):
        config = folder / f"{role}.conf"
        config.write_text("\n".join([f"# {role}", f"[{role}]", *(f"{k}={v}" for k, v in lines.items())]) + "\n")
        self.log = folder / f"{role}.log"
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([str(BIN / DAEMONS[role]), "--config", str(config)], stderr=log,
                                            stdin=subprocess.DEVNULL)

    def wait_log(self, pattern, seconds=20):
        deadline = time.monotonic() + seconds
        while True:
            text = self.log.read_text()
            match = re.search(pattern, text)
            if match:
                return match
            assert self.process.poll() is None and time.monotonic() < deadline, f"no '{pattern}' in\n{text}"
            time.sleep(0.02)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def by_hand(folder, keys=None, known=ROLES, settings=None):
    """Router, decode and prefill daemon, each from its own file. keys: folder of key files, or None. settings: {"role.key": value}. Yields the HTTP port and the three."""
    common = {role: {"model": MODEL} for role in ROLES}
    for key, value in (settings or {}).items():
        role, _, name = key.partition(".")
        common[role][name] = value
    if keys is not None:
        public = {role: keygen(keys / f"{role}.key") for role in ROLES}
        (keys / "known").write_text("".join(f"{public[r]} {r} {r}-of-test\n" for r in known))
        for role in ROLES:
            common[role].update(key_file=keys / f"{role}.key", keys_file=keys / "known")
            if role != "router":
                common[role]["router_key"] = public["router"]
    daemons = []
    try:
        router = Daemon(folder, "router", {**common["router"], "http_listen": "127.0.0.1:0"})
        daemons.append(router)
        match = router.wait_log(r"http://127\.0\.0\.1:(\d+), control (tcp://\S+),")
        for role in ("decode", "prefill"):
            daemons.append(Daemon(folder, role, {**common[role], "router": match.group(2), "net_devices": "lo"}))
        yield int(match.group(1)), daemons
    finally:
        for daemon in daemons:
            daemon.process.kill()
            daemon.process.wait()
