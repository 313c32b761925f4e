// The whole stack of blocks for a handful of rows: one OpenMP region, so that a decode step costs one Jittor op.
#pragma once
#include <omp.h>

#include "attention.h"

namespace medusa {

// y = x / rms(x) * g, one row.
static void rms_norm(const float* x, const float* gain, long d, float eps, float* y) {
    v16 squares = zero16();
    for (long i = 0; i < d; i += 16) squares = fma16(load16(x + i), load16(x + i), squares);
    const v16 scale = set16(1.f / std::sqrt(sum16(squares) / d + eps));
    for (long i = 0; i < d; i += 16) store16(y + i, mul16(mul16(load16(x + i), scale), load16(gain + i)));
}

// Rotate the halves of one head: cos and sin (head_dim / 2,) of the row's position; `scale` multiplies the result.
static void rotate(float* x, const float* cosine, const float* sine, long head_dim, float scale) {
    const long half = head_dim / 2;
    for (long i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = (a * cosine[i] - b * sine[i]) * scale;
        x[i + half] = (b * cosine[i] + a * sine[i]) * scale;
    }
}

// gate <- silu(gate) * up over the columns [begin, end).
static void swiglu(float* gate, const float* up, long begin, long end) {
    for (long i = begin; i < end; i += 16) {
        const v16 g = load16(gate + i), e = exp16(sub16(zero16(), g));
        store16(gate + i, mul16(div16(g, add16(set16(1.f), e)), load16(up + i)));
    }
}

struct Model {
    long layers, hidden, intermediate, heads, kv_heads, head_dim;
    float eps;
    long query_size() const { return heads * head_dim; }
    long kv_size() const { return kv_heads * head_dim; }
    long qkv_size() const { return query_size() + 2 * kv_size(); }
};

template <class W> struct Weights {  // each packed, layers one after another
    const typename W::type *embedding, *qkv, *out, *gate_up, *down;
    const float *norms;  // (2 layers + 1, hidden): attention, mlp, ..., final
    const float *bias;   // (layers, qkv_size), zero for models without
};

struct Rope { const float *cosine, *sine; };  // (positions, head_dim / 2)

struct Share { long begin, end; };
static inline Share share(long total, long unit = 1) {  // this thread's part, in multiples of `unit`
    const long t = omp_get_thread_num(), threads = omp_get_num_threads(), units = (total + unit - 1) / unit;
    return {std::min(total, units * t / threads * unit), std::min(total, units * (t + 1) / threads * unit)};
}

template <class W>
static void embed(const Model& m, const Weights<W>& w, const Row& row, float* x) {
    const typename W::type* block = w.embedding + row.id / 16 * m.hidden * 16;
    for (long k = 0; k < m.hidden; ++k) x[k] = W::at(block, k, row.id % 16);
}

struct Task { long first, rows, head; };  // rows of one sequence that attend together, one key/value head
static std::vector<Task> attention_tasks(const Model& m, const Row* row, long n) {
    const long most = std::max(1L, max_rows / (m.heads / m.kv_heads));
    std::vector<Task> tasks;
    for (long first = 0, rows; first < n; first += rows) {
        for (rows = 1; rows < most && first + rows < n && row[first + rows].sequence == row[first].sequence;) ++rows;
        for (long head = 0; head < m.kv_heads; ++head) tasks.push_back({first, rows, head});
    }
    return tasks;
}

// y (n, hidden) = final norm of the stack over the rows, writing their keys and values into the caches
// (layers, batch, kv_heads, head_dim * slots).
template <class W>
static void forward(const Model& m, const Weights<W>& w, const Rope& rope, const Row* row, const int* extra,
                    long extra_width, long n, float* keys, float* values, long batch, long slots, float* y) {
    const long d = m.hidden, f = m.intermediate, q = m.query_size(), kv = m.kv_size(), qkv = m.qkv_size();
    const long group = m.heads / m.kv_heads, layer_cache = batch * m.kv_heads * m.head_dim * slots;
    static std::vector<float> scratch;  // ops run one after another; the buffer is kept between steps
    scratch.resize(n * (2 * d + qkv + q + 2 * f));
    float *x = scratch.data(), *normed = x + n * d, *projected = normed + n * d, *attended = projected + n * qkv;
    float *gate = attended + n * q, *up = gate + n * f;
    const std::vector<Task> tasks = attention_tasks(m, row, n);

#pragma omp parallel
    {
        std::vector<float> mine;
        const Share my_rows = share(n);
        for (long r = my_rows.begin; r < my_rows.end; ++r) embed(m, w, row[r], x + r * d);
        for (long layer = 0; layer < m.layers; ++layer) {
            const float* norms = w.norms + 2 * layer * d;
            for (long r = my_rows.begin; r < my_rows.end; ++r) {
                rms_norm(x + r * d, norms, d, m.eps, normed + r * d);
                memcpy(projected + r * qkv, w.bias + layer * qkv, qkv * sizeof(float));
            }
#pragma omp barrier
            Share s = share(qkv / 16);
            linear<W>(normed, n, d, w.qkv + layer * qkv * d, d * 16, d, s.begin, s.end, projected, qkv, true);
#pragma omp barrier
            const Cache cache = {keys + layer * layer_cache, values + layer * layer_cache, m.kv_heads, m.head_dim,
                                 slots};
            for (long r = my_rows.begin; r < my_rows.end; ++r) {
                float* p = projected + r * qkv;
                const float *c = rope.cosine + row[r].position * m.head_dim / 2;
                const float *sn = rope.sine + row[r].position * m.head_dim / 2;
                for (long h = 0; h < m.heads; ++h)
                    rotate(p + h * m.head_dim, c, sn, m.head_dim, 1.f / std::sqrt((float)m.head_dim));
                for (long h = 0; h < m.kv_heads; ++h) {
                    float* key = p + q + h * m.head_dim;
                    rotate(key, c, sn, m.head_dim, 1.f);
                    append(cache, row[r], h, key, key + kv);
                }
            }
#pragma omp barrier
#pragma omp for schedule(dynamic)
            for (size_t t = 0; t < tasks.size(); ++t) {
                const Task& task = tasks[t];
                const long r = task.first, h = task.head * group * m.head_dim;
                attend(cache, row + r, extra + r * extra_width, extra_width, task.rows, group, task.head,
                       projected + r * qkv + h, qkv, attended + r * q + h, q, mine);
            }
            s = share(d / 16);
            linear<W>(attended, n, q, w.out + layer * d * q, q * 16, q, s.begin, s.end, x, d, true);
#pragma omp barrier
            for (long r = my_rows.begin; r < my_rows.end; ++r) rms_norm(x + r * d, norms + d, d, m.eps, normed + r * d);
#pragma omp barrier
            s = share(f / 16);
            const typename W::type* gate_up = w.gate_up + layer * 2 * f * d;
            linear<W>(normed, n, d, gate_up, d * 16, d, s.begin, s.end, gate, f, false);
            linear<W>(normed, n, d, gate_up + f * d, d * 16, d, s.begin, s.end, up, f, false);
            for (long r = 0; r < n; ++r) swiglu(gate + r * f, up + r * f, s.begin * 16, s.end * 16);
#pragma omp barrier
            s = share(d / 16);
            linear<W>(gate, n, f, w.down + layer * d * f, f * 16, f, s.begin, s.end, x, d, true);
#pragma omp barrier
        }
        for (long r = my_rows.begin; r < my_rows.end; ++r)
            rms_norm(x + r * d, w.norms + 2 * m.layers * d, d, m.eps, y + r * d);
    }
}

}  // namespace medusa
