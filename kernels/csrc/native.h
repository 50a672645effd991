/* What the C kernels share: where they run, and how work is spread over threads.
 *
 * Every exported function takes plain pointers and sizes (kernels/base/native.py) and needs AVX-512 F, BW, DQ and VL, which
 * the caller asks sm_supported() for once. No Python, no torch headers: a library to be loaded, not a module.
 */
#ifndef SUPERMASK_NATIVE_H
#define SUPERMASK_NATIVE_H

#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SM_AVX512 1
#include <immintrin.h>
/* Compiled for AVX-512 whatever the file is compiled for, so that one library serves every x86-64. */
#define SM_TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2,popcnt")))
#else
#define SM_AVX512 0
#define SM_TARGET
#endif

#define SM_EXPORT __attribute__((visibility("default")))

/* One piece of work. */
typedef void (*sm_chunk)(void *arg, int64_t chunk);

/* Calls fn(arg, 0), ... fn(arg, chunks - 1), each once, over at most `threads` threads; returns when all are done. */
void sm_for(int64_t chunks, int threads, sm_chunk fn, void *arg);

#if SM_AVX512
/* The first `lanes` of 16. */
static inline __mmask16 first(int64_t lanes) {
    return lanes >= 16 ? 0xFFFF : lanes <= 0 ? 0 : (__mmask16)((1u << lanes) - 1);
}

/* 16 bits of a row of packed words from column `col`, a multiple of 16. */
static inline __mmask16 bits16(const uint32_t *row, int64_t col) { return (__mmask16)(row[col >> 5] >> (col & 16)); }

/* Score keys (kernels/base/keys.py) of 16 float32 scores, given as bits. */
#define INF_BITS 0x7F800000
#define NAN_KEY (-2147483647)
#define REMOVED_KEY (-2147483647 - 1)
SM_TARGET static inline __m512i keys_of(__m512i bits, int absolute) {
    const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7FFFFFFF));
    __m512i key = magnitude;
    if (!absolute) {
        const __m512i flip = _mm512_and_si512(_mm512_srai_epi32(bits, 31), _mm512_set1_epi32(0x7FFFFFFF));
        key = _mm512_maskz_xor_epi32(_mm512_test_epi32_mask(magnitude, magnitude), bits, flip);
    }
    const __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(INF_BITS));
    return _mm512_mask_mov_epi32(key, nan, _mm512_set1_epi32(NAN_KEY));
}

/* dL/ds of 16 edges from dL/dw (kernels/subnet/op.py): times theta0 and sign(s), zero where hard pruning removed the edge.
 * theta0 is base, or the constant with `minus`, its signs. */
SM_TARGET static inline __m512 score_grad(const float *grad, __m512 s, const float *base, __m512 constant,
                                          __mmask16 minus, __mmask16 alive, __mmask16 there, int absolute) {
    const __m512i sign = _mm512_set1_epi32((int)0x80000000);
    if (absolute) minus ^= _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_LT_OQ);
    const __m512 theta = base ? _mm512_maskz_loadu_ps(there, base) : constant;
    const __m512i bits = _mm512_castps_si512(_mm512_mul_ps(_mm512_maskz_loadu_ps(there, grad), theta));
    return _mm512_maskz_mov_ps(alive, _mm512_castsi512_ps(_mm512_mask_xor_epi32(bits, minus, bits, sign)));
}
#endif

#endif
