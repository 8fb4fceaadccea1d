"""What an action is about: the row of a snapshot that an id, a name or a label stands for."""

from __future__ import annotations

from backend.snapshot import AlarmRow, HostRow, JobRow, ModelRow, Snapshot, TransferRow


def find_job(snapshot: Snapshot, subject: str | None) -> JobRow | None:
    return next((job for job in snapshot.jobs if job.id == subject), None)


_models: tuple[tuple[ModelRow, ...], dict[str, ModelRow]] = ((), {})


def models_by_name(models: tuple[ModelRow, ...]) -> dict[str, ModelRow]:
    """Models by SHA-256 and by label; made once for as long as the same tuple is asked for."""
    global _models
    if _models[0] is not models:
        found: dict[str, ModelRow] = {}
        for model in reversed(models):
            found[model.sha256] = found[model.label] = model
        _models = (models, found)
    return _models[1]


def find_model(snapshot: Snapshot, subject: str | None) -> ModelRow | None:
    return models_by_name(snapshot.models).get(subject) if subject else None


def find_host(snapshot: Snapshot, subject: str | None) -> HostRow | None:
    return next((host for host in snapshot.hosts if host.name == subject), None)


def find_transfer(snapshot: Snapshot, subject: str | None) -> TransferRow | None:
    return next((row for row in snapshot.transfers if row.id == subject), None)


def find_alarm(snapshot: Snapshot, subject: str | None) -> AlarmRow | None:
    """The open alarm of a number or a config, else the only one there is."""
    named = [one for one in snapshot.alarms if subject in (str(one.id), one.config)]
    found = named or (snapshot.alarms if len(snapshot.alarms) == 1 else ())
    return found[0] if found else None


def needs_model(snapshot: Snapshot, subject: str | None) -> str | None:
    return None if find_model(snapshot, subject) else "no model is selected"
