/* The threshold of every layer in one pass over the scores, and the update of the scores that finds it on its way.
 *
 * Definitions and tie rule are those of kernels/select/op.py and kernels/score_step/op.py; what is found depends on the
 * scores alone, and on the number of threads and the bracket only how long it takes.
 */
#include "native.h"

#include <stddef.h>
#include <string.h>

/* One layer; every field is 8 bytes, so that NumPy writes a table of them (kernels/base/native.py). A layer of several
 * coats has one of these each, one after the other, that differ in what is kept and found. */
typedef struct {
    float *scores;
    const uint32_t *survivors; /* packed, or null: every edge */
    int64_t rows, cols, words, kept;
    int64_t low, high; /* keys that ought to hold tau between them; low > high: no bracket */
    int32_t *room;     /* for keys between them */
    int64_t capacity;
    const float *grad;     /* of the effective weight */
    float *momentum;       /* null without */
    const uint32_t *signs; /* packed, or null where base is given */
    const float *base;
    const float *constant;
    int64_t coats; /* in the first of a layer's how many there are; 0 in the others */
    int64_t tau, last_tied; /* found */
    int64_t first_chunk, above, inside; /* on the way */
} layer_t;

/* For who makes the table, to compare with what it makes. */
SM_EXPORT int sm_layer_size(void) { return (int)sizeof(layer_t); }

typedef struct {
    float lr, momentum, weight_decay;
    int nesterov;
} sgd_t;

#if SM_AVX512

#define HIGHEST_KEY 2147483647
#define CHUNK 16384 /* edges: scores, gradient and momentum of two chunks fit the second-level cache */
#define SAMPLE 4096
#define DEVIATIONS 4.0
#define BINS 2048

/* The key of one edge, survivors left out of account. */
static int32_t key_of(float score, int absolute) {
    int32_t bits;
    memcpy(&bits, &score, 4);
    const int32_t magnitude = bits & 0x7FFFFFFF;
    if (magnitude > INF_BITS) return NAN_KEY;
    if (absolute || magnitude == 0) return magnitude;
    return bits < 0 ? bits ^ 0x7FFFFFFF : bits;
}

static int32_t ranked_key(const layer_t *l, int64_t edge, int absolute) {
    if (l->survivors) {
        const int64_t row = edge / l->cols, col = edge % l->cols;
        if (!(l->survivors[row * l->words + (col >> 5)] >> (col & 31) & 1)) return REMOVED_KEY;
    }
    return key_of(l->scores[edge], absolute);
}

/* Keeps those of `keys` that lie from low to high, in place; returns how many. */
SM_TARGET static int64_t keep_between(int32_t *keys, int64_t count, int32_t low, int32_t high) {
    const __m512i least = _mm512_set1_epi32(low), most = _mm512_set1_epi32(high);
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 there = first(count - i);
        const __m512i key = _mm512_maskz_loadu_epi32(there, keys + i);
        const __mmask16 inside = _mm512_mask_cmpge_epi32_mask(there, key, least) & _mm512_cmple_epi32_mask(key, most);
        _mm512_mask_storeu_epi32(keys + kept, first(__builtin_popcount(inside)),
                                 _mm512_maskz_compress_epi32(inside, key));
        kept += __builtin_popcount(inside);
    }
    return kept;
}

/* The wanted-th highest (from 1) of `count` keys, which lie from low to high; `spare` has room for them. */
SM_TARGET static int32_t nth_highest(const int32_t *keys, int64_t count, int64_t wanted, int32_t low, int32_t high,
                                     int32_t *spare) {
    int64_t bins[BINS];
    const int32_t *from = keys;
    while (low < high) {
        const uint32_t width = (uint32_t)high - (uint32_t)low;
        const int wide = 32 - __builtin_clz(width), shift = wide > 11 ? wide - 11 : 0;
        memset(bins, 0, sizeof bins);
        for (int64_t i = 0; i < count; i++) bins[((uint32_t)from[i] - (uint32_t)low) >> shift]++;
        int64_t bin = BINS - 1;
        while (wanted > bins[bin]) wanted -= bins[bin--];
        const int64_t least = (int64_t)low + (bin << shift), most = least + ((int64_t)1 << shift) - 1;
        low = (int32_t)least;
        high = most < high ? (int32_t)most : high;
        if (shift) {
            if (from == keys) memcpy(spare, keys, (size_t)count * 4), from = spare;
            count = keep_between(spare, count, low, high);
        } else
            high = low;
    }
    return low;
}

SM_TARGET static int64_t count_above(const int32_t *keys, int64_t count, int32_t key, int64_t *equal) {
    const __m512i at = _mm512_set1_epi32(key);
    int64_t above = 0, same = 0;
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 there = first(count - i);
        const __m512i k = _mm512_maskz_loadu_epi32(there, keys + i);
        above += __builtin_popcount(_mm512_mask_cmpgt_epi32_mask(there, k, at));
        same += __builtin_popcount(_mm512_mask_cmpeq_epi32_mask(there, k, at));
    }
    *equal = same;
    return above;
}

/* A bracket from a sample at a stride that meets every column alike. */
SM_TARGET static void sample_bracket(layer_t *l, int absolute) {
    const int64_t edges = l->rows * l->cols;
    l->low = REMOVED_KEY, l->high = HIGHEST_KEY;
    if (l->capacity >= edges) return;
    int64_t stride = edges / SAMPLE;
    for (;; stride++) {
        int64_t a = stride, b = l->cols;
        while (b) {
            const int64_t rest = a % b;
            a = b, b = rest;
        }
        if (a == 1) break;
    }
    int32_t keys[SAMPLE + 16], spare[SAMPLE + 16];
    int64_t count = 0;
    for (int64_t edge = 0; edge < edges && count < SAMPLE; edge += stride) keys[count++] = ranked_key(l, edge, absolute);
    /* In ranks from the highest; the square root by Newton's steps, to need no mathematics library. */
    const double middle = (double)l->kept / (double)edges * (double)count;
    double variance = middle * (1 - middle / (double)count), root = variance > 1 ? variance : 1;
    for (int i = 0; i < 40; i++) root = (root + variance / root) / 2;
    const double margin = DEVIATIONS * root + 1;
    const int64_t upper = (int64_t)(middle - margin), lower = (int64_t)(middle + margin) + 1;
    if (upper >= 1) l->high = nth_highest(keys, count, upper, REMOVED_KEY, HIGHEST_KEY, spare);
    if (lower <= count) l->low = nth_highest(keys, count, lower, REMOVED_KEY, HIGHEST_KEY, spare);
}

typedef struct {
    layer_t *layers;
    int64_t count;
    int absolute, update;
    sgd_t sgd;
} job_t;

/* Keys found by one thread on their way to the layer's room. */
typedef struct {
    int32_t keys[1024 + 16];
    int64_t count, above;
} pocket_t;

static void empty_pocket(pocket_t *p, layer_t *l) {
    const int64_t at = __atomic_fetch_add(&l->inside, p->count, __ATOMIC_RELAXED);
    if (at + p->count <= l->capacity) memcpy(l->room + at, p->keys, (size_t)p->count * 4);
    p->count = 0;
}

/* SGD as torch.optim.SGD rounds it on CPU; g is the gradient of the scores. */
SM_TARGET static inline __m512 stepped(__m512 s, __m512 g, float *momentum, __mmask16 there, const sgd_t *sgd) {
    if (sgd->weight_decay != 0) g = _mm512_fmadd_ps(s, _mm512_set1_ps(sgd->weight_decay), g);
    if (momentum) {
        const __m512 mu = _mm512_set1_ps(sgd->momentum);
        const __m512 kept = _mm512_add_ps(_mm512_mul_ps(_mm512_maskz_loadu_ps(there, momentum), mu), g);
        _mm512_mask_storeu_ps(momentum, there, kept);
        g = sgd->nesterov ? _mm512_fmadd_ps(kept, mu, g) : kept;
    }
    return _mm512_fmadd_ps(g, _mm512_set1_ps(-sgd->lr), s);
}

/* Columns from `begin` to `end` of one row: where asked the update, then the keys, counted and gathered. */
SM_TARGET static inline __attribute__((always_inline)) void
scan_row(layer_t *l, pocket_t *p, int64_t row, int64_t begin, int64_t end, const sgd_t *sgd,
         const int absolute, const int update) {
    const __m512i low = _mm512_set1_epi32((int)l->low), high = _mm512_set1_epi32((int)l->high);
    const __m512 constant = _mm512_set1_ps(update && !l->base ? *l->constant : 0);
    const uint32_t *alive_row = l->survivors ? l->survivors + row * l->words : NULL;
    const uint32_t *signs_row = update && !l->base ? l->signs + row * l->words : NULL;
    const int64_t at = row * l->cols;
    for (int64_t col = begin; col < end; col += 16) {
        const __mmask16 there = first(end - col);
        const int64_t edge = at + col;
        const __mmask16 alive = alive_row ? bits16(alive_row, col) & there : there;
        __m512 s = _mm512_maskz_loadu_ps(there, l->scores + edge);
        if (update) {
            const __mmask16 minus = signs_row ? bits16(signs_row, col) : 0;
            const __m512 g = score_grad(l->grad + edge, s, l->base ? l->base + edge : NULL, constant, minus, alive,
                                        there, absolute);
            s = stepped(s, g, l->momentum ? l->momentum + edge : NULL, there, sgd);
            _mm512_mask_storeu_ps(l->scores + edge, there, s);
        }
        __m512i key = keys_of(_mm512_castps_si512(s), absolute);
        if (alive_row) key = _mm512_mask_mov_epi32(_mm512_set1_epi32(REMOVED_KEY), alive, key);
        const __mmask16 above = _mm512_mask_cmpgt_epi32_mask(there, key, high);
        const __mmask16 inside = _mm512_mask_cmpge_epi32_mask(there & ~above, key, low);
        p->above += __builtin_popcount(above);
        if (inside) {
            _mm512_storeu_si512(p->keys + p->count, _mm512_maskz_compress_epi32(inside, key));
            p->count += __builtin_popcount(inside);
            if (p->count > 1024) empty_pocket(p, l);
        }
    }
}

/* Rows of a layer that make a chunk; a layer without packed bits to follow is one long row, cut into chunks. */
static int64_t chunk_rows(const layer_t *l) { return l->cols >= CHUNK ? 1 : CHUNK / l->cols; }
static int flat(const layer_t *l, int update) { return !l->survivors && !(update && !l->base); }
static int64_t chunks_of(const layer_t *l, int update) {
    const int64_t step = flat(l, update) ? CHUNK : chunk_rows(l);
    return ((flat(l, update) ? l->rows * l->cols : l->rows) + step - 1) / step;
}

/* Chunk `chunk` of a layer, for one coat. */
SM_TARGET static void scan_coat(const job_t *j, layer_t *l, int64_t chunk) {
    pocket_t p;
    p.count = p.above = 0;
    int64_t row = 0, end_row = 1, begin = 0, end = l->cols;
    if (flat(l, j->update)) {
        const int64_t edges = l->rows * l->cols;
        begin = chunk * CHUNK, end = begin + CHUNK < edges ? begin + CHUNK : edges;
    } else {
        row = chunk * chunk_rows(l);
        end_row = row + chunk_rows(l) < l->rows ? row + chunk_rows(l) : l->rows;
    }
    for (; row < end_row; row++) {
        if (j->update && j->absolute)
            scan_row(l, &p, row, begin, end, &j->sgd, 1, 1);
        else if (j->update)
            scan_row(l, &p, row, begin, end, &j->sgd, 0, 1);
        else if (j->absolute)
            scan_row(l, &p, row, begin, end, NULL, 1, 0);
        else
            scan_row(l, &p, row, begin, end, NULL, 0, 0);
    }
    empty_pocket(&p, l);
    __atomic_fetch_add(&l->above, p.above, __ATOMIC_RELAXED);
}

/* A chunk comes from memory for the first coat, and for the others from the cache. */
SM_TARGET static void scan_chunk(void *arg, int64_t chunk) {
    const job_t *j = arg;
    int64_t index = 0;
    for (int64_t beyond = j->count; beyond - index > 1;) {
        const int64_t middle = (index + beyond) / 2;
        if (j->layers[middle].first_chunk <= chunk)
            index = middle;
        else
            beyond = middle;
    }
    layer_t *l = &j->layers[index];
    for (int64_t coat = 0; coat < l->coats; coat++) scan_coat(j, l + coat, chunk - l->first_chunk);
}

/* Flat index of the wanted-th edge (from 1) with key tau. */
static int64_t tie(const layer_t *l, int32_t tau, int64_t wanted, int absolute) {
    const int64_t edges = l->rows * l->cols;
    for (int64_t edge = 0; edge < edges; edge++)
        if (ranked_key(l, edge, absolute) == tau && --wanted == 0) return edge;
    return edges - 1;
}

/* The same by three passes of counting digits, for when a bracket misses: needs no room and no luck. */
static int32_t radix(const layer_t *l, int absolute, int64_t *wanted, int64_t *equal) {
    const int64_t edges = l->rows * l->cols;
    uint32_t prefix = 0, known = 0;
    int64_t left = l->kept;
    for (int shift = 21;; shift = shift == 21 ? 10 : 0) {
        int64_t bins[BINS] = {0};
        const int bits = shift ? 11 : 10;
        for (int64_t edge = 0; edge < edges; edge++) {
            const uint32_t rank = (uint32_t)ranked_key(l, edge, absolute) ^ 0x80000000u;
            if (((rank ^ prefix) & known) == 0) bins[rank >> shift & ((1u << bits) - 1)]++;
        }
        int64_t bin = (1 << bits) - 1;
        while (bin > 0 && left > bins[bin]) left -= bins[bin--];
        prefix |= (uint32_t)bin << shift;
        known |= ((1u << bits) - 1) << shift;
        if (!shift) {
            *wanted = left, *equal = bins[bin];
            return (int32_t)(prefix ^ 0x80000000u);
        }
    }
}

/* A bracket for the next call: the keys a hundredth of the layer above and below tau, or as far as can be told. */
SM_TARGET static void next_bracket(layer_t *l, int32_t *keys, int64_t count, int64_t place, int32_t tau, int32_t *spare) {
    const int64_t margin = l->rows * l->cols / 100 + 16, low = l->low, high = l->high;
    int64_t up = tau, down = tau;
    if (place > margin)
        up = nth_highest(keys, count, place - margin, (int32_t)low, (int32_t)high, spare);
    else
        up = high + (high - tau);
    if (place + margin <= count)
        down = nth_highest(keys, count, place + margin, (int32_t)low, (int32_t)high, spare);
    else
        down = low - (tau - low);
    l->high = up < HIGHEST_KEY ? up : HIGHEST_KEY;
    l->low = down > REMOVED_KEY ? down : REMOVED_KEY;
}

SM_TARGET static void finish_layer(void *arg, int64_t index) {
    const job_t *j = arg;
    layer_t *l = &j->layers[index];
    const int64_t edges = l->rows * l->cols;
    int64_t place = l->kept - l->above, wanted, equal;
    int32_t tau;
    if (l->low <= l->high && l->inside <= l->capacity && place >= 1 && place <= l->inside) {
        int32_t *spare = l->room + l->capacity; /* as long as the room itself */
        tau = nth_highest(l->room, l->inside, place, (int32_t)l->low, (int32_t)l->high, spare);
        wanted = place - count_above(l->room, l->inside, tau, &equal);
        if (j->update) next_bracket(l, l->room, l->inside, place, tau, spare);
    } else {
        tau = radix(l, j->absolute, &wanted, &equal);
        if (j->update) l->low = 1, l->high = 0; /* a sample will say more */
    }
    l->last_tied = edges - 1;
    if (tau == REMOVED_KEY) {
        tau = NAN_KEY;
        if (j->update) l->low = 1, l->high = 0;
    } else if (wanted < equal)
        l->last_tied = tie(l, tau, wanted, j->absolute);
    l->tau = tau;
}

SM_TARGET static void bracket_layer(void *arg, int64_t index) {
    const job_t *j = arg;
    layer_t *l = &j->layers[index];
    if (l->low > l->high) sample_bracket(l, j->absolute);
}
#endif

/* supermask.kernels.select.select; with `update` supermask.kernels.score_step, which it is the end of. Fills tau and last_tied of each
 * entry, and with `update`, for one coat, low and high for the next call. The `room` of each has twice its capacity. */
SM_EXPORT int64_t sm_select(layer_t *layers, int64_t count, int absolute, int update, float lr, float momentum,
                            float weight_decay, int nesterov, int threads) {
#if SM_AVX512
    job_t j = {layers, count, absolute, update, {lr, momentum, weight_decay, nesterov}};
    int64_t chunks = 0;
    for (int64_t i = 0; i < count; i++) {
        layers[i].above = layers[i].inside = 0;
        layers[i].first_chunk = chunks; /* of a further coat that of the next layer, where no chunk looks for it */
        if (layers[i].coats) chunks += chunks_of(&layers[i], update);
    }
    sm_for(count, threads, bracket_layer, &j);
    sm_for(chunks, threads, scan_chunk, &j);
    sm_for(count, threads, finish_layer, &j);
    return 0;
#else
    return -1;
#endif
}
