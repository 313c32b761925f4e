// Drafting with mixture-of-experts heads: each head's router picks experts, and only their weights are read.
#pragma once
#include "medusa_heads.h"

namespace medusa {

struct Choice { std::vector<long> expert; std::vector<float> gate; };

// The `active` experts with the highest router logits, the lower one of equals, with their gates.
static Choice choose(const float* hidden, const float* router, long experts, long active, long d) {
    std::vector<Best> best;
    float top = -1e30f, total = 0;
    std::vector<float> score(experts);
    for (long e = 0; e < experts; ++e) {
        v16 sum = zero16();
        for (long i = 0; i < d; i += 16) sum = fma16(load16(hidden + i), load16(router + e * d + i), sum);
        score[e] = sum16(sum);
        top = std::max(top, score[e]);
        keep(best, active, {score[e], (int)e});
    }
    // One expert counts by its probability among all, several among themselves (see heads/moe.py).
    if (active == 1) for (float s : score) total += std::exp(s - top);
    else for (const Best& b : best) total += std::exp(b.value - top);
    Choice choice;
    for (const Best& b : best) choice.expert.push_back(b.id), choice.gate.push_back(std::exp(b.value - top) / total);
    return choice;
}

// ids, values (K, k) as `draft`; router (K, E, d), weights packed (K, E, d, d), bias (K, E, d).
template <class W>
static void draft_experts(const Heads& h, long experts, long active, const float* hidden, const float* router,
                          const typename W::type* weight, const float* bias, const typename W::type* lm_head, size_t k,
                          int* ids, float* values) {
    const long d = h.hidden;
    std::vector<float> x(h.heads * d), inner(h.heads * active * d);
    std::vector<Choice> choices;
    for (long head = 0; head < h.heads; ++head) {
        choices.push_back(choose(hidden, router + head * experts * d, experts, active, d));
        memcpy(&x[head * d], hidden, d * sizeof(float));
        for (long a = 0; a < active; ++a)
            memcpy(&inner[(head * active + a) * d], bias + (head * experts + choices[head].expert[a]) * d,
                   d * sizeof(float));
    }
#pragma omp parallel
    for (long head = 0; head < h.heads; ++head)
        for (long a = 0; a < active; ++a) {
            const Share s = share(d / 16);
            linear<W>(hidden, 1, d, weight + (head * experts + choices[head].expert[a]) * d * d, d * 16, d, s.begin,
                      s.end, &inner[(head * active + a) * d], d, true);
        }
    for (long head = 0; head < h.heads; ++head)
        for (long a = 0; a < active; ++a)
            for (long i = 0; i < d; i += 16) {
                const v16 v = load16(&inner[(head * active + a) * d + i]), e = exp16(sub16(zero16(), v));
                const v16 silu = div16(v, add16(set16(1.f), e));
                store16(&x[head * d + i], fma16(set16(choices[head].gate[a]), silu, load16(&x[head * d + i])));
            }
    best_tokens<W>(h, x.data(), lm_head, k, ids, values);
}

}  // namespace medusa
