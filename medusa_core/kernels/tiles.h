// y = x W^T in bfloat16 by tiles: on Intel's matrix unit (AMX), or in the unit's order, slowly, on any other processor.
//
// A step takes 32 values of k: their 16 even products are added up from zero in one chain, the 16 odd ones in another;
// the two sums are added, and that to what the output holds. So a row's bits do not depend on other rows, and they are
// the same on all processors (but where numbers below 1e-38 matter, which the unit takes for zero).
// x (n, K/2) lies in pairs, the even one in the low half; W is packed as linear.h says: 16 of its lines are a tile.
#pragma once
#include <algorithm>

#include "simd.h"

#if MEDUSA_TILES && MEDUSA_ISA == 512 && MEDUSA_UNIT
#ifndef __AMX_BF16__
#error "this compiler does not know the matrix unit (AMX): take g++ 11 or later, or set MEDUSA_AMX=0"
#endif
#else
#undef MEDUSA_UNIT
#define MEDUSA_UNIT 0
#endif

namespace medusa {

static const long step_pairs = 16;  // of k

#if MEDUSA_UNIT

static const long tile_rows = 16;

// What travels while tiles are multiplied: from memory to the second-level cache so many of the next block's 64-byte
// lines a step, and where x leaves room for it in the first-level cache, this block's tile of two steps later to there.
struct Fetch {
    const char* next;
    long lines;
    bool closer;
    inline void step(const uint16_t* tile) {
        for (long i = 0; i < lines; ++i, next += 64) _mm_prefetch(next, _MM_HINT_T1);
        if (closer)
            for (long i = 0; i < 16; ++i) _mm_prefetch((const char*)tile + 2048 + i * 64, _MM_HINT_T0);
    }
};

// One pass over a block: up to 16 rows of x by 16 columns. The numbers are those of the unit's registers, which the
// instructions want as constants: for the sums, x and W.
#define MEDUSA_PASS(NAME, SUM, X, W)                                                                                 \
    static void NAME(const uint32_t* x, long ldx, const uint16_t* w, long steps, float* out, long ldo, bool add,     \
                     Fetch fetch) {                                                                                  \
        if (add) _tile_loadd(SUM, out, ldo * 4);                                                                     \
        else _tile_zero(SUM);                                                                                        \
        for (long s = 0; s < steps; ++s, x += step_pairs, w += step_pairs * 32) {                                    \
            fetch.step(w);                                                                                           \
            _tile_loadd(X, x, ldx * 4);                                                                              \
            _tile_loadd(W, w, 64);                                                                                   \
            _tile_dpbf16ps(SUM, X, W);                                                                               \
        }                                                                                                            \
        _tile_stored(SUM, out, ldo * 4);                                                                             \
    }
MEDUSA_PASS(pass_full, 0, 1, 2)  // 16 rows
MEDUSA_PASS(pass_last, 3, 4, 2)  // those left over; changing a register's shape would take as long as 20 steps
#undef MEDUSA_PASS

static void shape_registers(long last, long pairs) {
    struct alignas(64) { uint8_t palette, start, reserved[14]; uint16_t bytes[16]; uint8_t rows[16]; } shapes = {1};
    for (int t = 0; t < 5; ++t) {
        shapes.bytes[t] = t == 1 || t == 4 ? pairs * 4 : 64;
        shapes.rows[t] = t == 2 ? pairs : t < 2 ? tile_rows : last;
    }
    _tile_loadconfig(&shapes);
}

// out[r, 16 b ...] (+)= x[r] . W over `steps` steps of `pairs` for the blocks b in [begin, end). Passes over a block
// share the fetching of the next one, so that memory is never asked for more at once than it gives.
static void multiply_steps(const uint32_t* x, long n, long ldx, const uint16_t* w, long stride, long steps, long pairs,
                           long begin, long end, float* out, long ldo, bool add, const uint16_t* after) {
    const long passes = (n + tile_rows - 1) / tile_rows, full = passes - 1, each = (step_pairs + full) / passes;
    const bool closer = n * steps * pairs * 4 <= 16 << 10;
    shape_registers(n - full * tile_rows, pairs);
    for (long b = begin; b < end; ++b) {
        const uint16_t* here = w + b * stride;
        const char* next = (const char*)(b + 1 < end || !after ? here + stride : after);
        for (long p = 0; p < passes; ++p) {
            const long row = p * tile_rows, lines = std::max(0L, std::min(each, step_pairs - p * each));
            (p < full ? pass_full : pass_last)(x + row * ldx, ldx, here, steps, out + row * ldo + b * 16, ldo, add,
                                               Fetch{next + p * each * steps * 64, lines, closer});
        }
    }
    _tile_release();
}

#else

static void multiply_steps(const uint32_t* x, long n, long ldx, const uint16_t* w, long stride, long steps, long pairs,
                           long begin, long end, float* out, long ldo, bool add, const uint16_t*) {
    for (long b = begin; b < end; ++b)
        for (long r = 0; r < n; ++r) {
            float* to = out + r * ldo + b * 16;
            v16 sum = add ? load16(to) : zero16();
            for (long p = 0; p < steps * pairs;) {
                v16 even = zero16(), odd = zero16();
                for (const long stop = p + pairs; p < stop; ++p) {
                    const uint32_t two = x[r * ldx + p];
                    const uint16_t* line = w + b * stride + p * 32;
                    even = fma16(set16(float_bits(two << 16)), even_bf16(line), even);
                    odd = fma16(set16(float_bits(two & 0xffff0000)), odd_bf16(line), odd);
                }
                sum = add16(sum, add16(even, odd));
            }
            store16(to, sum);
        }
}

#endif

// As `multiply` in linear.h. K is a multiple of 16: a last half step is one of its own.
static void multiply_tiles(const uint32_t* x, long n, long ldx, const uint16_t* w, long stride, long K, long begin,
                           long end, float* out, long ldo, bool add, const uint16_t* after) {
    const long steps = K / 2 / step_pairs, done = steps * step_pairs, rest = K / 2 - done;
    if (n == 0 || begin >= end) return;
    if (steps) multiply_steps(x, n, ldx, w, stride, steps, step_pairs, begin, end, out, ldo, add, after);
    if (rest)
        multiply_steps(x + done, n, ldx, w + done * 32, stride, 1, rest, begin, end, out, ldo, add || steps, after);
}

}  // namespace medusa
