// Attention in which every query sees one run of keys, forward and backward, as matrix products on tiles of queries.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

// Declared here because Jittor loads oneDNN into the process but does not give its headers to jt.code.
extern "C" int dnnl_sgemm(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

namespace medusa {

constexpr int64_t QUERY_TILE = 64;

// q, out (batch, tokens, heads, size); k, v (batch, slots, kv_heads, size); start, end (batch, tokens): the run of
// slots that a query sees; norm (batch, heads, tokens): logarithm of the sum of its exponentials.
struct Spans {
    int64_t batch, tokens, slots, heads, kv_heads, size;
    const int *start, *end;

    int64_t query(int64_t b, int64_t t, int64_t h) const { return ((b * tokens + t) * heads + h) * size; }
    int64_t key(int64_t b, int64_t s, int64_t h) const { return ((b * slots + s) * kv_heads + h) * size; }
    float scale() const { return 1.0f / std::sqrt((float)size); }
};

// Queries [first, first + rows) of one sequence and the slots [low, low + width) that any of them sees.
struct Tile {
    int64_t first, rows, low, width;
    const int *start, *end;

    Tile(const Spans& s, int64_t b, int64_t t)
        : first(t), rows(std::min(QUERY_TILE, s.tokens - t)), start(s.start + b * s.tokens + t),
          end(s.end + b * s.tokens + t) {
        low = *std::min_element(start, start + rows);
        width = *std::max_element(end, end + rows) - low;
    }
    int64_t begin(int64_t row) const { return start[row] - low; }
    int64_t stop(int64_t row) const { return end[row] - low; }
};

// The products between a tile's queries (rows, size), its cells (rows, width) and the slots (width, size).
static inline void scores_of(const Spans& s, const Tile& tile, const float* q, const float* k, float alpha, float* out) {
    dnnl_sgemm('N', 'T', tile.rows, tile.width, s.size, alpha, q, s.heads * s.size, k, s.kv_heads * s.size, 0.0f, out,
               tile.width);
}

static inline void mix_slots(const Spans& s, const Tile& tile, const float* p, const float* v, float* out) {
    dnnl_sgemm('N', 'N', tile.rows, s.size, tile.width, 1.0f, p, tile.width, v, s.kv_heads * s.size, 0.0f, out,
               s.heads * s.size);
}

static inline void add_to_slots(const Spans& s, const Tile& tile, const float* p, const float* q, float* out) {
    dnnl_sgemm('T', 'N', tile.width, s.size, tile.rows, 1.0f, p, tile.width, q, s.heads * s.size, 1.0f, out,
               s.kv_heads * s.size);
}

// Turn a row's scores into probabilities, zero outside [begin, stop); returns the logarithm of their sum.
static inline float softmax_run(float* row, int64_t begin, int64_t stop, int64_t width) {
    float top = row[begin], sum = 0;
#pragma omp simd reduction(max : top)
    for (int64_t j = begin; j < stop; ++j) top = std::max(top, row[j]);
#pragma omp simd reduction(+ : sum)
    for (int64_t j = begin; j < stop; ++j) sum += row[j] = std::exp(row[j] - top);
    const float share = 1.0f / sum;
    std::fill(row, row + begin, 0.0f);
#pragma omp simd
    for (int64_t j = begin; j < stop; ++j) row[j] *= share;
    std::fill(row + stop, row + width, 0.0f);
    return top + std::log(sum);
}

static inline void span_forward(const Spans& s, const float* q, const float* k, const float* v, float* out,
                                float* norm) {
#pragma omp parallel
    {
        std::vector<float> scores(QUERY_TILE * s.slots);
#pragma omp for collapse(2)
        for (int64_t b = 0; b < s.batch; ++b)
            for (int64_t h = 0; h < s.heads; ++h) {
                const int64_t kv = h / (s.heads / s.kv_heads);
                for (int64_t t = 0; t < s.tokens; t += QUERY_TILE) {
                    const Tile tile(s, b, t);
                    scores_of(s, tile, q + s.query(b, t, h), k + s.key(b, tile.low, kv), s.scale(), scores.data());
                    for (int64_t i = 0; i < tile.rows; ++i)
                        norm[(b * s.heads + h) * s.tokens + t + i] =
                            softmax_run(scores.data() + i * tile.width, tile.begin(i), tile.stop(i), tile.width);
                    mix_slots(s, tile, scores.data(), v + s.key(b, tile.low, kv), out + s.query(b, t, h));
                }
            }
    }
}

// p becomes the probabilities and g, which holds dout v^T, the gradient of the scores, scale included.
static inline void score_gradient(const Spans& s, const Tile& tile, const float* norm, const float* out,
                                  const float* dout, float* p, float* g) {
    for (int64_t i = 0; i < tile.rows; ++i) {
        float *row = p + i * tile.width, *slope = g + i * tile.width, dot = 0;
        const float *o = out + i * s.heads * s.size, *d = dout + i * s.heads * s.size;
#pragma omp simd reduction(+ : dot)
        for (int64_t j = 0; j < s.size; ++j) dot += o[j] * d[j];
        const int64_t begin = tile.begin(i), stop = tile.stop(i);
        std::fill(row, row + begin, 0.0f), std::fill(slope, slope + begin, 0.0f);
#pragma omp simd
        for (int64_t j = begin; j < stop; ++j) {
            row[j] = std::exp(row[j] - norm[i]);
            slope[j] = row[j] * (slope[j] - dot) * s.scale();
        }
        std::fill(row + stop, row + tile.width, 0.0f), std::fill(slope + stop, slope + tile.width, 0.0f);
    }
}

static inline void span_backward(const Spans& s, const float* q, const float* k, const float* v, const float* out,
                                 const float* norm, const float* dout, float* dq, float* dk, float* dv) {
    const int64_t group = s.heads / s.kv_heads;
#pragma omp parallel
    {
        std::vector<float> p(QUERY_TILE * s.slots), g(QUERY_TILE * s.slots);
#pragma omp for collapse(2)
        for (int64_t b = 0; b < s.batch; ++b)
            for (int64_t kv = 0; kv < s.kv_heads; ++kv) {
                for (int64_t j = 0; j < s.slots; ++j) {
                    std::fill_n(dk + s.key(b, j, kv), s.size, 0.0f);
                    std::fill_n(dv + s.key(b, j, kv), s.size, 0.0f);
                }
                for (int64_t h = kv * group; h < (kv + 1) * group; ++h)
                    for (int64_t t = 0; t < s.tokens; t += QUERY_TILE) {
                        const Tile tile(s, b, t);
                        const int64_t query = s.query(b, t, h), key = s.key(b, tile.low, kv);
                        scores_of(s, tile, q + query, k + key, s.scale(), p.data());
                        scores_of(s, tile, dout + query, v + key, 1.0f, g.data());
                        score_gradient(s, tile, norm + (b * s.heads + h) * s.tokens + t, out + query, dout + query,
                                       p.data(), g.data());
                        mix_slots(s, tile, g.data(), k + key, dq + query);
                        add_to_slots(s, tile, g.data(), q + query, dk + key);
                        add_to_slots(s, tile, p.data(), dout + query, dv + key);
                    }
            }
    }
}

}  // namespace medusa
