"""The examples of docs/api.md are run as they stand there."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from balance.embedded import Address
from tests.occ.api_lab import ROOT, Api
from tests.shell import Shell

DOCUMENT = ROOT / "docs" / "api.md"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_every_example_does_what_the_document_says(clean_redis: Address, tmp_path: Path) -> None:
    examples = re.findall(r"```sh\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 6
    with Api(Shell(tmp_path, clean_redis), tmp_path) as api:
        for number in ("491700000001", "491700000002"):
            api.shell.json("account", "create", f"acc-{number}", "--balance", "10.00")
            line = ("--account", f"acc-{number}", "--plan", "standard", "--msisdn", number)
            api.shell.json("subscriber", "add", number, *line)
        answers = []
        for example in examples:
            environment = os.environ | {"API": api.url, "TOKEN": api.tokens["admin"], "no_proxy": "127.0.0.1"}
            done = subprocess.run(["sh", "-ec", example], env=environment, capture_output=True, check=True, timeout=30)
            answers.append(json.loads(done.stdout))
        account, buckets, topup, reservation, subscription, batch, suspended = answers
        assert account["state"] == "active"
        assert buckets[0]["remainingValue"] == {"amount": 10.0, "units": "EUR"}
        assert topup["status"] == "completed"
        assert reservation["status"] == "created"
        assert subscription["callback"].endswith("/events")
        assert len(batch["vouchers"]) == 2
        assert suspended["state"] == "suspended"


def test_the_example_of_an_error_is_what_an_error_looks_like(clean_redis: Address, tmp_path: Path) -> None:
    (example,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    with Api(Shell(tmp_path, clean_redis), tmp_path) as api:
        answer = api.send("GET", "/occ/v1/accounts/nobody")
        assert answer.json == json.loads(example) | {"@type": "Error"}
