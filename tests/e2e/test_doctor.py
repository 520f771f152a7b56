"""`baton doctor`: it finds what is planted, names it and says how to mend it; and finds nothing where nothing is wrong."""

import json
import shutil
import socket


import pytest

from conftest import MODEL, run_baton


def doctor(*args):
    """Exit code and findings."""
    done = run_baton("doctor", "--json", *args, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    levels = [finding["level"] for finding in report["findings"]]
    assert [report[level] for level in ("ok", "warning", "problem")] == \
        [levels.count(level) for level in ("ok", "warning", "problem")]
    assert done.returncode == (1 if report["problem"] else 0)
    for finding in report["findings"]:
        assert (finding["mend"] is None) == (finding["level"] == "ok"), finding
    return report["findings"]


def problems(findings, check):
    return [finding for finding in findings if finding["check"] == check and finding["level"] == "problem"]


@pytest.fixture
def fleet_configs(tmp_path):
    """Configurations and keys of one router, prefill and decode daemon that are right."""
    names = {"router": "router", "prefill": "prefill-0", "decode": "decode-0"}
    keys = {}
    for role, name in names.items():
        pair = run_baton("keygen").stdout
        file = tmp_path / f"{name}.key"
        file.write_text(pair, encoding="utf-8")
        file.chmod(0o600)
        keys[role] = pair.splitlines()[0].removeprefix("public=")
    (tmp_path / "keys").write_text("".join(f"{keys[role]} {role} {name}\n" for role, name in names.items()))
    configs = {}
    for role, name in names.items():
        own = "http_listen=127.0.0.1:0\n" if role == "router" else \
            f"router=tcp://127.0.0.1:9\nrouter_key={keys['router']}\n"
        configs[role] = tmp_path / f"{name}.conf"
        configs[role].write_text(f"[{role}]\nname={name}\nmodel={MODEL}\nkey_file={tmp_path}/{name}.key\n"
                                 f"keys_file={tmp_path}/keys\n{own}", encoding="utf-8")
    return configs


def flags(configs):
    return [arg for file in configs.values() for arg in ("--config", file)]


def edit(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_a_right_fleet_has_no_problem(fleet_configs):
    findings = doctor("--model", MODEL, *flags(fleet_configs))
    assert [finding for finding in findings if finding["level"] == "problem"] == []
    seen = {finding["check"] for finding in findings}
    assert {"machine", "libraries", "transports", "configurations", "keys", "ports", "models"} <= seen
    posix = next(finding for finding in findings if finding["subject"] == "posix")
    assert posix["level"] == "ok" and "posix/memory" in posix["text"] and "GB/s" in posix["text"]
    # Nobody listens on port 9.
    assert [f["level"] for f in findings if "tcp://127.0.0.1:9" in f["text"]] == ["warning", "warning"]


def test_a_wrong_key_in_a_configuration(fleet_configs):
    edit(fleet_configs["decode"], "[decode]\n", "[decode]\nblock_sise=16\n")
    found = problems(doctor(*flags(fleet_configs)), "configurations")
    assert len(found) == 1 and "block_sise" in found[0]["text"] and ":2:" in found[0]["text"]


def test_a_file_that_is_no_configuration(fleet_configs, tmp_path):
    (tmp_path / "notes").write_text("hello\n", encoding="utf-8")
    found = problems(doctor("--config", tmp_path / "notes", "--config", tmp_path / "absent"), "configurations")
    assert ["no section" in found[0]["text"], "No such file" in found[1]["text"]] == [True, True]


def test_keys(fleet_configs, tmp_path):
    secret = tmp_path / "prefill-0.key"
    secret.chmod(0o644)
    found = problems(doctor(*flags(fleet_configs)), "keys")
    assert len(found) == 1 and "prefill-0.key" in found[0]["text"] and "chmod 600" in found[0]["mend"]
    secret.chmod(0o600)
    # The decode daemon is not in the list: the two others would not let it in.
    known = (tmp_path / "keys").read_text(encoding="utf-8")
    line = next(line for line in known.splitlines() if " decode " in line)
    edit(tmp_path / "keys", line + "\n", "")
    found = problems(doctor(*flags(fleet_configs)), "keys")
    assert sorted(finding["subject"] for finding in found) == ["prefill-0", "router"]
    assert all(line in finding["mend"] for finding in found)
    # In the list, under another role.
    (tmp_path / "keys").write_text(known.replace(" decode ", " prefill "), encoding="utf-8")
    found = problems(doctor(*flags(fleet_configs)), "keys")
    assert len(found) == 2 and all("takes decode-0 for a prefill" in finding["text"] for finding in found)


def test_another_routers_key(fleet_configs):
    other = run_baton("keygen").stdout.splitlines()[0].removeprefix("public=")
    text = fleet_configs["decode"].read_text(encoding="utf-8").splitlines()
    fleet_configs["decode"].write_text(
        "\n".join(f"router_key={other}" if line.startswith("router_key=") else line for line in text) + "\n",
        encoding="utf-8")
    found = problems(doctor(*flags(fleet_configs)), "keys")
    assert len(found) == 1 and found[0]["subject"] == "decode-0" and "router_key" in found[0]["text"]


def test_ports(fleet_configs):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        edit(fleet_configs["router"], "http_listen=127.0.0.1:0", f"http_listen=127.0.0.1:{port}")
        findings = doctor("--config", fleet_configs["router"])
    found = [f for f in findings if f["check"] == "ports" and str(port) in f["text"]]
    assert len(found) == 1 and found[0]["level"] == "warning" and "in use by python" in found[0]["text"]
    edit(fleet_configs["router"], f"http_listen=127.0.0.1:{port}", "http_listen=192.0.2.1:8000")
    found = problems(doctor("--config", fleet_configs["router"]), "ports")
    assert len(found) == 1 and "192.0.2.1:8000" in found[0]["text"] and "ip address" in found[0]["mend"]


def test_models(fleet_configs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(MODEL, other, ignore=shutil.ignore_patterns("*.py", "reference*"))
    edit(other / "config.json", '"rope_theta"', '"rope_theta": 5.0, "was"')
    edit(fleet_configs["decode"], f"model={MODEL}", f"model={other}")
    found = problems(doctor(*flags(fleet_configs)), "models")
    assert len(found) == 1 and "will not pair" in found[0]["text"] and "decode-0" in found[0]["text"]
    (other / "tokenizer.json").unlink()
    found = problems(doctor("--model", other), "models")
    assert any("tokenizer.json" in finding["text"] for finding in found)
    (other / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    found = problems(doctor("--model", other), "models")
    assert any("safetensors" in finding["text"] or "embed_tokens" in finding["text"] for finding in found)
    assert "No such file" in problems(doctor("--model", tmp_path / "absent"), "models")[0]["text"]


def test_text_and_wrong_use(fleet_configs):
    done = run_baton("doctor", "--config", fleet_configs["router"])
    lines = done.stdout.splitlines()
    assert lines[0] == "machine" and lines[-1].endswith(" 0 problems")
    assert "mend: " not in next(line for line in lines if line.startswith("  ok"))
    for args in (["--what"], ["--config"], ["--json=yes"], ["extra"]):
        done = run_baton("doctor", *args, check=False)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr


