"""The policies of a root: set by operation only, inherited, told on the command line."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from backend.errors import Exit, LockedError, RefusedError, UsageError
from backend.overview import read_snapshot
from backend.paths import Paths
from backend.registry.changes import Author
from backend.registry.history import verify_audit
from backend.registry.policies import plan_set, read_policies, set_policy
from ringrift_console.cli import main
from tests.registry.conftest import Make
from tests.registry.test_promotion_crashes import carry_out


def put(paths: Paths, name: str, mode: str, config: str | None = None, operation: str = "o") -> None:
    plan = asyncio.run(plan_set(paths, name=name, mode=mode, config=config))
    set_policy(paths, plan.params, Author("tester", operation))


def test_everything_is_off_until_somebody_switches_it(root: Paths) -> None:
    found = read_policies(root)
    assert [(row.name, row.mode, row.by) for row in found.rows] == [("archival", "off", ""), ("promotion", "off", "")]
    assert not root.registry_db.exists()


def test_a_config_of_its_own_goes_before_the_root(root: Paths) -> None:
    put(root, "archival", "on", operation="a")
    put(root, "archival", "dry-run", "hex8_2p", operation="b")
    found = read_policies(root)
    assert (found.mode("archival", "hex8_2p"), found.mode("archival", "hex8_3p")) == ("dry-run", "on")
    assert found.configs("archival", ("dry-run",)) == ("hex8_2p",) and len(found.configs("archival", ("on",))) == 11
    put(root, "archival", "inherit", "hex8_2p", operation="c")
    assert read_policies(root).mode("archival", "hex8_2p") == "on" and len(read_policies(root).rows) == 2


@pytest.mark.parametrize(
    ("name", "mode", "config", "error"),
    [
        ("deletion", "on", None, UsageError),
        ("promotion", "dry-run", None, UsageError),
        ("archival", "inherit", None, UsageError),
        ("archival", "on", "hex9_2p", UsageError),
        ("archival", "off", None, RefusedError),
        ("archival", "inherit", "hex8_2p", RefusedError),
    ],
)
def test_what_cannot_be_set_is_refused(
    root: Paths, name: str, mode: str, config: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error):
        asyncio.run(plan_set(root, name=name, mode=mode, config=config))


def test_a_policy_that_has_moved_is_not_set(root: Paths) -> None:
    plan = asyncio.run(plan_set(root, name="archival", mode="on"))
    put(root, "archival", "dry-run", operation="first")
    with pytest.raises(LockedError, match="dry-run now, set by tester"):
        set_policy(root, plan.params, Author("tester", "second"))
    assert carry_out(root, plan).state == "refused"
    assert read_policies(root).mode("archival") == "dry-run"


def test_setting_is_an_operation_with_audit_and_event(
    root: Paths, make_model: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model()
    assert main(["policies", "set", "promotion", "on", "--config", "hex8_2p", "--reason", "we trust it", "--wait",
                 "--root", str(root.root)]) == Exit.DONE  # fmt: skip
    assert "promotion to on for hex8_2p" in (told := capsys.readouterr().err) and "warning" in told
    assert main(["policies", "list", "--json", "--root", str(root.root)]) == Exit.DONE
    row = json.loads(capsys.readouterr().out)[-1]
    assert (row["name"], row["mode"], row["config"], row["reason"]) == ("promotion", "on", "hex8_2p", "we trust it")
    assert row["by"] and row["at"]
    assert main(["policies", "list", "--root", str(root.root)]) == Exit.DONE
    assert "all configs" in capsys.readouterr().out
    assert asyncio.run(verify_audit(root))[0] == 1
    with sqlite3.connect(root.state_db) as db:
        assert db.execute("SELECT subject FROM events WHERE type = 'POLICY_SET'").fetchall() == [("promotion hex8_2p",)]
    db.close()
    with sqlite3.connect(root.registry_db) as db, pytest.raises(sqlite3.IntegrityError, match="only ever added"):
        db.execute("DELETE FROM policies")
    db.close()
    assert main(["policies", "set", "promotion", "on", "--config", "hex8_2p", "--root", str(root.root)]) == Exit.REFUSED
    assert [one.key for one in asyncio.run(read_snapshot(root)).policies] == [
        "archival", "promotion", "promotion hex8_2p",
    ]  # fmt: skip


def test_a_plan_to_switch_archival_on_says_what_it_would_do(root: Paths, make_model: Make) -> None:
    make_model()
    plan = asyncio.run(plan_set(root, name="archival", mode="on"))
    assert plan.warnings == ("models to archive as things stand: none",)
    assert plan.undo == "ringrift policies set archival off"
