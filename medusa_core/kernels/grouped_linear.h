// K linear layers of one size through oneDNN, without copying their inputs or outputs together.
#pragma once
#include <cstdint>

// Declared here because Jittor loads oneDNN into the process but does not give its headers to jt.code.
extern "C" int dnnl_sgemm(char transa, char transb, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
                          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

namespace medusa {

// y[g] (n, m) = x[g] (n, d) w[g] (m, d)^T; x has one group when all share it.
static inline void grouped_forward(const float* x, const float* w, float* y, int64_t groups, int64_t x_groups,
                                   int64_t n, int64_t m, int64_t d) {
    for (int64_t g = 0; g < groups; ++g)
        dnnl_sgemm('N', 'T', n, m, d, 1.0f, x + (x_groups > 1 ? g : 0) * n * d, d, w + g * m * d, d, 0.0f,
                   y + g * n * m, m);
}

// dx[g] (n, d) = dy[g] w[g], summed over the groups when they share x.
static inline void grouped_backward_input(const float* dy, const float* w, float* dx, int64_t groups, int64_t x_groups,
                                          int64_t n, int64_t m, int64_t d) {
    for (int64_t g = 0; g < groups; ++g)
        dnnl_sgemm('N', 'N', n, d, m, 1.0f, dy + g * n * m, m, w + g * m * d, d,
                   x_groups == 1 && g > 0 ? 1.0f : 0.0f, dx + (x_groups > 1 ? g : 0) * n * d, d);
}

// dw[g] (m, d) = dy[g]^T x[g]
static inline void grouped_backward_weight(const float* dy, const float* x, float* dw, int64_t groups, int64_t x_groups,
                                           int64_t n, int64_t m, int64_t d) {
    for (int64_t g = 0; g < groups; ++g)
        dnnl_sgemm('T', 'N', m, d, n, 1.0f, dy + g * n * m, m, x + (x_groups > 1 ? g : 0) * n * d, d, 0.0f,
                   dw + g * m * d, d);
}

}  // namespace medusa
