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

// gate <- silu(gate) * up
static void swiglu(float* gate, const float* up, long size) {
    for (long i = 0; i < size; i += 16) {
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

// The first place of a buffer, 16 floats larger than is needed, that begins a cache line.
static inline float* aligned(std::vector<float>& buffer) {
    return (float*)(((uintptr_t)buffer.data() + 63) / 64 * 64);
}

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

// The stages of a forward whose seconds can be asked for; `other` is the embedding and the last norm.
enum Stage { QKV, ATTENTION, OUT, GATE_UP, DOWN, OTHER, STAGES };

struct NoClock { void lap(Stage) {} };
struct StageClock {  // of one thread: waiting for the others counts to the stage that ends in it
    float* seconds;  // (STAGES,)
    double last = omp_get_wtime();
    void lap(Stage stage) {
        const double now = omp_get_wtime();
        if (omp_get_thread_num() == 0) seconds[stage] += now - last;
        last = now;
    }
};

// y (n, hidden) = final norm of the stack over the rows, writing their keys and values into the caches
// (layers, batch, kv_heads, head_dim * slots).
template <class W, class Clock = NoClock>
static void forward(const Model& m, const Weights<W>& w, const Rope& rope, const Row* row, const int* extra,
                    long extra_width, long n, float* keys, float* values, long batch, long slots, float* y,
                    Clock clock = Clock()) {
    typedef const typename W::type* Packed;
    const long d = m.hidden, f = m.intermediate, q = m.query_size(), qkv = m.qkv_size();
    const long group = m.heads / m.kv_heads, hd = m.head_dim, per_head = hd / 16;
    const long layer_cache = batch * m.kv_heads * hd * slots;
    // What threads exchange; ops run one after another, so buffers are kept between steps. On cores that are far apart,
    // exchange costs more than arithmetic: nobody reads along another's columns, `projected` (heads, n, head_dim) lies
    // head by head, and what `down` multiplies is rounded by its writer.
    static std::vector<float> scratch;
    static std::vector<typename W::In> gated;
    scratch.resize(n * (d + qkv + q) + 16);
    gated.resize(n * W::width(f));
    float *x = aligned(scratch), *projected = x + n * d, *attended = projected + n * qkv;
    const std::vector<Task> tasks = attention_tasks(m, row, n);

#pragma omp parallel firstprivate(clock)
    {
        static thread_local std::vector<float> mine, row_normed, mlp;
        static thread_local std::vector<typename W::In> normed;
        row_normed.resize(d), normed.resize(n * W::width(d));
        const Share my_rows = share(n), of_qkv = share(qkv / 16), of_hidden = share(d / 16), of_mlp = share(f / 16);
        const long own = (of_mlp.end - of_mlp.begin) * 16;
        mlp.resize(2 * n * own + 16);
        float *gate = aligned(mlp), *up = gate + n * own;
        for (long r = my_rows.begin; r < my_rows.end; ++r) embed(m, w, row[r], x + r * d);
        // Every thread norms all rows for itself: cheaper than waiting until the others have done theirs.
        const auto norm = [&](const float* gain) {
            for (long r = 0; r < n; ++r) {
                rms_norm(x + r * d, gain, d, m.eps, row_normed.data());
                W::round(row_normed.data(), d, &normed[r * W::width(d)]);
            }
        };
        for (long layer = 0; layer < m.layers; ++layer) {
            const float* norms = w.norms + 2 * layer * d;
            const Packed w_qkv = w.qkv + layer * qkv * d, w_out = w.out + layer * d * q;
            const Packed w_gate = w.gate_up + layer * 2 * f * d, w_up = w_gate + f * d, w_down = w.down + layer * d * f;
            const Packed w_next = layer + 1 < m.layers ? w_qkv + (qkv + of_qkv.begin * 16) * d : nullptr;
#pragma omp barrier
            clock.lap(layer ? DOWN : OTHER);
            norm(norms);
            for (long b = of_qkv.begin, stop; b < of_qkv.end; b = stop) {
                const long head = b / per_head, first = head * per_head;
                stop = std::min(first + per_head, of_qkv.end);
                float* out = projected + head * n * hd;
                for (long r = 0; r < n; ++r)
                    memcpy(out + r * hd + (b - first) * 16, w.bias + layer * qkv + b * 16, (stop - b) * 16 * sizeof(float));
                multiply<W>(normed.data(), n, W::width(d), w_qkv + first * d * 16, d * 16, d, b - first, stop - first, out,
                            hd, true, stop < of_qkv.end ? w_qkv + stop * d * 16 : w_out + of_hidden.begin * q * 16);
            }
#pragma omp barrier
            clock.lap(QKV);
            const Cache cache = {keys + layer * layer_cache, values + layer * layer_cache, m.kv_heads, hd, slots};
            // By head, not by row: neighbouring slots of a key share cache lines, which would travel between the cores.
#pragma omp for
            for (long h = 0; h < m.kv_heads; ++h)
                for (long r = 0; r < n; ++r) {
                    const float* key = projected + ((m.heads + h) * n + r) * hd;
                    append(cache, rope, row[r], h, key, key + m.kv_heads * n * hd, mine);
                }
#pragma omp for schedule(dynamic)
            for (size_t t = 0; t < tasks.size(); ++t) {
                const Task& task = tasks[t];
                const long r = task.first, h = task.head * group;
                attend(cache, rope, row + r, extra + r * extra_width, extra_width, task.rows, group, task.head,
                       projected + (h * n + r) * hd, n * hd, attended + r * q + h * hd, q, mine);
            }
            clock.lap(ATTENTION);
            linear<W>(attended, n, q, w_out, q * 16, q, of_hidden.begin, of_hidden.end, x, d, true,
                      w_gate + of_mlp.begin * d * 16);
#pragma omp barrier
            clock.lap(OUT);
            norm(norms + d);
            multiply<W>(normed.data(), n, W::width(d), w_gate + of_mlp.begin * d * 16, d * 16, d, 0, own / 16, gate, own,
                        false, w_up + of_mlp.begin * d * 16);
            multiply<W>(normed.data(), n, W::width(d), w_up + of_mlp.begin * d * 16, d * 16, d, 0, own / 16, up, own,
                        false, w_down + of_hidden.begin * f * 16);
            for (long r = 0; r < n; ++r) {
                swiglu(gate + r * own, up + r * own, own);
                W::round(gate + r * own, own, &gated[r * W::width(f) + W::width(of_mlp.begin * 16)]);
            }
#pragma omp barrier
            clock.lap(GATE_UP);
            multiply<W>(gated.data(), n, W::width(f), w_down, f * 16, f, of_hidden.begin, of_hidden.end, x, d, true,
                        w_next);
        }
#pragma omp barrier
        clock.lap(DOWN);
        for (long r = my_rows.begin; r < my_rows.end; ++r)
            rms_norm(x + r * d, w.norms + 2 * m.layers * d, d, m.eps, y + r * d);
        clock.lap(OTHER);
    }
}

}  // namespace medusa
