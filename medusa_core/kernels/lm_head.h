// The LM head: all logits, or only the k highest of each row so that a vocabulary of logits is never written out.
#pragma once
#include "forward.h"

namespace medusa {

// out (n, vocab) = x (n, d) . W^T
template <class W>
static void logits(const float* x, long n, long d, const typename W::type* w, long vocab, float* out) {
    const long blocks = (vocab + 15) / 16, whole = vocab / 16;
#pragma omp parallel
    {
        const Share s = share(blocks);
        linear<W>(x, n, d, w, d * 16, d, s.begin, std::min(s.end, whole), out, vocab, false);
        if (s.end > whole) {  // the last block is partly padding
            std::vector<float> last(n * 16);
            linear<W>(x, n, d, w + whole * d * 16, d * 16, d, 0, 1, last.data(), 16, false);
            for (long r = 0; r < n; ++r) memcpy(out + r * vocab + whole * 16, &last[r * 16], (vocab - whole * 16) * 4);
        }
    }
}

struct Best { float value; int id; };
static inline bool before(const Best& a, const Best& b) {  // higher first; of equals the lower id
    return a.value > b.value || (a.value == b.value && a.id < b.id);
}
static inline void keep(std::vector<Best>& best, size_t k, Best next) {  // best: sorted, at most k
    if (best.size() == k && !before(next, best.back())) return;
    if (best.size() == k) best.pop_back();
    best.insert(std::upper_bound(best.begin(), best.end(), next, before), next);
}

// ids, values (k,): the tokens with the highest of a row's logits (vocab,), highest first, and their log-probabilities.
static void top_logprobs(const float* row, long vocab, size_t k, int* ids, float* values) {
    std::vector<Best> best;
    for (long i = 0; i < vocab; ++i)
        if (best.size() < k || row[i] > best.back().value) keep(best, k, {row[i], (int)i});
    const long whole = vocab / 16 * 16;
    v16 total = zero16();
    for (long i = 0; i < whole; i += 16) total = add16(total, exp16(sub16(load16(row + i), set16(best[0].value))));
    float sum = sum16(total);
    for (long i = whole; i < vocab; ++i) sum += std::exp(row[i] - best[0].value);
    const float norm = best[0].value + std::log(sum);
    for (size_t i = 0; i < k; ++i) ids[i] = best[i].id, values[i] = best[i].value - norm;
}

// ids, values (n, k): the k highest logits of each row, highest first.
template <class W>
static void top_k(const float* x, long n, long d, const typename W::type* w, long vocab, size_t k, int* ids,
                  float* values) {
    const long blocks = (vocab + 15) / 16, panel = 24;
    std::vector<std::vector<Best>> best(omp_get_max_threads() * n);
    long threads = 1;
#pragma omp parallel
    {
        const Share s = share(blocks);
        std::vector<float> part(n * panel * 16);
        std::vector<Best>* mine = best.data() + omp_get_thread_num() * n;
        long ldx = d;
        const typename W::In* input = W::input(x, n, d, ldx);
#pragma omp single
        threads = omp_get_num_threads();
        for (long b = s.begin; b < s.end; b += panel) {
            const long stop = std::min(b + panel, s.end), count = std::min(stop * 16, vocab) - b * 16;
            multiply<W>(input, n, ldx, w + b * d * 16, d * 16, d, 0, stop - b, part.data(), panel * 16, false,
                        w + stop * d * 16);
            for (long r = 0; r < n; ++r) {
                const float* row = &part[r * panel * 16];
                for (long i = 0; i < count; i += 16) {
                    const long lanes = std::min(16L, count - i);
                    if (mine[r].size() == k && lanes == 16 && highest16(load16(row + i)) < mine[r].back().value) continue;
                    for (long j = i; j < i + lanes; ++j) keep(mine[r], k, {row[j], (int)(b * 16 + j)});
                }
            }
        }
    }
    for (long r = 0; r < n; ++r) {
        std::vector<Best> all;
        for (long t = 0; t < threads; ++t)
            for (const Best& b : best[t * n + r]) keep(all, k, b);
        for (size_t i = 0; i < k; ++i) ids[r * k + i] = all[i].id, values[r * k + i] = all[i].value;
    }
}

}  // namespace medusa
