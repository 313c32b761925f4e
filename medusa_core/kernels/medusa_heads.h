// Drafting with Medusa heads: K trunks of residual blocks on one hidden state, then the best tokens of each head.
#pragma once
#include "lm_head.h"

namespace medusa {

struct Heads { long heads, layers, hidden, vocab; bool own; };  // own: an LM head each, else one for all

// out (K, d) = the trunks' outputs for hidden (d,); weights packed (layers, K, d, d), bias (layers, K, d).
template <class W>
static void trunks(const Heads& h, const float* hidden, const typename W::type* weight, const float* bias, float* out) {
    const long d = h.hidden;
    for (long k = 0; k < h.heads; ++k) memcpy(out + k * d, hidden, d * sizeof(float));
    std::vector<float> inner(h.heads * d);
    for (long layer = 0; layer < h.layers; ++layer, bias += h.heads * d, weight += h.heads * d * d) {
        memcpy(inner.data(), bias, h.heads * d * sizeof(float));
#pragma omp parallel
        for (long k = 0; k < h.heads; ++k) {
            const Share s = share(d / 16);
            linear<W>(out + k * d, 1, d, weight + k * d * d, d * 16, d, s.begin, s.end, &inner[k * d], d, true);
        }
        for (long i = 0; i < h.heads * d; i += 16) {
            const v16 a = load16(&inner[i]), e = exp16(sub16(zero16(), a));
            store16(out + i, add16(load16(out + i), div16(a, add16(set16(1.f), e))));
        }
    }
}

// ids, values (K, k): each head's best tokens with their log-probabilities over its vocabulary; x (K, d) trunks' outputs.
template <class W>
static void best_tokens(const Heads& h, const float* x, const typename W::type* lm_head, size_t k, int* ids,
                        float* values) {
    std::vector<float> all(h.heads * h.vocab);
    const long rows = h.own ? 1 : h.heads, head_size = (h.vocab + 15) / 16 * 16 * h.hidden;
    for (long r = 0; r < h.heads; r += rows)
        logits<W>(x + r * h.hidden, rows, h.hidden, lm_head + (h.own ? r * head_size : 0), h.vocab, &all[r * h.vocab]);
#pragma omp parallel for
    for (long r = 0; r < h.heads; ++r) top_logprobs(&all[r * h.vocab], h.vocab, k, ids + r * k, values + r * k);
}

template <class W>
static void draft(const Heads& h, const float* hidden, const typename W::type* weight, const float* bias,
                  const typename W::type* lm_head, size_t k, int* ids, float* values) {
    std::vector<float> x(h.heads * h.hidden);
    trunks<W>(h, hidden, weight, bias, x.data());
    best_tokens<W>(h, x.data(), lm_head, k, ids, values);
}

}  // namespace medusa
