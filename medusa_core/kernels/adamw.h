// One AdamW update in place: p, m and v change, g is read.
#pragma once
#include <cmath>
#include <cstdint>

namespace medusa {

// scale clips g; step and correction hold the bias corrections of m and v; shrink is lr * weight_decay.
static inline void adamw_update(float* p, float* m, float* v, const float* g, int64_t size, float scale, float beta1,
                                float beta2, float step, float correction, float eps, float shrink) {
#pragma omp parallel for simd
    for (int64_t i = 0; i < size; ++i) {
        const float grad = g[i] * scale;
        m[i] = beta1 * m[i] + (1 - beta1) * grad;
        v[i] = beta2 * v[i] + (1 - beta2) * grad * grad;
        p[i] = p[i] * (1 - shrink) - step * m[i] / (std::sqrt(v[i] * correction) + eps);
    }
}

}  // namespace medusa
