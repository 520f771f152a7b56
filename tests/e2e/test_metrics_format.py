"""The exposition of common/base/metrics.c as another implementation reads it."""

import math
import subprocess

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import BIN


@pytest.fixture(scope="module")
def exposition(tmp_path_factory):
    path = tmp_path_factory.mktemp("metrics") / "sample.txt"
    subprocess.run([str(BIN.parent / "tests" / "test_metrics"), str(path)], check=True)
    return path.read_text(encoding="utf-8")


def test_prometheus_client_reads_it(exposition):
    families = {family.name: family for family in text_string_to_metric_families(exposition)}
    assert {name: family.type for name, family in families.items()} == {
        "baton_requests": "counter", "baton_kv_blocks": "gauge", "baton_busy_seconds": "counter", "baton_odd": "gauge",
        "baton_ttft_seconds": "histogram"}
    values = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families.values() for s in f.samples}
    assert values["baton_requests_total", (("outcome", 'a "quoted\\\né'),)] == 2
    assert values["baton_kv_blocks", (("role", "decode"), ("state", "free"))] == 0.1
    assert values["baton_busy_seconds_total", ()] == 1.5
    assert math.isnan(values["baton_odd", ()])
    assert values["baton_ttft_seconds_bucket", (("le", "+Inf"), ("model", "m"))] == 4
    assert values["baton_ttft_seconds_count", (("model", "m"),)] == 4
    assert values["baton_ttft_seconds_sum", (("model", "m"),)] == 12.75
