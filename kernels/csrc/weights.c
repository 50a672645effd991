/* Weights from scores or from a packed mask, and the gradient of the scores: kernels/subnet/op.py, kernels/packed_weight/op.py. */
#include "native.h"

#include <stddef.h>

#if SM_AVX512

#define CHUNK 16384 /* edges: what a chunk reads and writes fits the second-level cache */

typedef struct {
    const float *scores;
    const uint32_t *survivors, *signs;
    const void *base, *constant;
    uint32_t *mask, *ever;
    void *weight;
    const float *grad;
    float *grad_scores;
    int64_t rows, cols, words, chunk, coats;
    const int32_t *tau;       /* one a coat, as the next */
    const int64_t *last_tied;
    int absolute, bytes, brain; /* brain: bfloat16, where bytes are 2 */
} one_layer_t;

/* Which of 16 edges are selected; `tied` of them, from the first, also with key tau. */
SM_TARGET static inline __mmask16 on_or_above(__m512i key, __m512i tau, int64_t tied, __mmask16 there) {
    const __mmask16 above = _mm512_mask_cmpgt_epi32_mask(there, key, tau);
    if (tied <= 0) return above;
    return above | _mm512_mask_cmpeq_epi32_mask(there & first(tied), key, tau);
}

/* The weights of 32 columns from `edge` on: theta0 where `chosen`, +0.0 elsewhere; `left` columns exist. */
SM_TARGET static inline __attribute__((always_inline)) void
store_weights(const one_layer_t *l, int64_t edge, int64_t left, uint32_t chosen, uint32_t minus, const int wide) {
    const __mmask16 there0 = first(left), there1 = left > 16 ? first(left - 16) : 0;
    if (wide) {
        const int32_t *base = l->base ? (const int32_t *)l->base + edge : NULL;
        int32_t *weight = (int32_t *)l->weight + edge;
        __m512i theta0, theta1;
        if (base) {
            theta0 = _mm512_maskz_loadu_epi32(there0, base), theta1 = _mm512_maskz_loadu_epi32(there1, base + 16);
        } else {
            const __m512i plus = _mm512_set1_epi32(*(const int32_t *)l->constant);
            const __m512i sign = _mm512_set1_epi32((int)0x80000000);
            theta0 = _mm512_mask_xor_epi32(plus, (__mmask16)minus, plus, sign);
            theta1 = _mm512_mask_xor_epi32(plus, (__mmask16)(minus >> 16), plus, sign);
        }
        _mm512_mask_storeu_epi32(weight, there0, _mm512_maskz_mov_epi32((__mmask16)chosen, theta0));
        _mm512_mask_storeu_epi32(weight + 16, there1, _mm512_maskz_mov_epi32((__mmask16)(chosen >> 16), theta1));
    } else {
        const __mmask32 there = there0 | (uint32_t)there1 << 16;
        __m512i theta;
        if (l->base) {
            theta = _mm512_maskz_loadu_epi16(there, (const int16_t *)l->base + edge);
        } else {
            const __m512i plus = _mm512_set1_epi16(*(const int16_t *)l->constant);
            theta = _mm512_mask_blend_epi16(minus, plus, _mm512_xor_si512(plus, _mm512_set1_epi16((short)0x8000)));
        }
        _mm512_mask_storeu_epi16((int16_t *)l->weight + edge, there, _mm512_maskz_mov_epi16(chosen, theta));
    }
}

SM_TARGET static inline __attribute__((always_inline)) void weights_row(const one_layer_t *l, int64_t row,
                                                                        const int absolute, const int wide) {
    const __m512i tau = _mm512_set1_epi32(*l->tau);
    const int64_t last_tied = *l->last_tied;
    uint32_t *mask = l->mask + row * l->words;
    for (int64_t word = 0; word < l->words; word++) {
        const int64_t left = l->cols - word * 32, edge = row * l->cols + word * 32, tied = last_tied + 1 - edge;
        if (left <= 0) {
            mask[word] = 0;
            continue;
        }
        const __mmask16 there0 = first(left), there1 = left > 16 ? first(left - 16) : 0;
        const __m512i key0 = keys_of(_mm512_maskz_loadu_epi32(there0, l->scores + edge), absolute);
        const __m512i key1 = keys_of(_mm512_maskz_loadu_epi32(there1, l->scores + edge + 16), absolute);
        uint32_t chosen = on_or_above(key0, tau, tied, there0) | (uint32_t)on_or_above(key1, tau, tied - 16, there1) << 16;
        if (l->survivors) chosen &= l->survivors[row * l->words + word];
        mask[word] = chosen;
        if (l->ever) l->ever[row * l->words + word] |= chosen;
        store_weights(l, edge, left, chosen, l->signs ? l->signs[row * l->words + word] : 0, wide);
    }
}

/* Weights of 16 edges from `edge` on, where `there`: float32 theta0 times `count`, rounded once, +0.0 where it is 0. */
SM_TARGET static inline void store_products(const one_layer_t *l, int64_t edge, __m512i count, __mmask16 minus,
                                            __mmask16 there) {
    const __m512i sign = _mm512_set1_epi32((int)0x80000000);
    __m512i theta;
    if (l->base) {
        theta = _mm512_maskz_loadu_epi32(there, (const int32_t *)l->base + edge);
    } else {
        const __m512i plus = _mm512_set1_epi32(*(const int32_t *)l->constant);
        theta = _mm512_mask_xor_epi32(plus, minus, plus, sign);
    }
    const __m512 product = _mm512_mul_ps(_mm512_castsi512_ps(theta), _mm512_cvtepi32_ps(count));
    const __mmask16 chosen = _mm512_test_epi32_mask(count, count);
    const __m512i bits = _mm512_maskz_mov_epi32(chosen, _mm512_castps_si512(product));
    if (l->bytes == 4) {
        _mm512_mask_storeu_epi32((int32_t *)l->weight + edge, there, bits);
        return;
    }
    __m256i half;
    if (l->brain) { /* to the nearest, ties to even: half of what is cut off, less one where the rest is even */
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
        const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF)));
        const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF));
        const __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(INF_BITS));
        half = _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(_mm512_srli_epi32(up, 16), nan, _mm512_set1_epi32(0x7FC0)));
    } else {
        half = _mm512_cvtps_ph(_mm512_castsi512_ps(bits), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    _mm256_mask_storeu_epi16((int16_t *)l->weight + edge, there, half);
}

/* Several coats: the scores are read once, and a mask goes to each plane. */
SM_TARGET static void coats_row(const one_layer_t *l, int64_t row) {
    for (int64_t word = 0; word < l->words; word++) {
        const int64_t left = l->cols - word * 32, edge = row * l->cols + word * 32, at = row * l->words + word;
        const __mmask16 there0 = first(left), there1 = first(left - 16);
        const __m512i key0 = keys_of(_mm512_maskz_loadu_epi32(there0, l->scores + edge), l->absolute);
        const __m512i key1 = keys_of(_mm512_maskz_loadu_epi32(there1, l->scores + edge + 16), l->absolute);
        const __m512i one = _mm512_set1_epi32(1);
        __m512i count0 = _mm512_setzero_si512(), count1 = count0;
        for (int64_t coat = 0; coat < l->coats; coat++) {
            const __m512i tau = _mm512_set1_epi32(l->tau[coat]);
            const int64_t tied = l->last_tied[coat] + 1 - edge;
            uint32_t chosen = on_or_above(key0, tau, tied, there0);
            chosen |= (uint32_t)on_or_above(key1, tau, tied - 16, there1) << 16;
            if (l->survivors) chosen &= l->survivors[at];
            l->mask[coat * l->rows * l->words + at] = chosen;
            if (!coat && l->ever) l->ever[at] |= chosen;
            count0 = _mm512_mask_add_epi32(count0, (__mmask16)chosen, count0, one);
            count1 = _mm512_mask_add_epi32(count1, (__mmask16)(chosen >> 16), count1, one);
        }
        const uint32_t minus = l->signs ? l->signs[at] : 0;
        store_products(l, edge, count0, (__mmask16)minus, there0);
        store_products(l, edge + 16, count1, (__mmask16)(minus >> 16), there1);
    }
}

/* One coat whose mask is given, in `survivors`. */
SM_TARGET static void packed_chunk(void *arg, int64_t chunk) {
    const one_layer_t *l = arg;
    const int64_t begin = chunk * l->chunk, end = begin + l->chunk < l->rows ? begin + l->chunk : l->rows;
    for (int64_t row = begin; row < end; row++)
        for (int64_t word = 0; word * 32 < l->cols; word++) {
            const int64_t at = row * l->words + word, edge = row * l->cols + word * 32, left = l->cols - word * 32;
            const uint32_t minus = l->signs ? l->signs[at] : 0;
            if (l->bytes == 4)
                store_weights(l, edge, left, l->survivors[at], minus, 1);
            else
                store_weights(l, edge, left, l->survivors[at], minus, 0);
        }
}

SM_TARGET static void weights_chunk(void *arg, int64_t chunk) {
    const one_layer_t *l = arg;
    const int64_t begin = chunk * l->chunk, end = begin + l->chunk < l->rows ? begin + l->chunk : l->rows;
    for (int64_t row = begin; row < end; row++) {
        if (l->coats > 1)
            coats_row(l, row);
        else if (l->absolute && l->bytes == 4)
            weights_row(l, row, 1, 1);
        else if (l->absolute)
            weights_row(l, row, 1, 0);
        else
            weights_row(l, row, 0, l->bytes == 4);
    }
}

SM_TARGET static void grads_chunk(void *arg, int64_t chunk) {
    const one_layer_t *l = arg;
    const __m512 constant = l->base ? _mm512_setzero_ps() : _mm512_set1_ps(*(const float *)l->constant);
    const int64_t begin = chunk * l->chunk, end = begin + l->chunk < l->rows ? begin + l->chunk : l->rows;
    for (int64_t row = begin; row < end; row++) {
        const uint32_t *alive_row = l->survivors ? l->survivors + row * l->words : NULL;
        const uint32_t *signs_row = l->signs ? l->signs + row * l->words : NULL;
        for (int64_t col = 0; col < l->cols; col += 16) {
            const int64_t edge = row * l->cols + col;
            const __mmask16 there = first(l->cols - col);
            const __mmask16 alive = alive_row ? bits16(alive_row, col) & there : there;
            const __m512 s = _mm512_maskz_loadu_ps(there, l->scores + edge);
            const float *base = l->base ? (const float *)l->base + edge : NULL;
            const __mmask16 minus = signs_row ? bits16(signs_row, col) : 0;
            _mm512_mask_storeu_ps(l->grad_scores + edge, there,
                                  score_grad(l->grad + edge, s, base, constant, minus, alive, there, l->absolute));
        }
    }
}
#endif

/* supermask.kernels.subnet.subnet of one layer: weights of `bytes` bytes each (`brain`: bfloat16), a mask a coat, the
 * first ORed into `ever`. Constant and base are of the weights' dtype for one coat, and float32 for several. */
SM_EXPORT int64_t sm_subnet(const float *scores, const int32_t *tau, const int64_t *last_tied,
                            const uint32_t *survivors, const void *constant, const uint32_t *signs, const void *base,
                            void *weight, uint32_t *mask, uint32_t *ever, int64_t rows, int64_t cols, int64_t words,
                            int64_t coats, int absolute, int bytes, int brain, int threads) {
#if SM_AVX512
    if (!rows || !cols) return 0;
    one_layer_t l = {.scores = scores, .survivors = survivors, .signs = signs, .base = base, .constant = constant,
                     .mask = mask, .ever = ever, .weight = weight, .rows = rows, .cols = cols, .words = words,
                     .last_tied = last_tied, .chunk = cols < CHUNK ? CHUNK / cols : 1, .tau = tau, .coats = coats,
                     .absolute = absolute, .bytes = bytes, .brain = brain};
    sm_for((rows + l.chunk - 1) / l.chunk, threads, weights_chunk, &l);
    return 0;
#else
    return -1;
#endif
}

/* Its backward: the gradient of the scores from that of the weights. */
SM_EXPORT int64_t sm_subnet_backward(const float *grad, const float *scores, const uint32_t *survivors,
                                     const void *constant, const uint32_t *signs, const void *base, float *grad_scores,
                                     int64_t rows, int64_t cols, int64_t words, int absolute, int threads) {
#if SM_AVX512
    if (!rows || !cols) return 0;
    one_layer_t l = {.scores = scores, .survivors = survivors, .signs = signs, .base = base, .constant = constant,
                     .grad = grad, .grad_scores = grad_scores, .rows = rows, .cols = cols, .words = words,
                     .chunk = cols < CHUNK ? CHUNK / cols : 1, .absolute = absolute};
    sm_for((rows + l.chunk - 1) / l.chunk, threads, grads_chunk, &l);
    return 0;
#else
    return -1;
#endif
}

/* supermask.kernels.packed_weight.packed_weight: weights of `bytes` bytes each from a mask. */
SM_EXPORT int64_t sm_packed_weight(const uint32_t *mask, const void *constant, const uint32_t *signs, const void *base,
                                   void *weight, int64_t rows, int64_t cols, int64_t words, int bytes, int threads) {
#if SM_AVX512
    if (!rows || !cols) return 0;
    one_layer_t l = {.survivors = mask, .signs = signs, .base = base, .constant = constant, .weight = weight,
                     .rows = rows, .cols = cols, .words = words, .chunk = cols < CHUNK ? CHUNK / cols : 1,
                     .bytes = bytes};
    sm_for((rows + l.chunk - 1) / l.chunk, threads, packed_chunk, &l);
    return 0;
#else
    return -1;
#endif
}
