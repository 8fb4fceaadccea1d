"""``hosts.yaml``: a mapping of host names to hosts, validated with the line of every mistake.

The keys of the reference installation's hosts file are understood; keys that nobody here knows are kept in
``Host.extra`` and mentioned by :attr:`Hosts.notes`, never fatal. What several hosts have in common stands once, in
``defaults`` (all hosts) or in ``groups`` (hosts that name the group); what stands nearer to the host wins.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from backend.errors import SettingsError
from backend.fleet import pools

LOCAL = "local"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)

_TEXT = {
    "ssh_host", "ssh_user", "ssh_key", "tailscale_ip", "tailscale_ipv6", "ringrift_path", "venv_activate",
    "python_path", "gpu", "role", "status", "runtime", "region", "note", "data_server_url", "worker_url",
    "external_storage_path", "relay_primary", "relay_secondary", "proxy_jump", "group", "peer_address",
    "torch_cpu_index", "kind", *pools.TEXT_KEYS,
}  # fmt: skip
_NUMBER = {
    "ssh_port", "memory_gb", "cpus", "gpus", "gpu_vram_gb", "max_parallel_jobs", "bandwidth_mbps", "data_server_port",
    "worker_port", *pools.NUMBER_KEYS,
}  # fmt: skip
_FLAG = {
    "selfplay_enabled", "training_enabled", "gauntlet_enabled", "export_enabled", "p2p_enabled", "nat_blocked",
    "cuda_capable", "is_coordinator", "is_ephemeral", "force_relay_mode", "relay_capable", "skip_sync_receive",
    "use_external_storage",
}  # fmt: skip
_LIST = {"preferred_workloads", "excluded_workloads", "groups"}
_MAPPING = {"storage_paths", "max_parallel"}
_OWN = {"ssh_host", "tailscale_ip", "tailscale_ipv6", "peer_address", "group", "groups"}
"""Keys that say something of one host alone, so neither ``defaults`` nor a group may have them."""
KNOWN_KEYS = _TEXT | _NUMBER | _FLAG | _LIST | _MAPPING


@dataclass(frozen=True, slots=True)
class Host:
    """One host as its file describes it; ``settings`` holds the understood keys, ``extra`` the others."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def is_local(self) -> bool:
        return self.name == LOCAL and "ssh_host" not in self.settings and not self.is_pool

    @property
    def is_pool(self) -> bool:
        """Whether it stands for a scheduler, which places on nodes of its own what it is given."""
        return bool(self.settings.get("kind") == pools.SLURM)

    @property
    def is_here(self) -> bool:
        """Whether it is this machine, or a pool whose commands this machine has: nobody has to connect to it."""
        return self.is_local or (self.is_pool and not {"ssh_host", "tailscale_ip"} & self.settings.keys())

    @property
    def target(self) -> str:
        """What is connected to, a name or a number; the hosts file may put a user before it, as in ``user@host``."""
        return str(self.settings.get("tailscale_ip") or self.settings.get("ssh_host") or self.name)

    @property
    def peer_address(self) -> str:
        """By what other hosts reach it, a name or a number: ``peer_address``, else what the head connects to."""
        return str(self.settings.get("peer_address") or self.target).rpartition("@")[2]

    @property
    def groups(self) -> tuple[str, ...]:
        """Its groups, in the order in which they lay their settings over one another."""
        return _groups(self.settings)

    @property
    def runtime(self) -> str:
        """What it runs: ``builtin`` for this program, which this machine always runs, or another's name."""
        return "builtin" if self.is_local else str(self.settings.get("runtime", "builtin"))

    @property
    def max_parallel_jobs(self) -> int:
        return int(self.settings.get("max_parallel_jobs", 1))

    @property
    def packages(self) -> str:
        """Where the packages of our code come from there: ``given`` by an interpreter, ``cpu`` or ``pypi`` by pip."""
        if self.settings.get("python_path") or self.settings.get("venv_activate"):
            return "given"
        return "cpu" if self.settings.get("torch_cpu_index") else "pypi"

    def enabled(self, kind: str) -> bool:
        """Whether jobs of ``kind`` (selfplay, export, training, gauntlet) may run here."""
        return bool(self.settings.get(f"{'training' if kind == 'train' else kind}_enabled", True))


@dataclass(frozen=True, slots=True)
class Hosts:
    hosts: tuple[Host, ...]
    source: str
    notes: tuple[str, ...] = ()

    def get(self, name: str) -> Host | None:
        return next((host for host in self.hosts if host.name == name), None)


def jumps(host: Host, hosts: Hosts) -> tuple[Host, ...]:
    """The hosts that the way to ``host`` leads through, the one next to it first.

    Raises:
        SettingsError: a ``proxy_jump`` names no host, or leads back.
    """
    way = [host]
    while (name := way[-1].settings.get("proxy_jump")) is not None:
        found = hosts.get(str(name))
        if found is None or found.name in [one.name for one in way]:
            what = "leads back" if found else "names no host"
            raise SettingsError(f"proxy_jump '{name}' {what}", where=f"{hosts.source} line {host.line}")
        way.append(found)
    return tuple(way[1:])


THIS_MACHINE = Hosts((Host(LOCAL, {"role": "coordinator", "status": "ready"}),), "built in")


def load_hosts(path: Path) -> Hosts:
    """Reads a hosts file; a missing one means this machine alone.

    Raises:
        SettingsError: the file cannot be understood; the message has the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return THIS_MACHINE
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError("cannot read the hosts file", where=str(path), hint=str(error)) from None
    return parse_hosts(text, str(path))


@lru_cache(maxsize=8)  # the console reads it twice a second; 64 hosts take the parser 30 ms
def parse_hosts(text: str, source: str) -> Hosts:
    """The hosts that ``text`` describes, not to be changed; ``source`` names it in messages."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise SettingsError(error.problem or "not YAML", where=f"{source} line {line}") from None
    except yaml.YAMLError as error:
        raise SettingsError("not YAML", where=source, hint=" ".join(str(error).split())) from None
    if root is None:
        return THIS_MACHINE
    _expect(root, yaml.MappingNode, "the file must be a mapping with the key 'hosts'", source)
    notes: list[str] = []
    found: list[Host] = []
    sections = {key.value: value for key, value in root.value}
    defaults = _common(sections.get("defaults"), "the defaults", notes, source)
    groups = _group_settings(sections.get("groups"), notes, source)
    for key, value in root.value:
        if key.value in ("defaults", "groups"):
            continue
        if key.value != "hosts":
            notes.append(f"line {key.start_mark.line + 1}: section '{key.value}' is not used")
            continue
        _expect(value, yaml.MappingNode, "'hosts' must map names to hosts", source)
        for name, body in value.value:
            host = _host(name, body, {host.name for host in found}, notes, source)
            found.append(_with_common(host, defaults, groups, source))
    if not any(key.value == "hosts" for key, _ in root.value):
        raise SettingsError("there is no 'hosts' section", where=f"{source} line 1", hint="hosts: {local: {}}")
    if not found:
        raise SettingsError("'hosts' is empty", where=f"{source} line 1", hint="hosts: {local: {}}")
    return Hosts(tuple(found), source, tuple(notes))


def _groups(settings: dict[str, Any]) -> tuple[str, ...]:
    named = [settings["group"]] if "group" in settings else []
    return tuple(dict.fromkeys([*named, *map(str, settings.get("groups", ()))]))


def _group_settings(node: yaml.Node | None, notes: list[str], source: str) -> dict[str, dict[str, Any]]:
    """Settings by group name."""
    if node is None:
        return {}
    _expect(node, yaml.MappingNode, "'groups' must map names to settings", source)
    found: dict[str, dict[str, Any]] = {}
    for name, body in node.value:
        if name.value in found:
            raise SettingsError(f"group '{name.value}' stands twice", where=f"{source} line {name.start_mark.line + 1}")
        found[name.value] = _common(body, f"group '{name.value}'", notes, source)
    return found


def _common(node: yaml.Node | None, what: str, notes: list[str], source: str) -> dict[str, Any]:
    """Settings that several hosts share."""
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")):
        return {}
    _expect(node, yaml.MappingNode, f"{what} must be a mapping", source)
    for key, _ in node.value:
        if key.value in _OWN:
            where = f"{source} line {key.start_mark.line + 1}"
            raise SettingsError(f"'{key.value}' belongs to one host, not to {what}", where=where)
    return _body(node, what, notes, source)[0]


def _with_common(host: Host, defaults: dict[str, Any], groups: dict[str, dict[str, Any]], source: str) -> Host:
    """A host with what it has in common with others laid under its own settings."""
    common = dict(defaults)
    for name in host.groups:
        if name not in groups:
            raise SettingsError(
                f"host '{host.name}' is in the group '{name}', which is not there",
                where=f"{source} line {host.line}",
                hint="groups: " + (" ".join(groups) or "none"),
            )
        common |= groups[name]
    made = replace(host, settings=common | host.settings) if common else host
    if wrong := pools.amiss(made.settings):
        raise SettingsError(f"host '{host.name}' {wrong}", where=f"{source} line {host.line}")
    return made


def _host(name: yaml.Node, body: yaml.Node, seen: set[str], notes: list[str], source: str) -> Host:
    line = name.start_mark.line + 1
    if not isinstance(name, yaml.ScalarNode) or not _NAME.fullmatch(name.value):
        raise SettingsError(
            "a host name has letters, digits, '.', '_' and '-'", where=f"{source} line {line}", hint="rename the host"
        )
    if name.value in seen:
        where = f"{source} line {line}"
        raise SettingsError(f"host '{name.value}' stands twice", where=where, hint="rename or remove one of them")
    if isinstance(body, yaml.ScalarNode) and body.tag.endswith(":null"):
        return Host(name.value, line=line)
    _expect(body, yaml.MappingNode, f"host '{name.value}' must be a mapping", source)
    settings, extra = _body(body, f"host '{name.value}'", notes, source)
    return Host(name.value, settings, extra, line)


def _body(body: yaml.Node, what: str, notes: list[str], source: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The understood and the other keys of a mapping."""
    settings: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    loader = yaml.SafeLoader("")
    for key, value in body.value:
        here = f"{source} line {key.start_mark.line + 1}"
        try:
            parsed = loader.construct_object(value, deep=True)
        except yaml.MarkedYAMLError as error:
            raise SettingsError(error.problem or "not a plain value", where=here) from None
        if key.value in settings or key.value in extra:
            raise SettingsError(f"'{key.value}' stands twice in {what}", where=here)
        if key.value not in KNOWN_KEYS:
            extra[key.value] = parsed
            notes.append(f"line {key.start_mark.line + 1}: '{key.value}' of {what} is not known here")
        elif parsed is not None:
            if key.value == "time_limit" and isinstance(value, yaml.ScalarNode):
                parsed = value.value  # to YAML, 12:00:00 is a number to the base of 60
            settings[key.value] = _checked(key.value, parsed, what, here)
    return settings, extra


def _checked(key: str, value: Any, what: str, where: str) -> Any:
    if key in _FLAG:
        wanted, good = "true or false", isinstance(value, bool)
    elif key in _NUMBER:
        wanted, good = "a number", isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    elif key in _LIST:
        wanted, good = "a list", isinstance(value, list)
    elif key in _MAPPING:
        wanted, good = "a mapping", isinstance(value, dict)
    else:
        wanted, good = "text", isinstance(value, str | int | float) and not isinstance(value, bool)
        value = str(value)
    if not good:
        raise SettingsError(f"'{key}' of {what} must be {wanted}", where=where)
    if key == "max_parallel" and not all(isinstance(n, int) and n >= 1 for n in value.values()):
        raise SettingsError(f"'max_parallel' of {what} must map kinds to whole numbers from 1", where=where)
    if key == "torch_cpu_index" and not re.fullmatch(r"https?://[^\s@]+", value):
        # it would be seen among the words of a command
        raise SettingsError(f"'torch_cpu_index' of {what} must be a URL without a password", where=where)
    if (form := pools.wrong_form(key, value)) is not None:
        raise SettingsError(f"'{key}' of {what} must be {form}", where=where)
    if key == "ssh_port" and not 0 < value < 65536:
        raise SettingsError(f"'ssh_port' of {what} must be 1..65535", where=where)
    if key == "gpus" and value != int(value):
        raise SettingsError(f"'gpus' of {what} must be a whole number", where=where)
    if key == "max_parallel_jobs" and (value < 1 or value != int(value)):
        raise SettingsError(f"'max_parallel_jobs' of {what} must be a whole number from 1", where=where)
    return value


def _expect(node: yaml.Node, kind: type[yaml.Node], message: str, source: str) -> None:
    if not isinstance(node, kind):
        raise SettingsError(message, where=f"{source} line {node.start_mark.line + 1}")
