/* What the C kernels share: where they run, and how work is spread over threads.
 *
 * Every exported function takes plain pointers and sizes (kernels/native.py) and needs AVX-512 F, BW, DQ and VL, which
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

/* One piece of work; `worker` is below the number of threads asked for, and no two pieces run at once under one. */
typedef void (*sm_chunk)(void *arg, int64_t chunk, int worker);

/* Calls fn(arg, 0), ... fn(arg, chunks - 1), each once, over at most `threads` threads; returns when all are done. */
void sm_for(int64_t chunks, int threads, sm_chunk fn, void *arg);

#endif
