// y = x W^T for few rows of x and packed W, with the same bits for a row whatever other rows share the call:
// each output is one chain of fused multiply-adds over k = 0, 1, 2, ..., in every tile shape.
//
// W (N, K) is packed in blocks of 16 output columns: float32 as [N/16][K][16],
// bfloat16 as [N/16][K/2][16][2], so that one 64-byte load holds two k of 16 columns.
#pragma once
#include <algorithm>

#include "simd.h"

namespace medusa {

struct Float32 {
    typedef float type;
    static const int depth = 1;   // values of k in one 64-byte line
    template <int J> static inline v16 line(const float* p) { return load16(p); }
    static inline float at(const float* block, long k, int lane) { return block[k * 16 + lane]; }
};

struct BFloat16 {
    typedef uint16_t type;
    static const int depth = 2;
    template <int J> static inline v16 line(const uint16_t* p) { return J ? odd_bf16(p) : even_bf16(p); }
    static inline float at(const uint16_t* block, long k, int lane) {
        uint32_t u = (uint32_t)block[k / 2 * 32 + lane * 2 + k % 2] << 16;
        float f;
        memcpy(&f, &u, 4);
        return f;
    }
};

// x[r] is addressed as base[r / 3] + {0, 1, 2} * ldx, which one instruction can do: a pointer a row would not fit the
// registers, and reloading pointers takes as long as the arithmetic.
template <class W, int J, int R, int C>
static inline void tile_line(const float* const (&base)[(R + 2) / 3], long ldx, const typename W::type* w, long stride,
                             v16 (&acc)[R][C]) {
    v16 column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = W::template line<J>(w + c * stride);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
        const v16 value = set16(base[r / 3][r % 3 * ldx + J]);
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = fma16(value, column[c], acc[r][c]);
    }
}

// R rows by C blocks held in registers; with `add` the sums start from what `out` holds (a residual, a bias).
// While it computes, the weights of the next tile travel from memory to the second-level cache (`ahead` lies as far
// from w as those do), and those of the next few k from there to the first: that keeps both cores' memory busy.
template <class W, int R, int C>
static void tile(const float* x, long ldx, const typename W::type* w, const typename W::type* ahead, long stride,
                 long K, float* out, long ldo, bool add) {
    const int line = 16 * W::depth;
    v16 acc[R][C];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = add ? load16(out + r * ldo + c * 16) : zero16();
    const float* base[(R + 2) / 3];
    for (int i = 0; i < (R + 2) / 3; ++i) base[i] = x + 3 * i * ldx;
    for (long k = 0; k < K; k += W::depth, w += line, ahead += line) {
        asm("" : "+r"(ldx));  // or the compiler computes a pointer a row after all
#if MEDUSA_ISA > 1
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) {
            _mm_prefetch((const char*)(w + c * stride + 8 * line), _MM_HINT_T0);
            _mm_prefetch((const char*)(ahead + c * stride), _MM_HINT_T1);
        }
#endif
        tile_line<W, 0, R, C>(base, ldx, w, stride, acc);
        if (W::depth == 2) tile_line<W, W::depth - 1, R, C>(base, ldx, w, stride, acc);
#pragma GCC unroll 4
        for (int i = 0; i < (R + 2) / 3; ++i) base[i] += W::depth;
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) store16(out + r * ldo + c * 16, acc[r][c]);
}

// As many blocks at once as the registers hold beside R rows.
#if MEDUSA_ISA == 512
static const int max_rows = 12;
constexpr int tile_columns(int R) { return R <= 2 ? 8 : R <= 6 ? 4 : R <= 8 ? 3 : 2; }
#else
static const int max_rows = 4;
constexpr int tile_columns(int R) { return R == 1 ? 4 : R == 2 ? 2 : 1; }
#endif

// The weights that are multiplied after the ones at hand: none (they are in a cache already), or the `tile`-th tile of
// what begins at `start`, prefetched while the same tile of the weights at hand is computed.
template <class W> struct Next { const typename W::type* start; long tile; };

template <class W, int R, int C>
static inline void columns(const float* x, long ldx, const typename W::type* w, Next<W> next, long stride, long K,
                           long& b, long end, float* out, long ldo, bool add) {
    for (; b + C <= end; b += C, --next.tile) {
        const typename W::type* here = w + b * stride;
        const typename W::type* ahead = next.tile == 0 ? next.start : here;
        tile<W, R, C>(x, ldx, here, ahead, stride, K, out + b * 16, ldo, add);
    }
}
template <class W, int R, int C>
static inline void columns(const float* x, long ldx, const typename W::type* w, long stride, long K, long& b, long end,
                           float* out, long ldo, bool add) {
    for (; b + C <= end; b += C) tile<W, R, C>(x, ldx, w + b * stride, stride, K, out + b * 16, ldo, add);
}

template <class W, int R>
static void row_group(const float* x, long ldx, const typename W::type* w, Next<W> next, long stride, long K, long b,
                      long end, float* out, long ldo, bool add) {
    constexpr int C = tile_columns(R);
    columns<W, R, C>(x, ldx, w, next, stride, K, b, end, out, ldo, add);
    columns<W, R, (C > 4 ? 4 : C)>(x, ldx, w, next, stride, K, b, end, out, ldo, add);
    columns<W, R, (C > 2 ? 2 : C)>(x, ldx, w, next, stride, K, b, end, out, ldo, add);
    columns<W, R, 1>(x, ldx, w, next, stride, K, b, end, out, ldo, add);
}

template <class W>
static inline void row_groups(int rows, const float* x, long ldx, const typename W::type* w, Next<W> next, long stride,
                              long K, long b, long end, float* out, long ldo, bool add) {
#define MEDUSA_ROWS(R) \
    case R: return row_group<W, (R <= max_rows ? R : 1)>(x, ldx, w, next, stride, K, b, end, out, ldo, add);
    switch (rows) {
        MEDUSA_ROWS(1) MEDUSA_ROWS(2) MEDUSA_ROWS(3) MEDUSA_ROWS(4) MEDUSA_ROWS(5) MEDUSA_ROWS(6)
        MEDUSA_ROWS(7) MEDUSA_ROWS(8) MEDUSA_ROWS(9) MEDUSA_ROWS(10) MEDUSA_ROWS(11) MEDUSA_ROWS(12)
    }
#undef MEDUSA_ROWS
}

// out[r, 16 b ...] (+)= x[r] . W for the blocks b in [begin, end): x (n, K) with row stride ldx, out with ldo;
// `stride` is the distance between blocks, 16 K for a packed matrix; `after`: the weights this thread needs next.
// Many rows go panel by panel, so that a panel of weights is read from memory once and stays in the cache; each group
// of rows fetches one tile of the panel that follows, so that reading is spread over the computing.
template <class W>
static void linear(const float* x, long n, long ldx, const typename W::type* w, long stride, long K, long begin,
                   long end, float* out, long ldo, bool add, const typename W::type* after = nullptr) {
    if (n == 0) return;
    const long groups = (n + max_rows - 1) / max_rows, size = (n + groups - 1) / groups;
    const long tiles = std::min(groups, 4L), panel = tiles * tile_columns(size);
    for (long b = begin; b < end; b += panel) {
        const long stop = std::min(b + panel, end);
        const typename W::type* follows = stop < end ? w + stop * stride : after;
        for (long g = 0; g < groups; ++g) {
            const long r = g * size, rows = std::min(size, n - r), offset = g * tile_columns(size) * stride;
            const Next<W> next = {follows + offset, follows && g < tiles ? g : -1};
            row_groups<W>(rows, x + r * ldx, ldx, w, next, stride, K, b, stop, out + r * ldo, ldo, add);
        }
    }
}

}  // namespace medusa
