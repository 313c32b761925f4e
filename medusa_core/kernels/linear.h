// y = x W^T for few rows of x and packed W, with the same bits for a row whatever other rows share the call:
// each output is one chain of float32 multiply-adds over k, in the same order in every tile shape.
//
// W (N, K) is packed in blocks of 16 output columns: float32 as [N/16][K][16], bfloat16 as [N/16][K/2][16][2], so that
// one 64-byte line holds two k of 16 columns. bfloat16 weights are multiplied with x rounded to bfloat16, and the chain
// runs over k = 1, 0, 3, 2, ...: what the instruction for pairs does, so that all processors compute the same bits.
// Intel's matrix unit has an order of its own (tiles.h).
#pragma once
#include <algorithm>
#include <vector>

#include "tiles.h"

namespace medusa {

struct Float32 {
    typedef float type, In;      // of W, and of what x is read as
    static const int depth = 1;  // values of k in one 64-byte line
    static const int reads = 1;  // steps of the chain that they take
    template <int J> static inline v16 line(const float* w) { return load16(w); }
    static inline v16 add(float x, v16 w, v16 sum) { return fma16(set16(x), w, sum); }
    static inline float at(const float* block, long k, int lane) { return block[k * 16 + lane]; }
    static inline long width(long K) { return K; }  // `In`s that K values of x take
    static inline void round(const float* x, long K, float* out) { memcpy(out, x, K * sizeof(float)); }
    static inline const float* input(const float* x, long, long, long&) { return x; }
};

struct BFloat16 {
    typedef uint16_t type;
    static const int depth = 2;
#if MEDUSA_TILES
    typedef uint32_t In;  // two bfloat16
    static const int reads = 1;
#elif MEDUSA_DOT
    typedef uint32_t In;
    static const int reads = 1;
    template <int J> static inline v16 line(const uint16_t* w) { return pairs16(w); }
    static inline v16 add(uint32_t x, v16 w, v16 sum) { return dot16(x, w, sum); }
#else
    typedef float In;  // with a bfloat16's value
    static const int reads = 2;
    template <int J> static inline v16 line(const uint16_t* w) { return J ? odd_bf16(w) : even_bf16(w); }
    static inline v16 add(float x, v16 w, v16 sum) { return fma16(set16(x), w, sum); }
#endif
    static inline float at(const uint16_t* block, long k, int lane) {
        return float_bits((uint32_t)block[k / 2 * 32 + lane * 2 + k % 2] << 16);
    }
    static inline long width(long K) { return K / depth * reads; }
    static inline void round(const float* x, long K, In* out) {
        for (long k = 0; k < K; k += 16) round_bf16(x + k, out + width(k));
    }
    // x (n, K) rounded; `ldx` becomes the distance of its rows.
    static const In* input(const float* x, long n, long K, long& ldx) {
        static thread_local std::vector<In> rounded;
        rounded.resize(std::max<size_t>(rounded.size(), n * width(K)));
        for (long r = 0; r < n; ++r) round(x + r * ldx, K, &rounded[r * width(K)]);
        ldx = width(K);
        return rounded.data();
    }
};

// x[r] is addressed as base[r / 3] + {0, 1, 2} * ldx, which one instruction can do: a pointer a row would not fit the
// registers, and reloading pointers takes as long as the arithmetic.
template <class W, int J, int R, int C>
static inline void tile_line(const typename W::In* const (&base)[(R + 2) / 3], long ldx, const typename W::type* w,
                             long stride, v16 (&acc)[R][C]) {
    v16 column[C];
#pragma GCC unroll 8
    for (int c = 0; c < C; ++c) column[c] = W::template line<J>(w + c * stride);
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = W::add(base[r / 3][r % 3 * ldx + J], column[c], acc[r][c]);
}

// What a tile fetches from memory while it multiplies: the tile that follows, which lies `follows` elements on. One pass
// alone stays `near` lines ahead of what it reads, from its own end on in that tile. Groups of rows that pass over the
// same tile share the next one as a whole, each fetching every so many of its lines from `turn` on, so that memory is
// never asked for more at once than it gives. A tile of one column is fetched in four parts side by side, since memory
// gives a single sequence of lines less (on AMD's Zen 3 two thirds).
struct Ahead { long follows, turn, every; };
static const long near = 512;  // over all columns: 32 KiB
constexpr int streams(int C) { return C == 1 ? 4 : 1; }

// R rows by C blocks held in registers; with `add` the sums start from what `out` holds (a residual, a bias).
// While it computes, weights that are needed later travel to the second-level cache (see Ahead), and those of the next
// few k from there to the first: that keeps both cores' memory busy.
template <class W, int R, int C>
static void tile(const typename W::In* x, long ldx, const typename W::type* w, Ahead ahead, long stride, long K,
                 float* out, long ldo, bool add) {
    const int line = 16 * W::depth;
    const long lines = K / W::depth, lead = ahead.every > 1 ? lines : std::min(lines, near / C);
    v16 acc[R][C];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int c = 0; c < C; ++c) acc[r][c] = add ? load16(out + r * ldo + c * 16) : zero16();
    const typename W::In* base[(R + 2) / 3];
    for (int i = 0; i < (R + 2) / 3; ++i) base[i] = x + 3 * i * ldx;
    for (const bool next : {false, true}) {
        const long count = next ? lead : lines - lead, part = count / streams(C) * line;
        const typename W::type* fetched = w + (next ? ahead.follows - (lines - lead) * line : lead * line);
        fetched += ahead.turn * line;
        for (long i = 0, wait = ahead.turn * streams(C); i < count; ++i, w += line) {
            asm("" : "+r"(ldx));  // or the compiler computes a pointer a row after all
#if MEDUSA_ISA > 1
#pragma GCC unroll 8
            for (int c = 0; c < C; ++c) _mm_prefetch((const char*)(w + c * stride + 4 * line), _MM_HINT_T0);
            if (--wait < 0) {
                wait += ahead.every * streams(C);
#pragma GCC unroll 8
                for (int c = 0; c < C; ++c)
                    for (int s = 0; s < streams(C); ++s)
                        _mm_prefetch((const char*)(fetched + c * stride + s * part), _MM_HINT_T1);
                fetched += ahead.every * line;
            }
#endif
            if (W::reads == 2) tile_line<W, W::reads - 1, R, C>(base, ldx, w, stride, acc);
            tile_line<W, 0, R, C>(base, ldx, w, stride, acc);
#pragma GCC unroll 4
            for (int j = 0; j < (R + 2) / 3; ++j) base[j] += W::reads;
        }
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
static const int max_rows = MEDUSA_ISA == 256 ? 6 : 4;
constexpr int tile_columns(int R) { return R == 1 ? 4 : R == 2 ? 2 : 1; }
#endif

template <class W, int R, int C>
static inline void columns(const typename W::In* x, long ldx, const typename W::type*& w, Ahead ahead, long stride,
                           long K, long& blocks, float*& out, long ldo, bool add) {
    for (; blocks >= C; blocks -= C, w += C * stride, out += C * 16)
        tile<W, R, C>(x, ldx, w, ahead, stride, K, out, ldo, add);
}

template <class W, int R>
static void row_group(const typename W::In* x, long ldx, const typename W::type* w, Ahead ahead, long stride, long K,
                      long blocks, float* out, long ldo, bool add) {
    constexpr int C = tile_columns(R);
    columns<W, R, C>(x, ldx, w, ahead, stride, K, blocks, out, ldo, add);
    columns<W, R, (C > 4 ? 4 : C)>(x, ldx, w, ahead, stride, K, blocks, out, ldo, add);
    columns<W, R, (C > 2 ? 2 : C)>(x, ldx, w, ahead, stride, K, blocks, out, ldo, add);
    columns<W, R, 1>(x, ldx, w, ahead, stride, K, blocks, out, ldo, add);
}

template <class W>
static inline void row_groups(int rows, const typename W::In* x, long ldx, const typename W::type* w, Ahead ahead,
                              long stride, long K, long blocks, float* out, long ldo, bool add) {
#define MEDUSA_ROWS(R) \
    case R: return row_group<W, (R <= max_rows ? R : 1)>(x, ldx, w, ahead, stride, K, blocks, out, ldo, add);
    switch (rows) {
        MEDUSA_ROWS(1) MEDUSA_ROWS(2) MEDUSA_ROWS(3) MEDUSA_ROWS(4) MEDUSA_ROWS(5) MEDUSA_ROWS(6)
        MEDUSA_ROWS(7) MEDUSA_ROWS(8) MEDUSA_ROWS(9) MEDUSA_ROWS(10) MEDUSA_ROWS(11) MEDUSA_ROWS(12)
    }
#undef MEDUSA_ROWS
}

// out[r, 16 b ...] (+)= x[r] . W for the blocks b in [begin, end): x (n, K) as W reads it, with row stride ldx, out with
// ldo; `stride` is the distance between blocks, 16 K for a packed matrix; `after`: the weights this thread needs next.
// Many rows go tile by tile of the columns, so that weights are read from memory once and stay in the cache.
template <class W>
static void multiply(const typename W::In* x, long n, long ldx, const typename W::type* w, long stride, long K,
                     long begin, long end, float* out, long ldo, bool add, const typename W::type* after = nullptr) {
    if (n == 0) return;
    const long groups = (n + max_rows - 1) / max_rows, size = (n + groups - 1) / groups;
    for (long b = begin; b < end; b += tile_columns(size)) {
        const long stop = std::min<long>(b + tile_columns(size), end);
        const typename W::type* here = w + b * stride;
        const long follows = stop < end ? (stop - b) * stride : after ? after - here : 0;
        for (long g = 0; g < groups; ++g) {
            const long r = g * size, rows = std::min(size, n - r);
            row_groups<W>(rows, x + r * ldx, ldx, here, {follows, g, groups}, stride, K, stop - b,
                          out + r * ldo + b * 16, ldo, add);
        }
    }
}

#if MEDUSA_TILES
template <>
void multiply<BFloat16>(const uint32_t* x, long n, long ldx, const uint16_t* w, long stride, long K, long begin,
                        long end, float* out, long ldo, bool add, const uint16_t* after) {
    multiply_tiles(x, n, ldx, w, stride, K, begin, end, out, ldo, add, after);
}
#endif

// As `multiply`, with x in float32.
template <class W>
static void linear(const float* x, long n, long ldx, const typename W::type* w, long stride, long K, long begin,
                   long end, float* out, long ldo, bool add, const typename W::type* after = nullptr) {
    const typename W::In* input = W::input(x, n, K, ldx);
    multiply<W>(input, n, ldx, w, stride, K, begin, end, out, ldo, add, after);
}

}  // namespace medusa
