"""A checkout of the reference installation that plays no games: its programs take exactly the documented flags.

What they print has the form of the real ones' output (their sources, as of early 2026); what they leave are files of
the documented layout. The variable ``TRAP`` in a file ``trap`` of the checkout makes them end as the real ones are
known to: with exit code 0 and nothing to show.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

EXPORT = """
import argparse, pathlib, shutil, sys
root = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
import app
parser = argparse.ArgumentParser(description="Export NN training samples")
parser.add_argument("--use-discovery", action="store_true")
parser.add_argument("--board-type", required=True, choices=["square8", "square19", "hex8", "hexagonal"])
parser.add_argument("--num-players", required=True, type=int, choices=[2, 3, 4])
parser.add_argument("--output", required=True)
parser.add_argument("--max-games", type=int)
args = parser.parse_args()
assert args.use_discovery
trap = app.trap()
if trap == "no games":
    print("No samples generated from data/games/selfplay.db.")
    sys.exit(0)
if trap == "locked":
    print(f"[LOCKED] {args.output} is being exported by another process, skipped")
    sys.exit(0)
shutil.copy(root / "made.npz", args.output)
print(f"Exported {6 if trap != 'another count' else 7} samples from 2 games into {args.output}")
"""

TRAIN = """
import argparse, logging, os, pathlib, shutil, sys, time
import app
logging.basicConfig(level=logging.INFO, format="%(asctime)s - %(name)s - %(levelname)s - %(message)s")
log = logging.getLogger("app.training.train")
parser = argparse.ArgumentParser(description="Train RingRift Neural Network")
parser.add_argument("--data-path")
parser.add_argument("--save-path")
parser.add_argument("--board-type")
parser.add_argument("--num-players", type=int, default=2)
parser.add_argument("--epochs", type=int)
parser.add_argument("--batch-size", type=int)
args = parser.parse_args()
if not pathlib.Path(args.data_path).is_file():
    log.error("no training data at %s", args.data_path)
    sys.exit(1)
for epoch in range(args.epochs):
    log.info("Epoch [%d/%d], Train Loss: %.4f, Val Loss: %.4f", epoch + 1, args.epochs, 2 / (epoch + 1), 1.5)
    time.sleep(float(os.environ.get("EPOCH_S", "0")))
trap = app.trap()
root = pathlib.Path(__file__).resolve().parents[2]
if trap == "empty":
    open(args.save_path, "w").close()
elif trap != "nothing":
    shutil.copy(root / ("evil.pth" if trap == "code" else "made.pth"), args.save_path)
sys.stdout.flush()
os._exit(0)
"""

GAUNTLET = """
import argparse, pathlib, sys
root = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
import app
parser = argparse.ArgumentParser(description="Run baseline gauntlet for a model")
parser.add_argument("model_path", type=pathlib.Path, help="Path to model file")
parser.add_argument("--games", type=int, default=10, help="Games per baseline")
parser.add_argument("--board", default="square8", help="Board type")
args = parser.parse_args()
trap = app.trap()
if trap == "silent":
    sys.exit(0)
if trap == "replaced" or not args.model_path.exists():
    print(f"UnifiedModelLoader failed for {args.model_path}: no such architecture", file=sys.stderr)
if trap == "told":
    print(f"INFO   Running 4-player games (inferred from model)", file=sys.stderr)
games = 2 * args.games if trap != "short" else 2 * args.games - 1
print(f"\\n=== Gauntlet Result: {args.model_path.name} ===")
print("Model type: nn")
print("vs Random: 75.0%")
print("vs Heuristic: 25.0%")
print("Composite score: 0.35")
print(f"Games played: {games}")
"""

PROMOTE = """
import argparse, pathlib, shutil, sys
root = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(root))
import app
parser = argparse.ArgumentParser(description="Automated Model Promotion")
parser.add_argument("--gauntlet", action="store_true")
parser.add_argument("--model", type=pathlib.Path)
parser.add_argument("--board-type", choices=["square8", "square19", "hex8", "hexagonal"])
parser.add_argument("--num-players", type=int, choices=[2, 3, 4])
parser.add_argument("--games", type=int, default=20)
args = parser.parse_args()
print("GAUNTLET-BASED MODEL PROMOTION")
print("\\nGauntlet Results:")
print(f"  Total games: {2 * args.games}")
print("  vs RANDOM: 90.0% (PASS, need 85%)")
print("  vs HEURISTIC: 60.0% (PASS, need 60%)")
print("  Estimated ELO: 1520")
trap = app.trap()
if trap == "rejected":
    print("GAUNTLET FAILED - Model not promoted")
    sys.exit(1)
if trap != "nothing":
    (root / "models").mkdir(exist_ok=True)
    shutil.copy(args.model, root / "models" / f"canonical_{args.board_type}_{args.num_players}p.pth")
print("PROMOTION COMPLETE")
"""

APP = """
import pathlib
def trap():
    path = pathlib.Path(__file__).resolve().parents[1] / "trap"
    return path.read_text() if path.exists() else ""
"""

SCRIPTS = {
    "scripts/export_replay_dataset.py": EXPORT,
    "scripts/baseline_gauntlet.py": GAUNTLET,
    "scripts/auto_promote.py": PROMOTE,
    "app/training/train.py": TRAIN,
    "app/__init__.py": APP,
    "app/training/__init__.py": "",
}
SAMPLES = 6


def make_checkout(folder: Path) -> Path:
    """The checkout, with what its export and its training leave."""
    for name, text in SCRIPTS.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    write_dataset(folder / "made.npz")
    weights = {"value_head.weight": torch.zeros(2, 4)}
    about = {"architecture_version": "v2.0.0", "model_class": "HexNeuralNet_v2", "config": {"num_filters": 96}}
    torch.save({"model_state_dict": weights, "_versioning_metadata": about}, folder / "made.pth")
    torch.save({"model_state_dict": weights, "hook": Path("x")}, folder / "evil.pth")  # an object, not only tensors
    return folder


def write_dataset(path: Path, samples: int = SAMPLES, board: str = "hex8") -> None:
    """A dataset of their layout, pickled objects included."""
    ragged = np.empty(samples, dtype=object)
    for n in range(samples):
        ragged[n] = np.arange(n + 1, dtype=np.int32)
    np.savez_compressed(
        path,
        features=np.zeros((samples, 40, 9, 9), dtype=np.float32),
        globals=np.zeros((samples, 20), dtype=np.float32),
        values=np.zeros(samples, dtype=np.float32),
        policy_indices=ragged,
        policy_values=ragged,
        board_type=np.asarray(board),
        metadata=np.array({"game_count": 2}, dtype=object),
    )


def set_trap(folder: Path, trap: str) -> None:
    (folder / "trap").write_text(trap)
