"""Search trees of many games at once, as flat arrays and compiled kernels.

Node 0 of each game is its root. Values are vectors with a number per seat, so two players are not a special case:
a node's player maximises the own entry (max^n). Positions with a single legal move never become nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from backend.rules.apply import apply_move
from backend.rules.batch import advance_forced, buffer_size
from backend.rules.jit import kernel
from backend.rules.layout import PLAYER, SWAPPED, WINNER
from backend.rules.legal import legal_into

C_VISIT = 50.0
C_SCALE = 0.5
"""How strongly values outweigh the prior: ``(C_VISIT + most visits) * C_SCALE * value``, values being win
probabilities stretched over their range at the node (Danihelka et al. 2022, equation 8, with mctx's stretching).

The scale is measured: with 0.1, 0.5 and 1.5, networks of 400 games won 145, 161 and 158 of 200 games of square8_2p and
hex8_2p against Heuristic at 32 simulations (each +-12 at 95 %)."""


class Tree(NamedTuple):
    """G games with at most K nodes and E edges each, for n players.

    Attributes:
        states: int64[G, K, S]; node positions.
        first, widths: int32[G, K]; a node's edges are ``first : first + width``; no edges at the end of a game.
        visits: int32[G, K]; times a node was passed or reached.
        total: float64[G, K, n]; sum of the value vectors of those visits, by seat.
        raw: float64[G, K, n]; the network's own value of the node.
        exchanged: uint8[G, K]; 1 when sides were swapped on the way from the parent.
        nodes, edges: int32[G]; how many are used.
        move: int64[G, E]; prior: float32[G, E], logits; child: int32[G, E], -1 none yet.
        path: int32[G, K + 1], nodes of the current simulation from the root; length: int32[G].
    """

    states: NDArray[np.int64]
    first: NDArray[np.int32]
    widths: NDArray[np.int32]
    visits: NDArray[np.int32]
    total: NDArray[np.float64]
    raw: NDArray[np.float64]
    exchanged: NDArray[np.uint8]
    nodes: NDArray[np.int32]
    edges: NDArray[np.int32]
    move: NDArray[np.int64]
    prior: NDArray[np.float32]
    child: NDArray[np.int32]
    path: NDArray[np.int32]
    length: NDArray[np.int32]


def new_tree(roots: NDArray[np.int64], players: int, simulations: int, edges: int) -> Tree:
    """Trees whose roots are the states ``roots[G, S]``, not yet expanded, with room for ``edges`` edges each."""
    games, size = roots.shape
    nodes = simulations + 1
    states = np.empty((games, nodes, size), dtype=np.int64)
    states[:, 0] = roots
    return Tree(
        states=states,
        first=np.zeros((games, nodes), dtype=np.int32),
        widths=np.zeros((games, nodes), dtype=np.int32),
        visits=np.zeros((games, nodes), dtype=np.int32),
        total=np.zeros((games, nodes, players)),
        raw=np.zeros((games, nodes, players)),
        exchanged=np.zeros((games, nodes), dtype=np.uint8),
        nodes=np.ones(games, dtype=np.int32),
        edges=np.zeros(games, dtype=np.int32),
        move=np.zeros((games, edges), dtype=np.int64),
        prior=np.zeros((games, edges), dtype=np.float32),
        child=np.full((games, edges), -1, dtype=np.int32),
        path=np.zeros((games, nodes + 1), dtype=np.int32),
        length=np.zeros(games, dtype=np.int32),
    )


def widen(tree: Tree, edges: int) -> Tree:
    """The same trees with room for ``edges`` edges each."""
    games, had = tree.move.shape
    move = np.zeros((games, edges), dtype=np.int64)
    prior = np.zeros((games, edges), dtype=np.float32)
    child = np.full((games, edges), -1, dtype=np.int32)
    move[:, :had], prior[:, :had], child[:, :had] = tree.move, tree.prior, tree.child
    return tree._replace(move=move, prior=prior, child=child)


@kernel
def list_edges(tree: Tree, game: int, node: int, tables: NDArray[np.int16], buffer: NDArray[np.int64]) -> int:
    """Appends the legal moves of a node as edges; 0, or how many edges the game needs when there is no room."""
    found = legal_into(tree.states[game, node], tables, buffer)
    if found > buffer.size:
        buffer = np.empty(found, np.int64)
        legal_into(tree.states[game, node], tables, buffer)
    start = tree.edges[game]
    if start + found > tree.move.shape[1]:
        return int(start + found)
    tree.first[game, node] = start
    tree.widths[game, node] = found
    tree.move[game, start : start + found] = buffer[:found]
    tree.child[game, start : start + found] = -1
    tree.edges[game] = start + found
    return 0


@kernel
def complete_values(tree: Tree, game: int, node: int, out: NDArray[np.float64]) -> int:
    """Scores of a node's edges by value, added to nothing: ``(C_VISIT + most visits) * C_SCALE * stretched value``.

    An edge not tried yet takes the node's mixed value: the network's own, and the tried edges' weighted by the prior
    (Danihelka et al. 2022, appendix D, equation 33). ``out`` float64[count]; returns the visits of all edges.
    """
    start = tree.first[game, node]
    count = tree.widths[game, node]
    mover = tree.states[game, node, PLAYER] - 1
    top = -np.inf
    for i in range(count):
        top = max(top, float(tree.prior[game, start + i]))
    visits = 0
    most = 0
    mass = 0.0
    weighted = 0.0
    for i in range(count):
        child = tree.child[game, start + i]
        if child < 0:
            continue
        tried = tree.visits[game, child]
        seat = mover
        if tree.exchanged[game, child] and mover < 2:
            seat = 1 - mover
        value = tree.total[game, child, seat] / tried
        out[i] = value
        weight = np.exp(float(tree.prior[game, start + i]) - top)
        mass += weight
        weighted += weight * value
        visits += tried
        most = max(most, tried)
    mixed = tree.raw[game, node, mover]
    if visits > 0:
        mixed = (mixed + visits * weighted / max(mass, 1e-12)) / (1.0 + visits)
    low = np.inf
    high = -np.inf
    for i in range(count):
        if tree.child[game, start + i] < 0:
            out[i] = mixed
        low = min(low, out[i])
        high = max(high, out[i])
    span = max(high - low, 1e-8)
    scale = (C_VISIT + most) * C_SCALE
    for i in range(count):
        out[i] = scale * (out[i] - low) / span
    return visits


@kernel
def edge_visits(tree: Tree, game: int, edge: int) -> int:
    """Times an edge was taken."""
    child = tree.child[game, edge]
    return int(tree.visits[game, child]) if child >= 0 else 0


@kernel
def pick_inside(tree: Tree, game: int, node: int, scores: NDArray[np.float64]) -> int:
    """The edge that brings the visits nearest to the improved policy (Danihelka et al. 2022, equation 14)."""
    start = tree.first[game, node]
    count = tree.widths[game, node]
    visits = complete_values(tree, game, node, scores)
    top = -np.inf
    for i in range(count):
        scores[i] += float(tree.prior[game, start + i])
        top = max(top, scores[i])
    total = 0.0
    for i in range(count):
        scores[i] = np.exp(scores[i] - top)
        total += scores[i]
    best = 0
    best_score = -np.inf
    for i in range(count):
        score = scores[i] / total - edge_visits(tree, game, start + i) / (1.0 + visits)
        if score > best_score:
            best, best_score = i, score
    return int(start + best)


@kernel
def pick_root(tree: Tree, game: int, noise: NDArray[np.float64], wanted: int, scores: NDArray[np.float64]) -> int:
    """The root edge with the best ``noise + prior + value score`` among those taken ``wanted`` times."""
    count = tree.widths[game, 0]
    complete_values(tree, game, 0, scores)
    best = -1
    best_score = -np.inf
    for i in range(count):
        if edge_visits(tree, game, i) == wanted:
            score = noise[i] + float(tree.prior[game, i]) + scores[i]
            if score > best_score:
                best, best_score = i, score
    return best


@kernel
def descend(
    tree: Tree,
    tables: NDArray[np.int16],
    begin: int,
    noise: NDArray[np.float64],
    wanted: NDArray[np.int64],
    leaves: NDArray[np.int32],
) -> int:
    """One simulation's way down in each game from ``begin`` on, adding at most one node a game.

    Args:
        noise: float64[G, E0], what is added to the root's edges.
        wanted: int64[G], times the root edge to try has been taken so far.
        leaves: int32[G], written: the node that was reached, or -1 - node when its value is exact (the game is over).

    Returns:
        G when all are done; otherwise ``-(edges needed)``, with ``leaves[g] == -2**31`` at the game that lacks room.
    """
    games = tree.states.shape[0]
    buffer = np.empty(buffer_size(tables), np.int64)
    scores = np.empty(tree.move.shape[1], np.float64)
    for game in range(begin, games):
        node = 0
        tree.path[game, 0] = 0
        length = 1
        while True:
            edge = (
                pick_inside(tree, game, node, scores)
                if node
                else pick_root(tree, game, noise[game], wanted[game], scores)
            )
            child = tree.child[game, edge]
            if child < 0:
                new = tree.nodes[game]
                tree.states[game, new] = tree.states[game, node]
                state = tree.states[game, new]
                apply_move(state, tables, tree.move[game, edge])
                advance_forced(state, tables, buffer)
                tree.widths[game, new] = 0
                if state[PLAYER] != 0:
                    needed = list_edges(tree, game, new, tables, buffer)
                    if needed:
                        leaves[game] = -(2**31)
                        return -needed
                tree.exchanged[game, new] = state[SWAPPED] != tree.states[game, node, SWAPPED]
                tree.child[game, edge] = new
                tree.nodes[game] = new + 1
                child = new
            node = child
            tree.path[game, length] = node
            length += 1
            if tree.visits[game, node] == 0 or tree.widths[game, node] == 0:
                break
        tree.length[game] = length
        leaves[game] = node if tree.widths[game, node] else -1 - node
    return int(games)


@kernel
def expand(
    tree: Tree,
    which: NDArray[np.int64],
    leaves: NDArray[np.int32],
    logits: NDArray[np.float32],
    values: NDArray[np.float64],
) -> None:
    """Gives the leaves of games ``which`` their priors and raw values.

    ``logits`` holds the moves of these leaves one after the other, ``values`` float64[len(which), n] by seat.
    """
    at = 0
    for i in range(len(which)):
        game = which[i]
        node = leaves[game]
        start = tree.first[game, node]
        count = tree.widths[game, node]
        tree.prior[game, start : start + count] = logits[at : at + count]
        at += count
        tree.raw[game, node] = values[i]


@kernel
def back_up(tree: Tree, leaves: NDArray[np.int32]) -> None:
    """Adds each leaf's value to every node on its path, exchanging seats 1 and 2 where sides were swapped."""
    players = tree.total.shape[2]
    value = np.empty(players, np.float64)
    for game in range(len(leaves)):
        leaf = leaves[game]
        if leaf < 0:
            node = -1 - leaf
            value[:] = 0.0
            value[tree.states[game, node, WINNER] - 1] = 1.0
        else:
            value[:] = tree.raw[game, leaf]
        for step in range(tree.length[game] - 1, -1, -1):
            node = tree.path[game, step]
            tree.visits[game, node] += 1
            for seat in range(players):
                tree.total[game, node, seat] += value[seat]
            if tree.exchanged[game, node]:
                value[0], value[1] = value[1], value[0]


@kernel
def finish(tree: Tree, noise: NDArray[np.float64], best: NDArray[np.int64], policy: NDArray[np.float64]) -> None:
    """The move of each game, and the improved policy of its root.

    ``best`` int64[G]: the root edge with the best score among those taken most often. ``policy`` float64[G, E0]:
    softmax of prior and value score over the root's edges, 0 beyond them.
    """
    scores = np.empty(tree.move.shape[1], np.float64)
    for game in range(len(best)):
        count = tree.widths[game, 0]
        most = 0
        for i in range(count):
            most = max(most, edge_visits(tree, game, i))
        best[game] = tree.move[game, pick_root(tree, game, noise[game], most, scores)]
        complete_values(tree, game, 0, scores)
        top = -np.inf
        for i in range(count):
            scores[i] += float(tree.prior[game, i])
            top = max(top, scores[i])
        total = 0.0
        for i in range(count):
            total += np.exp(scores[i] - top)
        policy[game] = 0.0
        for i in range(count):
            policy[game, i] = np.exp(scores[i] - top) / total
