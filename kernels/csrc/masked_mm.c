/* y = (x W^T) * constant + bias, W = m * sign in {-1, 0, 1} as codes, 5 bits for 3 inputs (kernels/masked_mm/cpu.py).
 *
 * A vector of codes holds the same 18 inputs of 16 rows of W: a lane is a row, 3 inputs are 5 bits, the number
 * d0 + 3 d1 + 9 d2 of digits 0 absent, 1 plus, 2 minus; 3 such numbers in each half of the lane. 5 bits are what a
 * permutation of two registers looks up; so for each 3 inputs two registers hold the 27 sums that they can come to, and
 * shift, permute, add serve 48 edges. The sums are of float32 inputs, each rounded; they are added up SPAN vectors at a
 * time, and those totals in turn, so that few roundings follow one another.
 */
#include "native.h"

#if SM_AVX512

#define LANES 16  /* rows in a vector of codes */
#define INPUTS 18 /* in a lane */
#define LOOKUPS 6 /* in a lane */
#define ENTRIES 32
#define BAND 4    /* vectors of codes side by side: rows that share the load of a table */
#define SPAN 8    /* vectors of codes one after another: inputs added up before they join the total */
#define TILE 4    /* rows of x that share the load of a code */
#define SLAB 32   /* rows of x that share the walk over the codes */
#define AHEAD 4096 /* bytes: codes come from memory, in the order in which they lie */

#define ALWAYS static inline __attribute__((always_inline))

typedef struct {
    const float *x;
    const int32_t *codes;
    const float *constant, *bias;
    float *y;
    int64_t n, rows, cols, bands; /* bands a chunk takes */
} mm_t;

static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int64_t over(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Digits of the 32 numbers, 2 bits each. */
#define DIGITS(n) ((n) % 3 | (n) / 3 % 3 << 2 | (n) / 9 % 3 << 4)
#define DIGITS4(n) DIGITS(n), DIGITS((n) + 1), DIGITS((n) + 2), DIGITS((n) + 3)
#define DIGITS16(n) DIGITS4(n), DIGITS4((n) + 4), DIGITS4((n) + 8), DIGITS4((n) + 12)
static const int32_t digits[ENTRIES] = {DIGITS16(0), DIGITS16(16)};

/* The sums of each of `lookups` times 3 inputs from `col` on, of `n` rows of x: [lookups][n][ENTRIES]. */
SM_TARGET static void make_tables(
    const float *x, int64_t n, int64_t cols, int64_t col, int64_t lookups, float *tables
) {
    __mmask16 there[2][3]; /* absent inputs are left out, not multiplied by 0: they add nothing, infinite or not */
    __m512 minus[2][3];
    for (int half = 0; half < 2; half++)
        for (int k = 0; k < 3; k++) {
            const __m512i all = _mm512_srli_epi32(_mm512_loadu_si512(digits + 16 * half), 2 * k);
            there[half][k] = _mm512_test_epi32_mask(all, _mm512_set1_epi32(3));
            minus[half][k] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_srli_epi32(all, 1), 31));
        }
    for (int64_t t = 0; t < lookups; t++, col += 3)
        for (int64_t i = 0; i < n; i++, tables += ENTRIES) {
            __m512 in[3];
            for (int k = 0; k < 3; k++) in[k] = _mm512_set1_ps(col + k < cols ? x[i * cols + col + k] : 0.0f);
            for (int half = 0; half < 2; half++) {
                __m512 part[3];
                for (int k = 0; k < 3; k++) part[k] = _mm512_maskz_xor_ps(there[half][k], in[k], minus[half][k]);
                _mm512_store_ps(tables + 16 * half, _mm512_add_ps(_mm512_add_ps(part[0], part[1]), part[2]));
            }
        }
}

/* Adds `vectors` vectors of codes, `groups` side by side, to `n` rows of y, or begins them. */
ALWAYS SM_TARGET void span(
    const int32_t *codes, int64_t vectors, const float *tables, float *y, int64_t rows, __mmask16 last, int begins,
    const int groups, const int n
) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 sum[BAND][TILE];
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++)
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) sum[g][i] = _mm512_setzero_ps();
    for (int64_t v = 0; v < vectors; v++) {
        __m512i code[BAND];
#pragma GCC unroll 4
        for (int g = 0; g < groups; g++, codes += LANES) {
            code[g] = _mm512_loadu_si512(codes);
            _mm_prefetch((const char *)codes + AHEAD, _MM_HINT_T0);
        }
#pragma GCC unroll 6
        for (int t = 0; t < LOOKUPS; t++) {
            __m512i index[BAND]; /* a permutation reads 5 bits of it */
#pragma GCC unroll 4
            for (int g = 0; g < groups; g++) {
                if (t == LOOKUPS / 2) code[g] = _mm512_srli_epi32(code[g], 16);
                /* A shift, by the unit that multiplies: those that shift are busy with permutations. */
                index[g] = t % 3 ? _mm512_mulhi_epu16(code[g], _mm512_set1_epi16(1 << (16 - t % 3 * 5))) : code[g];
            }
#pragma GCC unroll 4
            for (int i = 0; i < n; i++, tables += ENTRIES) {
                const __m512 low = _mm512_load_ps(tables), high = _mm512_load_ps(tables + 16);
#pragma GCC unroll 4
                for (int g = 0; g < groups; g++) {
                    const __m512 found = _mm512_permutex2var_ps(low, index[g], high);
                    /* The same sum either way, by units of their own; permutations take some of those that add. */
                    const int fused = (g + i + t) % 2;
                    sum[g][i] = fused ? _mm512_fmadd_ps(found, one, sum[g][i]) : _mm512_add_ps(found, sum[g][i]);
                }
            }
        }
    }
#pragma GCC unroll 4
    for (int g = 0; g < groups; g++) {
        const __mmask16 some = g + 1 == groups ? last : 0xFFFF;
#pragma GCC unroll 4
        for (int i = 0; i < n; i++) {
            float *total = y + i * rows + g * LANES;
            const __m512 before = begins ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(some, total);
            _mm512_mask_storeu_ps(total, some, _mm512_add_ps(before, sum[g][i]));
        }
    }
}

typedef void (*span_t)(const int32_t *, int64_t, const float *, float *, int64_t, __mmask16, int);

#define SPANS(G, N) \
    SM_TARGET static void span##G##N( \
        const int32_t *codes, int64_t vectors, const float *tables, float *y, int64_t rows, __mmask16 last, int begins \
    ) { \
        span(codes, vectors, tables, y, rows, last, begins, G, N); \
    }
#define SPANS_OF(G) SPANS(G, 1) SPANS(G, 2) SPANS(G, 3) SPANS(G, 4)
SPANS_OF(1) SPANS_OF(2) SPANS_OF(3) SPANS_OF(4)

static const span_t spans[BAND][TILE] = {
    {span11, span12, span13, span14},
    {span21, span22, span23, span24},
    {span31, span32, span33, span34},
    {span41, span42, span43, span44},
};

/* The bands of one chunk, for at most SLAB rows of x. */
SM_TARGET static void chunk_of(void *arg, int64_t chunk) {
    const mm_t *mm = arg;
    _Alignas(64) float tables[SLAB * SPAN * LOOKUPS * ENTRIES];
    const int64_t groups = over(mm->rows, LANES), vectors = over(mm->cols, INPUTS);
    const int64_t from = chunk * mm->bands, to = least(from + mm->bands, over(groups, BAND));
    const int64_t step = SPAN * (SLAB / mm->n); /* vectors whose tables are held at once */
    for (int64_t v = 0; v < vectors; v += step) {
        const int64_t held = least(step, vectors - v);
        for (int64_t i = 0; i < mm->n; i += TILE)
            make_tables(mm->x + i * mm->cols, least(TILE, mm->n - i), mm->cols, v * INPUTS, held * LOOKUPS,
                        tables + i * held * LOOKUPS * ENTRIES);
        for (int64_t band = from; band < to; band++) {
            const int64_t wide = least(BAND, groups - band * BAND), row = band * BAND * LANES;
            const __mmask16 last = first(mm->rows - row - (wide - 1) * LANES);
            const int32_t *codes = mm->codes + (band * BAND * vectors + v * wide) * LANES;
            for (int64_t i = 0; i < mm->n; i += TILE) {
                const int64_t n = least(TILE, mm->n - i);
                const float *table = tables + i * held * LOOKUPS * ENTRIES;
                for (int64_t s = 0; s < held; s += SPAN)
                    spans[wide - 1][n - 1](
                        codes + s * wide * LANES, least(SPAN, held - s), table + s * LOOKUPS * n * ENTRIES,
                        mm->y + i * mm->rows + row, mm->rows, last, v + s == 0
                    );
            }
        }
    }
    const __m512 constant = _mm512_set1_ps(*mm->constant);
    for (int64_t row = from * BAND * LANES; row < least(mm->rows, to * BAND * LANES); row += LANES) {
        const __mmask16 some = first(mm->rows - row);
        const __m512 bias = mm->bias ? _mm512_maskz_loadu_ps(some, mm->bias + row) : _mm512_setzero_ps();
        for (int64_t i = 0; i < mm->n; i++) {
            float *y = mm->y + i * mm->rows + row;
            const __m512 scaled = _mm512_mul_ps(_mm512_maskz_loadu_ps(some, y), constant);
            _mm512_mask_storeu_ps(y, some, mm->bias ? _mm512_add_ps(scaled, bias) : scaled);
        }
    }
}

#endif

/* y [n, rows] of x [n, cols], float32 and contiguous; bias [rows] or null. */
SM_EXPORT int64_t sm_masked_mm(
    const float *x, const int32_t *codes, const float *constant, const float *bias, float *y, int64_t n, int64_t rows,
    int64_t cols, int threads
) {
#if SM_AVX512
    const int64_t bands = over(rows, LANES * BAND);
    if (!rows || !cols) return 0;
    for (int64_t i = 0; i < n; i += SLAB) {
        /* A chunk makes the tables again: no more of them than keep the threads busy to the end. */
        mm_t mm = {x + i * cols, codes, constant, bias, y + i * rows, least(SLAB, n - i), rows, cols,
                   over(bands, threads > 1 ? 2 * (int64_t)threads : 1)};
        sm_for(over(bands, mm.bands), threads, chunk_of, &mm);
    }
    return 0;
#else
    (void)x, (void)codes, (void)constant, (void)bias, (void)y, (void)n, (void)rows, (void)cols, (void)threads;
    return -1;
#endif
}
