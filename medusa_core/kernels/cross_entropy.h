// Softmax cross-entropy of rows of logits z (rows, v), with an optional second target, a row of probabilities q:
//   loss = logsumexp(z) - (1 - w) z[target] - w sum_j q[j] z[j]
// One row is one thread's, so a row's result does not depend on the number of threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

namespace medusa {

static inline float row_max(const float* z, int64_t v) {
    float top = z[0];
#pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < v; ++j) top = std::max(top, z[j]);
    return top;
}

static inline float logsumexp(const float* z, int64_t v) {
    const float top = row_max(z, v);
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < v; ++j) sum += std::exp(z[j] - top);
    return top + std::log(sum);
}

// Logits that come before z[t] in descending order; equal logits rank by index, as argmax does.
static inline int rank_of(const float* z, int64_t v, int64_t t) {
    const float value = z[t];
    int before = 0;
#pragma omp simd reduction(+ : before)
    for (int64_t j = 0; j < t; ++j) before += z[j] >= value;
#pragma omp simd reduction(+ : before)
    for (int64_t j = t + 1; j < v; ++j) before += z[j] > value;
    return before;
}

static inline void softmax_rows(const float* z, float* out, int64_t rows, int64_t v) {
#pragma omp parallel for
    for (int64_t r = 0; r < rows; ++r) {
        const float norm = logsumexp(z + r * v, v);
#pragma omp simd
        for (int64_t j = 0; j < v; ++j) out[r * v + j] = std::exp(z[r * v + j] - norm);
    }
}

// target (rows,): negative = no target: loss 0, rank v. q (m, v) and q_row (rows,) are read only when w > 0.
static inline void cross_entropy_forward(const float* z, const int* target, const float* q, const int* q_row, float w,
                                         float* loss, float* norm, int* rank, int64_t rows, int64_t v) {
#pragma omp parallel for
    for (int64_t r = 0; r < rows; ++r) {
        const float* row = z + r * v;
        const int t = target[r];
        if (t < 0) {
            loss[r] = norm[r] = 0;
            rank[r] = (int)v;
            continue;
        }
        norm[r] = logsumexp(row, v);
        rank[r] = rank_of(row, v, t);
        float wanted = (1 - w) * row[t];
        if (w > 0) {
            const float* p = q + (int64_t)q_row[r] * v;
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t j = 0; j < v; ++j) dot += p[j] * row[j];
            wanted += w * dot;
        }
        loss[r] = norm[r] - wanted;
    }
}

// dz = dloss * (softmax(z) - (1 - w) onehot(target) - w q), zero where there is no target.
static inline void cross_entropy_backward(const float* z, const int* target, const float* q, const int* q_row, float w,
                                          const float* norm, const float* dloss, float* dz, int64_t rows, int64_t v) {
#pragma omp parallel for
    for (int64_t r = 0; r < rows; ++r) {
        const float* row = z + r * v;
        float* out = dz + r * v;
        const int t = target[r];
        const float g = dloss[r];
        if (t < 0 || g == 0) {
            std::fill(out, out + v, 0.0f);
            continue;
        }
        const float n = norm[r];
        if (w > 0) {
            const float* p = q + (int64_t)q_row[r] * v;
#pragma omp simd
            for (int64_t j = 0; j < v; ++j) out[j] = g * (std::exp(row[j] - n) - w * p[j]);
        } else {
#pragma omp simd
            for (int64_t j = 0; j < v; ++j) out[j] = g * std::exp(row[j] - n);
        }
        out[t] -= g * (1 - w);
    }
}

}  // namespace medusa
