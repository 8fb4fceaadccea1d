"""Connections against a real OpenSSH server: what comes back is an end that was told, or an error that says so."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from backend.errors import SettingsError, UnverifiedError
from backend.fleet import transfers
from backend.fleet import watch as watching
from backend.fleet.errors import (
    ChannelRefused,
    ExecTimeout,
    HostKeyChanged,
    HostKeyUnknown,
    HostUnreachable,
    LinkLost,
    LoginRefused,
    NoPython,
    TransferFailed,
)
from backend.fleet.hosts import Host, load_hosts
from backend.fleet.known_hosts import HostKey, enrol_key
from backend.fleet.shell import shell_argv
from backend.fleet.ssh import Limits, SshPool
from backend.fleet.store import host_rows
from backend.paths import Paths
from backend.state.store import StateStore
from tests.lab.kept import describe
from tests.lab.sshd import Sshd, free_port, make_key

Make = Callable[..., Sshd]
QUICK = Limits(connect_s=5.0, login_s=10.0, keepalive_s=0.3, keepalive_count=2, backoff_s=0.0)


@pytest.fixture
async def pool(paths: Paths) -> AsyncIterator[SshPool]:
    async with SshPool(paths, QUICK) as made:
        yield made


async def enrolled(pool: SshPool, server: Sshd) -> Host:
    pool.confirm_enrolment(await pool.enrol(server.host()))
    return server.host()


def trust_some_key(pool: SshPool, host: Host) -> None:
    pool.paths.root.mkdir(exist_ok=True)
    public = make_key(pool.paths.root / "some_key").with_suffix(".pub")
    enrol_key(pool.known_hosts, host.name, HostKey.parse(public.read_text()))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_command_ends_with_its_code_output_and_input_as_bytes(make_sshd: Make, pool: SshPool) -> None:
    host = await enrolled(pool, make_sshd())
    done = await pool.exec(host, ["sh", "-c", "cat; printf '\\377'; echo oh >&2; exit 7"], stdin=b"\0in", timeout_s=30)
    assert (done.code, done.signal, done.stdout, done.stderr) == (7, None, b"\0in\xff", b"oh\n")
    done = await pool.exec(host, ["sh", "-c", "kill -KILL $$"], timeout_s=30)
    assert (done.code, done.signal) == (None, "KILL")


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/tcsh", "/usr/bin/fish"])
async def test_words_arrive_as_they_are_whatever_the_login_shell(make_sshd: Make, pool: SshPool, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    host = await enrolled(pool, make_sshd(shell=shell))
    words = ["a b", "", "it's", '"', "\\", "\\n", "!x", "$HOME `id`", "*", "new\nline", "ü\t%s", "~", "-n", "a\n"]
    done = await pool.exec(host, ["printf", "%s\\0", *words], timeout_s=30)
    assert done.stdout.decode().split("\0")[:-1] == words
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_a_host_is_not_trusted_before_its_key_was_confirmed(make_sshd: Make, pool: SshPool) -> None:
    server = make_sshd()
    with pytest.raises(HostKeyUnknown, match="ringrift hosts enrol alpha") as refused:
        await pool.exec(server.host(), ["true"], timeout_s=30)
    assert refused.value.permanent
    offered = await pool.enrol(server.host())
    assert offered.enrolled is None
    assert offered.fingerprint.startswith("SHA256:")
    pool.confirm_enrolment(offered)
    assert (await pool.exec(server.host(), ["true"], timeout_s=30)).code == 0
    assert pool.known_hosts.stat().st_mode & 0o777 == 0o600


async def test_a_changed_host_key_is_a_hard_stop_until_it_is_enrolled(make_sshd: Make, pool: SshPool) -> None:
    server = make_sshd()
    host = await enrolled(pool, server)
    old = (await pool.enrol(host)).fingerprint
    server.stop()
    server.change_key()
    server.start()
    for _ in range(2):
        with pytest.raises(HostKeyChanged, match="HAS CHANGED"):
            await pool.exec(host, ["true"], timeout_s=30)
    offered = await pool.enrol(host)
    assert offered.enrolled is not None
    assert offered.enrolled.fingerprint == old != offered.fingerprint
    pool.confirm_enrolment(offered)
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_a_refused_login_is_told_and_not_tried_again_by_itself(make_sshd: Make, pool: SshPool) -> None:
    server = make_sshd()
    host = await enrolled(pool, server)
    wrong_key = server.host(ssh_key=str(make_key(server.folder / "other_key")))
    wrong_user = server.host(ssh_user="nobody-of-that-name")
    for wrong in (wrong_key, wrong_user):
        for _ in range(3):
            with pytest.raises(LoginRefused) as refused:
                await pool.exec(wrong, ["true"], timeout_s=30)
        assert refused.value.permanent
    log = (server.folder / "sshd.log").read_text()
    assert log.count("Connection closed by") + log.count("Connection reset by") <= 2 * 2 + 2
    with pytest.raises(LoginRefused, match="no such key file"):
        await pool.exec(server.host(ssh_key="/nowhere"), ["true"], timeout_s=30)
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_a_host_that_is_not_there_is_unreachable_and_left_alone_for_a_while(paths: Paths) -> None:
    host = Host("gone", {"ssh_host": "127.0.0.1", "ssh_port": free_port()})
    async with SshPool(paths, Limits(backoff_s=1000.0, backoff_max_s=1000.0)) as pool:
        with pytest.raises(HostUnreachable):
            await pool.enrol(host)
        trust_some_key(pool, host)
        with pytest.raises(HostUnreachable, match="cannot connect"):
            await pool.exec(host, ["true"], timeout_s=30)
        with pytest.raises(HostUnreachable, match="again in"):
            await pool.exec(host, ["true"], timeout_s=30)
        pool.forget("gone")
        with pytest.raises(HostUnreachable, match="cannot connect"):
            await pool.exec(host, ["true"], timeout_s=30)


async def test_a_server_that_says_nothing_is_given_up(paths: Paths) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = Host("mute", {"ssh_host": "127.0.0.1", "ssh_port": silent.getsockname()[1]})
        async with SshPool(paths, Limits(connect_s=0.5, login_s=0.5)) as pool:
            trust_some_key(pool, host)
            with pytest.raises(HostUnreachable):
                await pool.exec(host, ["true"], timeout_s=30)


@pytest.mark.parametrize("how", ["kill", "freeze"])
async def test_a_link_that_breaks_under_a_command_is_never_taken_for_its_end(
    make_sshd: Make, pool: SshPool, how: str, tmp_path: Path
) -> None:
    server = make_sshd()
    host = await enrolled(pool, server)
    mark = tmp_path / "up"
    os.mkfifo(mark)
    end, runs = os.open(mark, os.O_RDWR | os.O_NONBLOCK), asyncio.Event()
    asyncio.get_running_loop().add_reader(end, runs.set)
    running = asyncio.create_task(pool.exec(host, ["sh", "-c", 'echo up >"$0"; sleep 30', str(mark)], timeout_s=60))
    async with asyncio.timeout(60):
        await runs.wait()
    asyncio.get_running_loop().remove_reader(end)
    os.close(end)
    server.cut() if how == "kill" else server.freeze()
    with pytest.raises(LinkLost) as lost:
        await running
    assert not isinstance(lost.value, HostUnreachable)
    if how == "kill":
        assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_a_command_that_takes_too_long_is_given_up_and_others_go_on(make_sshd: Make, pool: SshPool) -> None:
    host = await enrolled(pool, make_sshd())
    with pytest.raises(ExecTimeout, match="may still be running"):
        await pool.exec(host, ["sleep", "20"], timeout_s=0.5)
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_few_sessions_make_commands_wait_for_one_another(make_sshd: Make, pool: SshPool) -> None:
    host = await enrolled(pool, make_sshd(MaxSessions=2))
    done = await asyncio.gather(*(pool.exec(host, ["echo", str(n)], timeout_s=60) for n in range(12)))
    assert [int(one.stdout) for one in done] == list(range(12))
    for _ in range(3):  # sessions of abandoned commands cannot block the host for ever
        with pytest.raises(ExecTimeout):
            await pool.exec(host, ["sleep", "20"], timeout_s=0.3)
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_no_session_at_all_is_said_so(make_sshd: Make, pool: SshPool) -> None:
    host = await enrolled(pool, make_sshd(MaxSessions=0))
    with pytest.raises(ChannelRefused, match="MaxSessions"):
        await pool.exec(host, ["true"], timeout_s=30)


async def test_a_server_that_drops_logins_at_random_is_reached_by_asking_again(make_sshd: Make, paths: Paths) -> None:
    server = make_sshd(MaxStartups="2:50:3")
    async with SshPool(paths, QUICK) as first:
        await enrolled(first, server)

    async def one() -> int | None:
        async with SshPool(paths, QUICK) as pool:
            while True:
                try:
                    return (await pool.exec(server.host(), ["true"], timeout_s=60)).code
                except HostUnreachable:
                    await asyncio.sleep(0.05)

    assert await asyncio.gather(*(one() for _ in range(12))) == [0] * 12


async def test_all_behind_a_bastion_share_one_connection_to_it(make_sshd: Make, paths: Paths, pool: SshPool) -> None:
    bastion, far, further = make_sshd("bastion"), make_sshd("far"), make_sshd("further")
    text = "hosts:\n" + "".join(
        f"  {one.name}: {{ssh_host: 127.0.0.1, ssh_port: {one.port}, ssh_key: {one.user_key}}}\n"
        for one in (bastion, far, further)
    )
    paths.root.mkdir(exist_ok=True)
    paths.hosts_yaml.write_text(text)
    await enrolled(pool, bastion)
    hosts = [one.host(proxy_jump="bastion") for one in (far, further)]
    for host in hosts:
        pool.confirm_enrolment(await pool.enrol(host))
    done = await asyncio.gather(*(pool.exec(host, ["echo", host.name], timeout_s=30) for host in hosts))
    assert [one.stdout for one in done] == [b"far\n", b"further\n"]
    assert (bastion.folder / "sshd.log").read_text().count("Accepted publickey") == 1
    assert (await pool.exec(bastion.host(), ["true"], timeout_s=30)).code == 0


async def test_the_users_own_configuration_is_honoured(make_sshd: Make, pool: SshPool) -> None:
    server = make_sshd()
    config = Path(os.environ["HOME"]) / ".ssh"
    config.mkdir()
    (config / "config").write_text(
        f"Host alpha\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.user_key}\n  RequestTTY yes\n"
    )
    host = Host("alpha")
    pool.confirm_enrolment(await pool.enrol(host))
    assert (await pool.exec(host, ["echo", "here"], timeout_s=30)).stdout == b"here\n"


async def test_a_user_may_stand_before_the_address_and_a_tailnet_address_wins(make_sshd: Make, pool: SshPool) -> None:
    server = make_sshd()
    settings = server.settings() | {"ssh_host": "nowhere.invalid", "tailscale_ip": f"{server.user}@127.0.0.1"}
    host = Host("alpha", settings | {"ssh_user": "nobody-of-that-name"})
    pool.confirm_enrolment(await pool.enrol(host))
    assert (await pool.exec(host, ["true"], timeout_s=30)).code == 0


async def test_the_round_trip_is_known_while_connected_and_unknown_before(make_sshd: Make, pool: SshPool) -> None:
    host = await enrolled(pool, make_sshd())
    assert pool.latency_ms(host) is None
    await pool.exec(host, ["true"], timeout_s=30)
    measured = pool.latency_ms(host)
    assert measured is not None and measured > 0


# files


async def test_files_go_there_and_back_verified_past_a_noisy_shell(
    make_sshd: Make, pool: SshPool, tmp_path: Path
) -> None:
    server = make_sshd(shell="/bin/bash")
    (server.home / ".bashrc").write_text("echo welcome; printf '\\377\\0'\n")
    host = await enrolled(pool, server)
    local = tmp_path / "data"
    local.write_bytes(os.urandom(3_000_001))
    await pool.put(host, local, "~/in/data", sha256=digest(local))
    assert (server.home / "in" / "data").read_bytes() == local.read_bytes()
    back = tmp_path / "back"
    assert await pool.get(host, "~/in/data", back, sha256=digest(local)) == digest(local)
    assert back.read_bytes() == local.read_bytes()
    empty = tmp_path / "empty"
    empty.touch()
    await pool.put(host, empty, "~/in/empty", sha256=digest(empty))
    assert (server.home / "in" / "empty").read_bytes() == b""


async def test_a_file_with_another_hash_replaces_nothing(make_sshd: Make, pool: SshPool, tmp_path: Path) -> None:
    server = make_sshd()
    host = await enrolled(pool, server)
    local = tmp_path / "data"
    local.write_bytes(b"new")
    (server.home / "data").write_bytes(b"old")
    with pytest.raises(UnverifiedError):
        await pool.put(host, local, "~/data", sha256="0" * 64)
    with pytest.raises(UnverifiedError):
        await pool.get(host, "~/data", local, sha256="0" * 64)
    assert os.listdir(server.home) == ["data"]
    assert (server.home / "data").read_bytes() == b"old"
    assert local.read_bytes() == b"new"
    with pytest.raises(TransferFailed, match="No such file"):
        await pool.get(host, "~/absent", local)
    with pytest.raises(TransferFailed):
        await pool.put(host, local, "/proc/nowhere/x", sha256=digest(local))


@pytest.mark.parametrize("how", ["cancel", "cut"])
async def test_a_copy_that_is_broken_off_leaves_nothing(
    make_sshd: Make, pool: SshPool, tmp_path: Path, how: str
) -> None:
    server = make_sshd()
    host = await enrolled(pool, server)
    local = tmp_path / "data"
    with local.open("wb") as stream:
        stream.truncate(300_000_000)
    copying = asyncio.create_task(pool.put(host, local, "~/in/data", sha256="0" * 64))
    await until(lambda: list(server.home.glob("in/.*.part")))
    if how == "cancel":
        copying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await copying
    else:
        server.cut()
        with pytest.raises(LinkLost):
            await copying
    await until(lambda: not os.listdir(server.home / "in"))


async def test_a_host_without_python_is_told_so(make_sshd: Make, pool: SshPool, tmp_path: Path) -> None:
    server = make_sshd()
    await enrolled(pool, server)
    local = tmp_path / "data"
    local.write_bytes(b"x")
    with pytest.raises(NoPython, match="python_path"):
        await pool.put(server.host(python_path="/nowhere/python3"), local, "~/data", sha256=digest(local))


async def test_a_program_that_ended_before_it_was_written_to_is_told_by_its_end(tmp_path: Path) -> None:
    class Ended:
        """A stream whose command was gone before its first byte."""

        def write(self, data: bytes) -> None:
            raise BrokenPipeError("not open for sending")

        async def readline(self) -> bytes:
            return b""

        async def end(self) -> tuple[int, None, bytes]:
            return 127, None, b"sh: python3: not found"

        def close(self) -> None:
            pass

    class Opener:
        async def open_stream(self, *_: object, **__: object) -> Ended:
            return Ended()

    local = tmp_path / "data"
    local.write_bytes(b"x")
    with pytest.raises(NoPython, match="not found"):
        await transfers.put(Opener(), Host("alpha"), local, "~/data", sha256=digest(local), timeout_s=5.0)


def test_the_ssh_server_is_installed() -> None:
    assert shutil.which("sshd", path="/usr/sbin:/usr/bin")


@pytest.mark.skipif(shutil.which("ssh") is None, reason="ssh is not installed")
async def test_a_shell_behind_two_bastions_goes_the_way_of_the_hosts_file(
    make_sshd: Make, paths: Paths, pool: SshPool
) -> None:
    servers = {name: make_sshd(name) for name in ("outer", "inner", "far")}
    hosts = {name: server.settings() for name, server in servers.items()}
    hosts["inner"]["proxy_jump"], hosts["far"]["proxy_jump"] = "outer", "inner"
    hosts["inner"]["ssh_host"] = f"{servers['inner'].user}@127.0.0.1"
    odd = servers["outer"].folder / "key with 100% blanks"
    servers["outer"].user_key.rename(odd)
    hosts["outer"]["ssh_key"] = str(odd)
    paths.root.mkdir(exist_ok=True)
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))
    loaded = load_hosts(paths.hosts_yaml)
    far = loaded.get("far")
    assert far is not None
    for server in servers.values():
        enrol_key(pool.known_hosts, server.name, HostKey.parse(server.host_key.with_suffix(".pub").read_text()))

    async def shell(*words: str) -> tuple[int, bytes, bytes]:
        argv = [*shell_argv(far, paths), *words]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, stdin=subprocess.DEVNULL, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, said = await shell("echo", "here;", "pwd")
    assert (code, out.split()[0]) == (0, b"here"), said
    for server in servers.values():
        assert (server.folder / "sshd.log").read_text().count("Accepted publickey") == 1

    servers["inner"].stop()
    servers["inner"].change_key()
    servers["inner"].start()
    code, _, said = await shell("true")
    assert code == 255 and b"inner" in said  # a bastion's key is checked as strictly as the host's own

    hosts["outer"]["proxy_jump"] = "far"
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))
    with pytest.raises(SettingsError, match="leads back"):
        shell_argv(far, paths)
    hosts["inner"]["proxy_jump"] = "nowhere"
    paths.hosts_yaml.write_text(yaml.safe_dump({"hosts": hosts}))
    with pytest.raises(SettingsError, match="names no host"):
        shell_argv(far, paths)


async def test_a_lost_connection_is_told_at_once_and_one_that_is_given_up_is_not(
    make_sshd: Make, pool: SshPool
) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    pool.on_loss = told.put_nowait
    sshd = make_sshd()
    host = await enrolled(pool, sshd)
    await pool.exec(host, ["true"], timeout_s=30)
    assert sshd.cut() > 0
    async with asyncio.timeout(30):
        assert await told.get() == host.name
    await pool.exec(host, ["true"], timeout_s=30)
    await pool.drop(host.name)
    assert told.empty()


async def test_the_watch_notices_a_host_that_goes_long_before_its_next_sample(
    make_sshd: Make, pool: SshPool, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd = make_sshd()
    await enrolled(pool, sshd)
    describe(paths, sshd)
    monkeypatch.setattr(watching, "SAMPLE_S", 3600.0)
    monkeypatch.setattr(watching, "AGAIN_S", 0.0)
    async with await StateStore.open(paths) as store:
        watch = watching.Watch(paths, store, pool)
        pool.on_loss = watch.lost
        running = asyncio.create_task(watch.run())

        async def comes_to_be(state: str) -> None:
            async with asyncio.timeout(60):
                while (await host_rows(store))[0].state != state:
                    assert not running.done()
                    await asyncio.sleep(0.02)

        await comes_to_be("up")
        sshd.stop()
        await comes_to_be("down")
        running.cancel()
