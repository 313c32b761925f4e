// Drafting with a recurrent cell: a whole tree in one call, depth by depth, with a state for each node that has
// children. The equations are those of heads/cells.py; states and outputs are rows, one a node.
#pragma once
#include "lm_head.h"

namespace medusa {

struct Sizes { long hidden, state, vocab; };
struct Tree { long n; const int *parent, *depth, *rank; };  // root first, then depth by depth, siblings together

static inline v16 sigmoid16(v16 x) { return div16(set16(1.f), add16(set16(1.f), exp16(sub16(zero16(), x)))); }
static inline v16 silu16(v16 x) { return div16(x, add16(set16(1.f), exp16(sub16(zero16(), x)))); }
static inline v16 tanh16(v16 x) {
    return sub16(mul16(set16(2.f), sigmoid16(add16(x, x))), set16(1.f));
}

// out (n, N) (+)= x (n, K) . W^T; rows of x are ldx apart, those of out ldo.
template <class W>
static void product(const float* x, long ldx, long n, long K, const typename W::type* w, long N, float* out, long ldo,
                    bool add = true) {
#pragma omp parallel
    {
        const Share s = share(N / 16);
        linear<W>(x, n, ldx, w, K * 16, K, s.begin, s.end, out, ldo, add);
    }
}

static void fill_rows(const float* row, long n, long size, float* out) {
    for (long r = 0; r < n; ++r) memcpy(out + r * size, row, size * sizeof(float));
}

static void silu_all(float* x, long size) {
    for (long i = 0; i < size; i += 16) store16(x + i, silu16(load16(x + i)));
}

// y = x / rms(x)
static void unit_rms(const float* x, long d, float* y) {
    v16 squares = zero16();
    for (long i = 0; i < d; i += 16) squares = fma16(load16(x + i), load16(x + i), squares);
    const v16 scale = set16(1.f / std::sqrt(sum16(squares) / d + 1e-5f));
    for (long i = 0; i < d; i += 16) store16(y + i, mul16(load16(x + i), scale));
}

static inline void widen(const uint16_t* from, long size, float* to) {
    for (long i = 0; i < size; ++i) {
        const uint32_t bits = (uint32_t)from[i] << 16;
        memcpy(to + i, &bits, 4);
    }
}
static inline void widen(const float* from, long size, float* to) { memcpy(to, from, size * sizeof(float)); }

// Hands out a cell's parameters in the order of its `shapes`.
template <class W> struct Reader {
    const typename W::type* next_matrix;
    const float* next_vector;
    const typename W::type* matrix(long rows, long columns) {
        const typename W::type* m = next_matrix;
        next_matrix += rows * columns;
        return m;
    }
    const float* vector(long size) {
        const float* v = next_vector;
        next_vector += size;
        return v;
    }
};

// h + SiLU(W_h h + W_s s + b): what h gives is computed once a draft.
template <class W> struct ResidualOutput {
    const long d, r;
    const typename W::type *out_hidden, *out_state;
    const float* out_bias;
    const float* hidden = nullptr;
    std::vector<float> from_hidden;

    ResidualOutput(Reader<W>& p, const Sizes& z)
        : d(z.hidden), r(z.state), out_hidden(p.matrix(d, d)), out_state(p.matrix(d, r)), out_bias(p.vector(d)) {}
    void begin(const float* h) {
        hidden = h;
        from_hidden.assign(out_bias, out_bias + d);
        product<W>(h, d, 1, d, out_hidden, d, from_hidden.data(), d);
    }
    void output(const float* s, long n, float* out) const {
        fill_rows(from_hidden.data(), n, d, out);
        product<W>(s, r, n, r, out_state, d, out, d);
        silu_all(out, n * d);
        for (long i = 0; i < n; ++i)
            for (long j = 0; j < d; j += 16) {
                float* at = out + i * d + j;
                store16(at, add16(load16(at), load16(hidden + j)));
            }
    }
};

// Every cell: width = floats of a state; begin sets the state that h gives; step turns the states (n, width) in place,
// with e (n, d); output writes (n, d).
template <class W> struct GruCell {
    const long d, r, width;
    const typename W::type *start, *embed, *input, *recurrent, *candidate;
    const float* bias;
    ResidualOutput<W> residual;
    std::vector<float> x, pre, kept;

    GruCell(Reader<W> p, const Sizes& z)
        : d(z.hidden), r(z.state), width(r), start(p.matrix(r, d)), embed(p.matrix(r, d)), input(p.matrix(3 * r, r)),
          recurrent(p.matrix(2 * r, r)), candidate(p.matrix(r, r)), bias(p.vector(3 * r)), residual(p, z) {}
    void begin(const float* h, float* s) {
        product<W>(h, d, 1, d, start, r, s, r, false);
        residual.begin(h);
    }
    void step(const float* e, float* s, long n) {
        x.resize(n * r), pre.resize(3 * n * r), kept.resize(n * r);
        product<W>(e, d, n, d, embed, r, x.data(), r, false);
        fill_rows(bias, n, 3 * r, pre.data());
        product<W>(x.data(), r, n, r, input, 3 * r, pre.data(), 3 * r);
        product<W>(s, r, n, r, recurrent, 2 * r, pre.data(), 3 * r);
        for (long i = 0; i < n; ++i)
            for (long j = 0; j < r; j += 16)
                store16(&kept[i * r + j], mul16(sigmoid16(load16(&pre[(3 * i + 1) * r + j])), load16(s + i * r + j)));
        product<W>(kept.data(), r, n, r, candidate, r, &pre[2 * r], 3 * r);
        for (long i = 0; i < n; ++i)
            for (long j = 0; j < r; j += 16) {
                const v16 z = sigmoid16(load16(&pre[3 * i * r + j])), old = load16(s + i * r + j);
                const v16 c = tanh16(load16(&pre[(3 * i + 2) * r + j]));
                store16(s + i * r + j, fma16(z, sub16(c, old), old));
            }
    }
    void output(const float* s, long n, float* out) const { residual.output(s, n, out); }
};

template <class W> struct ReDrafterCell {
    const long d, r, width;
    const typename W::type *input, *recurrent;
    const float* bias;
    ResidualOutput<W> residual;
    std::vector<float> pre;

    ReDrafterCell(Reader<W> p, const Sizes& z)
        : d(z.hidden), r(z.state), width(r), input(p.matrix(r, d)), recurrent(p.matrix(r, r)), bias(p.vector(r)),
          residual(p, z) {}
    void begin(const float* h, float* s) {
        std::fill(s, s + r, 0.f);
        residual.begin(h);
    }
    void step(const float* e, float* s, long n) {
        pre.resize(n * r);
        fill_rows(bias, n, r, pre.data());
        product<W>(e, d, n, d, input, r, pre.data(), r);
        product<W>(s, r, n, r, recurrent, r, pre.data(), r);
        silu_all(pre.data(), n * r);
        memcpy(s, pre.data(), n * r * sizeof(float));
    }
    void output(const float* s, long n, float* out) const { residual.output(s, n, out); }
};

template <class W> struct GatedCell {
    const long d, r, width;
    const typename W::type *token, *gate;
    const float* gate_bias;
    const typename W::type* inner;
    const float* inner_bias;
    const typename W::type* outer;
    const float* outer_bias;
    std::vector<float> z, middle, moved;

    GatedCell(Reader<W> p, const Sizes& size)
        : d(size.hidden), r(size.state), width(d), token(p.matrix(d, d)), gate(p.matrix(d, d)), gate_bias(p.vector(d)),
          inner(p.matrix(r, d)), inner_bias(p.vector(r)), outer(p.matrix(d, r)), outer_bias(p.vector(d)) {}
    void begin(const float* h, float* s) { memcpy(s, h, d * sizeof(float)); }
    void step(const float* e, float* s, long n) {
        z.resize(n * d), middle.resize(n * r), moved.resize(n * d);
        product<W>(e, d, n, d, token, d, s, d);
        fill_rows(gate_bias, n, d, z.data());
        product<W>(s, d, n, d, gate, d, z.data(), d);
        fill_rows(inner_bias, n, r, middle.data());
        product<W>(s, d, n, d, inner, r, middle.data(), r);
        silu_all(middle.data(), n * r);
        fill_rows(outer_bias, n, d, moved.data());
        product<W>(middle.data(), r, n, r, outer, d, moved.data(), d);
        for (long i = 0; i < n * d; i += 16) {
            const v16 a = load16(s + i);
            store16(s + i, fma16(sigmoid16(load16(&z[i])), sub16(load16(&moved[i]), a), a));
        }
    }
    void output(const float* s, long n, float* out) const { memcpy(out, s, n * d * sizeof(float)); }
};

template <class W> struct LstmCell {  // a state: m (r), c (r), the predicted hidden state (d)
    const long d, r, width;
    const typename W::type* embed;
    const float* embed_bias;
    const typename W::type *input, *recurrent;
    const float* bias;
    const typename W::type* feature;
    std::vector<float> both, u, pre;

    LstmCell(Reader<W> p, const Sizes& z)
        : d(z.hidden), r(z.state), width(2 * r + d), embed(p.matrix(r, 2 * d)), embed_bias(p.vector(r)),
          input(p.matrix(4 * r, r)), recurrent(p.matrix(4 * r, r)), bias(p.vector(4 * r)), feature(p.matrix(d, r)) {}
    void begin(const float* h, float* s) {
        std::fill(s, s + 2 * r, 0.f);
        memcpy(s + 2 * r, h, d * sizeof(float));
    }
    void step(const float* e, float* s, long n) {
        both.resize(2 * n * d), u.resize(n * r), pre.resize(4 * n * r);
        float *m = s, *cell = s + r, *f = s + 2 * r;
        for (long i = 0; i < n; ++i) {
            memcpy(&both[2 * i * d], e + i * d, d * sizeof(float));
            unit_rms(f + i * width, d, &both[(2 * i + 1) * d]);
        }
        fill_rows(embed_bias, n, r, u.data());
        product<W>(both.data(), 2 * d, n, 2 * d, embed, r, u.data(), r);
        fill_rows(bias, n, 4 * r, pre.data());
        product<W>(u.data(), r, n, r, input, 4 * r, pre.data(), 4 * r);
        product<W>(m, width, n, r, recurrent, 4 * r, pre.data(), 4 * r);
        for (long i = 0; i < n; ++i)
            for (long j = 0; j < r; j += 16) {
                const float* gates = &pre[4 * i * r + j];
                const v16 old = mul16(sigmoid16(load16(gates + r)), load16(cell + i * width + j));
                const v16 c = fma16(sigmoid16(load16(gates)), tanh16(load16(gates + 3 * r)), old);
                store16(cell + i * width + j, c);
                store16(m + i * width + j, mul16(sigmoid16(load16(gates + 2 * r)), tanh16(c)));
            }
        product<W>(m, width, n, r, feature, d, f, width);
    }
    void output(const float* s, long n, float* out) const {
        for (long i = 0; i < n; ++i) memcpy(out + i * d, s + i * width + 2 * r, d * sizeof(float));
    }
};

// ids, values (n,): each node's index among the tokens that can be guessed, and its log-probability given its parent.
// root (d,): embedding of the root's token; embedding (vocab, d): of the tokens that can be guessed.
template <class W, class Cell>
static void draft_with(Cell cell, const Sizes& z, const float* hidden, const float* root, const Tree& tree,
                       const typename W::type* embedding, const typename W::type* lm_head, int* ids, float* values) {
    const long d = z.hidden;
    static std::vector<float> all;  // ops run one after another; the buffer is kept between drafts
    std::vector<float> states(cell.width), next, e, out, best_value;
    std::vector<long> row(tree.n, 0), nodes;  // row: of a node in the states of its depth
    std::vector<int> best;
    cell.begin(hidden, states.data());
    ids[0] = 0, values[0] = 0;
    for (long first = 1, last; first < tree.n; first = last) {  // [first, last): the nodes of one depth
        size_t k = 0;
        nodes.clear();  // the parents of those
        for (last = first; last < tree.n && tree.depth[last] == tree.depth[first]; ++last) {
            k = std::max(k, (size_t)tree.rank[last] + 1);
            if (nodes.empty() || nodes.back() != tree.parent[last]) nodes.push_back(tree.parent[last]);
        }
        const long rows = nodes.size();
        next.resize(rows * cell.width), e.resize(rows * d), out.resize(rows * d), all.resize(rows * z.vocab);
        best.resize(rows * k), best_value.resize(rows * k);
        for (long i = 0; i < rows; ++i) {
            const long node = nodes[i], above = node ? row[tree.parent[node]] : 0;
            memcpy(&next[i * cell.width], &states[above * cell.width], cell.width * sizeof(float));
            if (node) widen(embedding + ids[node] * d, d, &e[i * d]);
            else memcpy(&e[i * d], root, d * sizeof(float));
        }
        for (long i = 0; i < rows; ++i) row[nodes[i]] = i;
        cell.step(e.data(), next.data(), rows);
        cell.output(next.data(), rows, out.data());
        logits<W>(out.data(), rows, d, lm_head, z.vocab, all.data());
#pragma omp parallel for
        for (long i = 0; i < rows; ++i) top_logprobs(&all[i * z.vocab], z.vocab, k, &best[i * k], &best_value[i * k]);
        for (long c = first; c < last; ++c) {
            const long at = row[tree.parent[c]] * k + tree.rank[c];
            ids[c] = best[at], values[c] = best_value[at];
        }
        states.swap(next);
    }
}

// kind: the cell's place in RECURRENT_KINDS of config.py.
template <class W>
static void draft_tree(int kind, const Sizes& z, const float* hidden, const float* root, const Tree& tree,
                       const typename W::type* matrices, const float* vectors, const typename W::type* embedding,
                       const typename W::type* lm_head, int* ids, float* values) {
    const Reader<W> p = {matrices, vectors};
    const auto draft = [&](auto cell) { draft_with<W>(cell, z, hidden, root, tree, embedding, lm_head, ids, values); };
    switch (kind) {
        case 0: return draft(GruCell<W>(p, z));
        case 1: return draft(GatedCell<W>(p, z));
        case 2: return draft(ReDrafterCell<W>(p, z));
        case 3: return draft(LstmCell<W>(p, z));
    }
}

}  // namespace medusa
