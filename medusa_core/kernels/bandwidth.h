// Reading memory as fast as the kernels can, and how long it takes: the bound for steps that wait for weights. And how
// long data takes from one core to another, which many rows wait for.
#pragma once
#include <omp.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "simd.h"

namespace medusa {

// The sum of 16 `lines` floats, each read once. A thread reads eight streams side by side and fetches ahead, as `tile`
// of linear.h does with its columns.
static float read_once(const float* p, long lines) {
    const int streams = 8;
    float total = 0;
#pragma omp parallel reduction(+ : total)
    {
        const long length = lines / omp_get_num_threads() / streams;
        const float* begin = p + omp_get_thread_num() * streams * length * 16;
        v16 sum[streams];
        for (int s = 0; s < streams; ++s) sum[s] = zero16();
        for (long i = 0; i < length; ++i) {
#pragma GCC unroll 8
            for (int s = 0; s < streams; ++s) {
                const float* line = begin + (s * length + i) * 16;
#if MEDUSA_ISA > 1
                _mm_prefetch((const char*)(line + 8 * 16), _MM_HINT_T0);
                _mm_prefetch((const char*)(line + 64 * 16), _MM_HINT_T1);
#endif
                sum[s] = add16(sum[s], load16(line));
            }
        }
#pragma omp single
        for (long i = omp_get_num_threads() * streams * length; i < lines; ++i) sum[0] = add16(sum[0], load16(p + i * 16));
        for (int s = 0; s < streams; ++s) total += sum16(sum[s]);
    }
    return total;
}

// Read p `passes` times; seconds, sums (passes,): of each.
static void read_passes(const float* p, long lines, long passes, float* seconds, float* sums) {
    for (long i = 0; i < passes; ++i) {
        const auto begin = std::chrono::steady_clock::now();
        sums[i] = read_once(p, lines);
        seconds[i] = std::chrono::duration<float>(std::chrono::steady_clock::now() - begin).count();
    }
}

// Seconds that a cache line takes from one thread to the other while two take `turns` in writing it.
static float exchange(long turns) {
    alignas(64) std::atomic<long> turn{0};
    const auto begin = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(2)
    for (long i = omp_get_thread_num(); i < turns; i += omp_get_num_threads()) {
        for (long waited = 0; turn.load(std::memory_order_acquire) != i; ++waited)
            if (waited > 100000) std::this_thread::yield();  // both share a core
        turn.store(i + 1, std::memory_order_release);
    }
    return std::chrono::duration<float>(std::chrono::steady_clock::now() - begin).count() / turns;
}

}  // namespace medusa
