// Sixteen floats at a time, on AVX-512, AVX2 or plain C++, behind one set of names.
// Every operation acts lane by lane, so a lane's bits never depend on its neighbours.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifndef MEDUSA_ISA  // 512, 256 or 1; tests force the lower ones
#if defined(__AVX512F__)
#define MEDUSA_ISA 512
#elif defined(__AVX2__) && defined(__FMA__)
#define MEDUSA_ISA 256
#else
#define MEDUSA_ISA 1
#endif
#endif

// Products of bfloat16 pairs by one instruction, where asked for; elsewhere two multiply-adds give the same bits.
#if !defined(MEDUSA_DOT) || MEDUSA_ISA != 512 || !defined(__AVX512BF16__)
#undef MEDUSA_DOT
#define MEDUSA_DOT 0
#endif

// Products of bfloat16 by tiles, in another order than the above, where asked for (see tiles.h).
#ifndef MEDUSA_TILES
#define MEDUSA_TILES 0
#endif

#if MEDUSA_ISA > 1
#include <immintrin.h>
#endif

namespace medusa {

static inline float float_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }

#if MEDUSA_ISA == 512

typedef __m512 v16;
static inline v16 zero16() { return _mm512_setzero_ps(); }
static inline v16 set16(float x) { return _mm512_set1_ps(x); }
static inline v16 load16(const float* p) { return _mm512_loadu_ps(p); }
static inline void store16(float* p, v16 a) { _mm512_storeu_ps(p, a); }
static inline v16 fma16(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 add16(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 sub16(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 mul16(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 div16(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 max16(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 min16(v16 a, v16 b) { return _mm512_min_ps(a, b); }
static inline v16 round16(v16 a) { return _mm512_roundscale_ps(a, 8); }
static inline v16 scale2_16(v16 a, v16 n) { return _mm512_scalef_ps(a, n); }
// 32 bfloat16 as 16 pairs: the even member of each pair sits in the low half of its lane.
static inline v16 even_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
static inline v16 odd_bf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32(0xffff0000)));
}
#if MEDUSA_DOT
static inline v16 pairs16(const uint16_t* p) { return _mm512_castsi512_ps(_mm512_loadu_si512(p)); }
// c + odd x odd + even x even of the pair x and the pairs w: two multiply-adds in this order, each rounded.
static inline v16 dot16(uint32_t x, v16 w, v16 c) {
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32(x), (__m512bh)_mm512_castps_si512(w));
}
#endif

#elif MEDUSA_ISA == 256

struct v16 { __m256 a, b; };
#define MEDUSA_PAIRWISE(f, x, y) {f((x).a, (y).a), f((x).b, (y).b)}
static inline v16 set16(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline v16 zero16() { return set16(0.f); }
static inline v16 load16(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store16(float* p, v16 x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
static inline v16 fma16(v16 x, v16 y, v16 z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline v16 add16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_add_ps, x, y); }
static inline v16 sub16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_sub_ps, x, y); }
static inline v16 mul16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_mul_ps, x, y); }
static inline v16 div16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_div_ps, x, y); }
static inline v16 max16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_max_ps, x, y); }
static inline v16 min16(v16 x, v16 y) { return MEDUSA_PAIRWISE(_mm256_min_ps, x, y); }
static inline v16 round16(v16 x) { return {_mm256_round_ps(x.a, 8), _mm256_round_ps(x.b, 8)}; }
static inline __m256 scale2_8(__m256 a, __m256 n) {
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(a, _mm256_castsi256_ps(e));
}
static inline v16 scale2_16(v16 x, v16 n) { return MEDUSA_PAIRWISE(scale2_8, x, n); }
static inline __m256i load_pairs(const uint16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
static inline v16 even_bf16(const uint16_t* p) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p), 16)),
            _mm256_castsi256_ps(_mm256_slli_epi32(load_pairs(p + 16), 16))};
}
static inline v16 odd_bf16(const uint16_t* p) {
    __m256i high = _mm256_set1_epi32(0xffff0000);
    return {_mm256_castsi256_ps(_mm256_and_si256(load_pairs(p), high)),
            _mm256_castsi256_ps(_mm256_and_si256(load_pairs(p + 16), high))};
}

#else

struct v16 { float f[16]; };
#define MEDUSA_LANES(expr) v16 r; for (int i = 0; i < 16; ++i) r.f[i] = (expr); return r
static inline v16 set16(float x) { MEDUSA_LANES(x); }
static inline v16 zero16() { return set16(0.f); }
static inline v16 load16(const float* p) { MEDUSA_LANES(p[i]); }
static inline void store16(float* p, v16 a) { memcpy(p, a.f, sizeof a.f); }
static inline v16 fma16(v16 a, v16 b, v16 c) { MEDUSA_LANES(a.f[i] * b.f[i] + c.f[i]); }
static inline v16 add16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] + b.f[i]); }
static inline v16 sub16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] - b.f[i]); }
static inline v16 mul16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] * b.f[i]); }
static inline v16 div16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] / b.f[i]); }
static inline v16 max16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] > b.f[i] ? a.f[i] : b.f[i]); }
static inline v16 min16(v16 a, v16 b) { MEDUSA_LANES(a.f[i] < b.f[i] ? a.f[i] : b.f[i]); }
static inline v16 round16(v16 a) { MEDUSA_LANES(std::nearbyint(a.f[i])); }
static inline v16 scale2_16(v16 a, v16 n) { MEDUSA_LANES(std::ldexp(a.f[i], (int)n.f[i])); }
static inline v16 even_bf16(const uint16_t* p) { MEDUSA_LANES(float_bits((uint32_t)p[2 * i] << 16)); }
static inline v16 odd_bf16(const uint16_t* p) { MEDUSA_LANES(float_bits((uint32_t)p[2 * i + 1] << 16)); }

#endif

// Sum and maximum across lanes, always in the same order.
static inline float sum16(v16 a) {
    float f[16];
    store16(f, a);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; ++i) f[i] = f[i] + f[i + half];
    return f[0];
}
static inline float highest16(v16 a) {
    float f[16];
    store16(f, a);
    float m = f[0];
    for (int i = 1; i < 16; ++i) m = f[i] > m ? f[i] : m;
    return m;
}

// The bits of x rounded to the nearest bfloat16, ties to even, in the upper half.
static inline uint32_t bits_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000;
}
// Sixteen floats as bfloat16: as floats of that value, or as pairs with the even one in the low half.
static inline void round_bf16(const float* x, float* out) {
    for (int i = 0; i < 16; ++i) out[i] = float_bits(bits_bf16(x[i]));
}
static inline void round_bf16(const float* x, uint32_t* out) {
    for (int i = 0; i < 8; ++i) out[i] = bits_bf16(x[2 * i]) >> 16 | bits_bf16(x[2 * i + 1]);
}

// exp(x) = 2^n e^r with |r| <= ln2 / 2 and a degree-6 Taylor tail for e^r: relative error below 3e-7.
static inline v16 exp16(v16 x) {
    x = min16(max16(x, set16(-87.f)), set16(88.f));
    v16 n = round16(mul16(x, set16(1.44269504088896341f)));
    v16 r = fma16(n, set16(-0.693359375f), x);
    r = fma16(n, set16(2.12194440e-4f), r);
    v16 p = set16(1.f / 720);
    p = fma16(p, r, set16(1.f / 120));
    p = fma16(p, r, set16(1.f / 24));
    p = fma16(p, r, set16(1.f / 6));
    p = fma16(p, r, set16(0.5f));
    p = fma16(p, r, set16(1.f));
    p = fma16(p, r, set16(1.f));
    return scale2_16(p, n);
}

}  // namespace medusa
