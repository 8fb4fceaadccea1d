"""Keys and settings: every action reachable and documented, no key doing two things, mistakes named."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.errors import SettingsError
from ringrift_console.actions import ACTIONS, Action, Tier
from ringrift_console.keymap import ACCEPT, SCREENS, Keymap, forbidden, key_text, make_keymap
from ringrift_console.settings import Settings, parse_settings, read_settings

KEYS_PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_default_keys_have_no_problem() -> None:
    assert Keymap().problems() == []


@pytest.mark.parametrize("action", [a for a in ACTIONS if a.key], ids=lambda a: a.name)
def test_every_key_is_allowed_documented_and_does_something(action: Action) -> None:
    keymap = Keymap()
    assert not any(forbidden(key) for key in keymap.keys(action))
    assert ACCEPT not in keymap.keys(action) or action.tier is Tier.READ
    assert any(action in keymap.actions(scopes) for scopes in SCREENS.values())
    row = next(row for row in KEYS_PAGE.read_text().splitlines() if action.help in row)
    assert row.startswith(f"| `{key_text(action.key)}")


@pytest.mark.parametrize("action", [a for a in ACTIONS if a.key], ids=lambda a: a.name)
def test_every_key_has_a_handler(action: Action) -> None:
    from ringrift_console.app import ConsoleApp
    from screens.base import BaseScreen
    from screens.elo import EloScreen
    from screens.hosts import HostsScreen
    from screens.jobs import JobsScreen
    from screens.log import LogScreen
    from screens.models import ModelsScreen
    from screens.policies import PoliciesScreen
    from screens.pulse import PulseScreen
    from screens.transfers import TransfersScreen

    screens = {
        "pulse": PulseScreen, "hosts": HostsScreen, "jobs": JobsScreen, "models": ModelsScreen, "log": LogScreen,
        "elo": EloScreen,
        "policies": PoliciesScreen,
        "transfers": TransfersScreen,
    }  # fmt: skip
    holder = ConsoleApp if action.scope == "global" else screens.get(action.scope, BaseScreen)
    name = "do_" + action.name.replace(".", "_")
    assert action.plan or hasattr(holder, name) or hasattr(BaseScreen, name)


@pytest.mark.parametrize("action", [a for a in ACTIONS if a.plan], ids=lambda a: a.name)
def test_what_plans_asks_and_says_so_in_its_label(action: Action) -> None:
    assert action.tier > Tier.READ
    assert action.label.endswith("…")


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"jobs.explode": "c"}, "unknown action jobs.explode"),
        ({"jobs.cancel": "ctrl+b"}, "ctrl+b cannot be used"),
        ({"jobs.cancel": "alt+3"}, "alt+3 cannot be used"),
        ({"jobs.cancel": "y"}, "the key that accepts a plan"),
        ({"jobs.cancel": "r"}, "r is both"),
        ({"jobs.cancel": "/"}, "slash is both"),
    ],
)
def test_a_keymap_that_cannot_be_is_refused(overrides: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem.replace("+", r"\+")):
        make_keymap(overrides)


def test_a_key_can_be_moved_and_taken_away() -> None:
    keymap = make_keymap({"jobs.cancel": "c", "palette": ""})
    table = keymap.table(SCREENS["jobs"])
    assert table["c"].name == "jobs.cancel"
    assert "x" not in table
    assert "ctrl+p" not in table


def test_settings_are_read_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "console.toml"
    assert read_settings(path) == Settings()
    path.write_text('theme = "ansi"\nascii = true\ntime = "utc"\nrefresh_hz = 1\n[keys]\n"jobs.cancel" = "c"\n')
    settings = read_settings(path)
    assert (settings.theme, settings.ascii, settings.time, settings.refresh_hz) == ("ansi", True, "utc", 1.0)
    assert settings.keys.overrides == {"jobs.cancel": "c"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("theme = ", "not TOML"),
        ('theme = "pink"', "theme = 'pink'"),
        ("ascii = 1", "ascii = 1"),
        ("refresh_hz = 60", "refresh_hz = 60"),
        ("refresh_hz = true", "refresh_hz = True"),
        ("colour = 3", "unknown setting colour"),
        ("keys = 3", "keys"),
        ('[keys]\n"jobs.cancel" = 3', "keys"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, "/home/op/console.toml")
    assert problem in caught.value.line()
    assert "/home/op/console.toml" in caught.value.line()


def test_settings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "console.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings(path)
