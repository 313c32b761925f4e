// Attention of tree nodes over a key/value cache, each row along its own path.
//
// A row sees the slots [start, end) and then, in increasing order, its `extra` slots: a prefix plus the row's ancestors.
// Sums run over that path in path order, so a row's bits do not depend on where its ancestors are stored.
// Keys are cached as [slot / 16][head_dim][16] and values as [head_dim / 16][slot][16], per sequence and key/value head:
// both are packed matrices, so scores and weighted sums are calls of `linear`.
#pragma once
#include <algorithm>
#include <vector>

#include "linear.h"

namespace medusa {

// One row of a forward pass; `columns` is the width of the int32 table that Python fills.
struct Row {
    static const int columns = 7;
    int id, sequence, position, slot, start, end, extras;
};

struct Cache {
    float *key, *value;        // of one layer: (batch, kv_heads, head_dim * slots)
    long kv_heads, head_dim, slots;
    long head_size() const { return head_dim * slots; }
    float* keys(long sequence, long head) const { return key + (sequence * kv_heads + head) * head_size(); }
    float* values(long sequence, long head) const { return value + (sequence * kv_heads + head) * head_size(); }
};

static inline float& key_at(float* keys, long head_dim, long slot, long d) {
    return keys[(slot / 16 * head_dim + d) * 16 + slot % 16];
}
static inline float& value_at(float* values, long slots, long slot, long d) {
    return values[(d / 16 * slots + slot) * 16 + d % 16];
}

struct Rope { const float *cosine, *sine; };  // (positions, head_dim / 2)

// out = one head of x at `position`, its halves rotated, times `scale`.
static void rotate(const Rope& rope, long position, long head_dim, float scale, const float* x, float* out) {
    const long half = head_dim / 2;
    const float *cosine = rope.cosine + position * half, *sine = rope.sine + position * half;
    for (long i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        out[i] = (a * cosine[i] - b * sine[i]) * scale;
        out[i + half] = (b * cosine[i] + a * sine[i]) * scale;
    }
}

// Put the rotated key and the value of one head and row into the cache.
static void append(const Cache& cache, const Rope& rope, const Row& row, long head, const float* key,
                   const float* value, std::vector<float>& scratch) {
    scratch.resize(std::max<size_t>(scratch.size(), cache.head_dim));
    rotate(rope, row.position, cache.head_dim, 1.f, key, scratch.data());
    float *keys = cache.keys(row.sequence, head), *values = cache.values(row.sequence, head);
    for (long d = 0; d < cache.head_dim; ++d) {
        key_at(keys, cache.head_dim, row.slot, d) = scratch[d];
        value_at(values, cache.slots, row.slot, d) = value[d];
    }
}

// Turn raw scores by slot into exp(score - max) by place on the path, zero off the path; returns 1 / sum.
static float softmax_path(float* score, const Row& row, const int* extra, long padded) {
    for (int t = 0; t < row.extras; ++t) score[row.end + t] = score[extra[t]];  // extra[t] >= end + t, increasing
    const long length = row.end + row.extras;
    std::fill(score, score + row.start, -1e30f);
    std::fill(score + length, score + padded, -1e30f);
    v16 highest = set16(-1e30f);
    for (long j = 0; j < padded; j += 16) highest = max16(highest, load16(score + j));
    const v16 most = set16(highest16(highest));
    v16 total = zero16();
    for (long j = 0; j < padded; j += 16) {
        v16 e = exp16(sub16(load16(score + j), most));
        store16(score + j, e);
        total = add16(total, e);
    }
    std::fill(score, score + row.start, 0.f);
    std::fill(score + length, score + padded, 0.f);
    return length > row.start ? 1.f / sum16(total) : 0.f;
}

// The query rows [first, first + rows), all of one sequence, for one key/value head shared by `group` query heads.
// query and out start at this head's first query: query (group, rows, head_dim) as projected, ldq from one of the group
// to the next, out (rows, group, head_dim), its rows ldo apart.
static void attend(const Cache& cache, const Rope& rope, const Row* row, const int* extra, long extra_width, long rows, long group,
                   long head, const float* query, long ldq, float* out, long ldo, std::vector<float>& scratch) {
    const long hd = cache.head_dim, queries = rows * group;
    long low = cache.slots, common = cache.slots, high = 1;
    for (long r = 0; r < rows; ++r) {
        low = std::min<long>(low, row[r].start);
        common = std::min<long>(common, row[r].end);
        high = std::max<long>(high, row[r].end);
        if (row[r].extras) high = std::max<long>(high, extra[r * extra_width + row[r].extras - 1] + 1);
    }
    low = std::min(low, common);
    const long width = (high + 15) / 16 * 16;
    scratch.resize(std::max<size_t>(scratch.size(), queries * (width + 2 * hd)));
    float *score = scratch.data(), *q = score + queries * width, *o = q + queries * hd;
    for (long i = 0; i < queries; ++i)
        rotate(rope, row[i / group].position, hd, 1.f / std::sqrt((float)hd), query + i % group * ldq + i / group * hd,
               q + i * hd);

    const long block = hd * 16;
    linear<Float32>(q, queries, hd, cache.keys(row->sequence, head), block, hd, low / 16, width / 16, score, width,
                    false);
    const float* values = cache.values(row->sequence, head);
    std::vector<float> scale(queries);
    for (long i = 0; i < queries; ++i) {
        const long r = i / group;
        scale[i] = softmax_path(score + i * width, row[r], extra + r * extra_width, width);
    }
    linear<Float32>(score + low, queries, width, values + low * 16, cache.slots * 16, common - low, 0, hd / 16, o, hd,
                    false);
    for (long i = 0; i < queries; ++i) {
        const Row& me = row[i / group];
        const int* mine = extra + i / group * extra_width;
        for (long d = 0; d < hd; d += 16) {
            v16 sum = load16(o + i * hd + d);
            const float* column = values + d * cache.slots;
            for (long j = common; j < me.end + me.extras; ++j) {
                const long slot = j < me.end ? j : mine[j - me.end];
                sum = fma16(set16(score[i * width + j]), load16(column + slot * 16), sum);
            }
            store16(out + (i / group) * ldo + (i % group) * hd + d, mul16(sum, set16(scale[i])));
        }
    }
}

// Copy slots in every layer: moves (count, 3) of sequence, from, to; caches (layers, batch, kv_heads, size).
static void commit(const int* moves, long count, long head_dim, float* keys, float* values, long layers, long batch,
                   long kv_heads, long size) {
    const long slots = size / head_dim;
#pragma omp parallel for
    for (long layer = 0; layer < layers; ++layer) {
        const long offset = layer * batch * kv_heads * size;
        const Cache cache = {keys + offset, values + offset, kv_heads, head_dim, slots};
        for (long i = 0; i < count; ++i)
            for (long head = 0; head < kv_heads; ++head) {
                float *k = cache.keys(moves[3 * i], head), *v = cache.values(moves[3 * i], head);
                for (long d = 0; d < head_dim; ++d) {
                    key_at(k, head_dim, moves[3 * i + 2], d) = key_at(k, head_dim, moves[3 * i + 1], d);
                    value_at(v, slots, moves[3 * i + 2], d) = value_at(v, slots, moves[3 * i + 1], d);
                }
            }
    }
}

}  // namespace medusa
