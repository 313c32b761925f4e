"""The CPU kernels as Jittor ops: one jt.code call each, its C++ in the headers of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medusa_core import machine, runtime
from medusa_core.config import RECURRENT_KINDS

runtime.start()
import jittor as jt

FOLDER = Path(__file__).parent
# Jittor's own flags hold -Ofast, which lets the compiler reorder sums; a row's bits must not depend on its company.
FLAGS = {f'FLAGS: -O3 -fno-fast-math -fno-math-errno -ffp-contract=off -I"{FOLDER}" ': 1}
STAGES = ("qkv", "attention", "out", "gate and up", "down", "other")  # of forward.h, in its order
ELEMENT = {"bfloat16": "BFloat16", "float32": "Float32"}


def room(shape, dtype):
    """A Jittor array on large memory pages, for weights that every step reads; write its contents into `.data`."""
    with jt.flag_scope(compile_options=FLAGS), jt.no_grad():
        empty = jt.code(
            list(shape),
            str(np.dtype(dtype)),
            [],
            cpu_header='#include "memory.h"\n',
            cpu_src="medusa::use_large_pages(out0_p, out0->size);",
        )
        empty.sync()
    return empty


def place(array: np.ndarray):
    """`array` as a Jittor array on large memory pages."""
    placed = room(array.shape, array.dtype)
    placed.data[...] = array
    return placed


class Kernels:
    """The ops for one element type of the weights ("bfloat16" or "float32").

    isa: 512, 256 or 1 forces an instruction set; by default the best this machine has. dot: whether to multiply pairs
    of bfloat16 by one instruction; by default where that is faster. tiles: whether to add up such products in the order
    of Intel's matrix unit, from which other texts come; by default as `machine.tiles` says.
    """

    def __init__(
        self, dtype: str, isa: int | None = None, dot: bool | None = None, tiles: bool | None = None
    ):
        dot = machine.fast_pairs() if dot is None else dot
        tiles = machine.tiles() if tiles is None else tiles
        self.forced = f"#define MEDUSA_ISA {isa}\n" if isa else ""
        self.forced += f"#define MEDUSA_DOT {int(dot)}\n#define MEDUSA_TILES {int(tiles)}\n"
        self.forced += f"#define MEDUSA_UNIT {int(tiles and machine.matrix_unit())}\n"
        self.element = ELEMENT[dtype]

    def _run(self, inputs, outputs, data, source, header="medusa_heads.h"):
        types = f"typedef medusa::{self.element} W; typedef const W::type* Packed;\n"
        # Jittor hashes the headers it finds through -I, so an edited one is compiled anew.
        included = f'{self.forced}#include "{header}"\n'
        with jt.flag_scope(compile_options=FLAGS):
            return jt.code(inputs, outputs, cpu_header=included, cpu_src=types + source, data=data)

    def forward(self, model, weights, rope, rows, extra, keys, values, seconds=None):
        """Run the blocks over `rows` (n, 7) int32, writing into the caches in place; returns hidden (n, d) float32.

        weights: packed embedding, qkv, out, gate_up, down, then norms (2 L + 1, d) and bias (L, qkv); rope: cos and
        sin (positions, head_dim / 2); extra (n, D) int32; keys, values (L, batch, kv_heads, head_dim * slots).
        model: layers, hidden, intermediate, heads, kv_heads, head_dim, eps. seconds: zeros (len(STAGES),) float32, to
        which the time of each stage is added.
        """
        out = jt.empty((rows.shape[0], int(model["hidden"])))
        clock = "" if seconds is None else ", medusa::StageClock{out3_p}"
        self._run(
            [*weights, *rope, rows, extra],
            [keys, values, out] if seconds is None else [keys, values, out, seconds],
            model,
            f"""medusa::Model m = {{(long)data["layers"], (long)data["hidden"], (long)data["intermediate"],
                          (long)data["heads"], (long)data["kv_heads"], (long)data["head_dim"], (float)data["eps"]}};
               medusa::Weights<W> w = {{(Packed)in0_p, (Packed)in1_p, (Packed)in2_p, (Packed)in3_p, (Packed)in4_p,
                                        in5_p, in6_p}};
               medusa::forward<W>(m, w, {{in7_p, in8_p}}, (const medusa::Row*)in9_p, in10_p, in10_shape1, in9_shape0,
                                  out0_p, out1_p, out0_shape1, out0_shape3 / m.head_dim, out2_p{clock});""",
        )
        return out

    def commit(self, moves, head_dim, keys, values):
        """Copy cache rows in place: moves (m, 3) int32 of sequence, from slot, to slot, carried out in order."""
        self._run(
            [moves],
            [keys, values],
            {"head_dim": head_dim},
            """medusa::commit(in0_p, in0_shape0, (long)data["head_dim"], out0_p, out1_p, out0_shape0, out0_shape1,
                              out0_shape2, out0_shape3);""",
        )

    def logits(self, hidden, packed, vocab):
        """hidden (n, d) times the packed (vocab, d) matrix: (n, vocab) float32."""
        out = jt.empty((hidden.shape[0], vocab))
        self._run(
            [hidden, packed],
            [out],
            {},
            "medusa::logits<W>(in0_p, in0_shape0, in0_shape1, (Packed)in1_p, out0_shape1, out0_p);",
        )
        return out

    def top(self, hidden, packed, vocab, k):
        """The k highest logits of each row: ids (n, k) int32 and values (n, k) float32, highest first."""
        n = hidden.shape[0]
        ids, values = jt.empty((n, k), "int32"), jt.empty((n, k))
        self._run(
            [hidden, packed],
            [ids, values],
            {"vocab": vocab},
            """medusa::top_k<W>(in0_p, in0_shape0, in0_shape1, (Packed)in1_p, (long)data["vocab"], out0_shape1,
                                out0_p, out1_p);""",
        )
        return ids, values

    def draft(self, hidden, weight, bias, lm_head, vocab, k):
        """Medusa heads' k best tokens after hidden (d,): ids (K, k) int32 and log-probabilities (K, k), best first.

        weight: packed (layers, K, d/16, ...); bias (layers, K, d); lm_head: packed, (1, ...) for all or (K, ...).
        """
        heads = bias.shape[1]
        ids, values = jt.empty((heads, k), "int32"), jt.empty((heads, k))
        self._run(
            [hidden, weight, bias, lm_head],
            [ids, values],
            {"vocab": vocab},
            """medusa::Heads h = {in2_shape1, in2_shape0, in2_shape2, (long)data["vocab"], in3_shape0 > 1};
               medusa::draft<W>(h, in0_p, (Packed)in1_p, in2_p, (Packed)in3_p, out0_shape1, out0_p, out1_p);""",
        )
        return ids, values

    def draft_experts(self, hidden, router, weight, bias, lm_head, active, vocab, k):
        """Mixture-of-experts heads' k best tokens after hidden (d,), as `draft`.

        router (K, E, d); weight: packed (K, E, d/16, ...); bias (K, E, d); active: experts that a head uses.
        """
        heads = bias.shape[0]
        ids, values = jt.empty((heads, k), "int32"), jt.empty((heads, k))
        self._run(
            [hidden, router, weight, bias, lm_head],
            [ids, values],
            {"vocab": vocab, "active": active},
            """medusa::Heads h = {in3_shape0, 1, in3_shape2, (long)data["vocab"], in4_shape0 > 1};
               medusa::draft_experts<W>(h, in3_shape1, (long)data["active"], in0_p, in1_p, (Packed)in2_p, in3_p,
                                        (Packed)in4_p, out0_shape1, out0_p, out1_p);""",
            header="moe_heads.h",
        )
        return ids, values

    def draft_tree(self, cell, state_size, hidden, embedding, nodes, weights, vocab):
        """A recurrent cell's guesses for a tree after hidden (d,): indices (n,) int32 and log-probabilities (n,).

        cell: one of RECURRENT_KINDS; embedding (1, d): of the root's token; nodes (3, n) int32: parent, depth and rank;
        weights: the cell's packed matrices and its vectors, each one after another in the order of its `shapes`, the
        embedding (vocab, d) of the tokens it guesses, not packed, and the packed LM head. The root's values are 0.
        """
        n = nodes.shape[1]
        ids, values = jt.empty((n,), "int32"), jt.empty((n,))
        self._run(
            [hidden, embedding, nodes, *weights],
            [ids, values],
            {"cell": RECURRENT_KINDS.index(cell), "state": state_size, "vocab": vocab},
            """medusa::Sizes size = {in0_shape0, (long)data["state"], (long)data["vocab"]};
               medusa::Tree tree = {in2_shape1, in2_p, in2_p + in2_shape1, in2_p + 2 * in2_shape1};
               medusa::draft_tree<W>((int)data["cell"], size, in0_p, in1_p, tree, (Packed)in3_p, in4_p, (Packed)in5_p,
                                     (Packed)in6_p, out0_p, out1_p);""",
            header="recurrent_heads.h",
        )
        return ids, values
