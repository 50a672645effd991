/* Threads of the OpenMP runtime that torch already runs, handed over at load: a second runtime would fight it for the
 * cores. Without one everything runs on the calling thread. */
#include "native.h"

typedef void (*gomp_parallel)(void (*)(void *), void *, unsigned, unsigned);
static gomp_parallel parallel;

SM_EXPORT int sm_supported(void) {
#if SM_AVX512
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("bmi2") &&
           __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* `gomp`: address of GOMP_parallel, or null. */
SM_EXPORT void sm_threads_from(void *gomp) { parallel = (gomp_parallel)gomp; }

typedef struct {
    sm_chunk fn;
    void *arg;
    int64_t chunks, next;
} job;

static void work(void *data) {
    job *j = data;
    for (;;) {
        int64_t chunk = __atomic_fetch_add(&j->next, 1, __ATOMIC_RELAXED);
        if (chunk >= j->chunks) return;
        j->fn(j->arg, chunk);
    }
}

void sm_for(int64_t chunks, int threads, sm_chunk fn, void *arg) {
    job j = {fn, arg, chunks, 0};
    if (threads > chunks) threads = (int)chunks;
    if (threads > 1 && parallel)
        parallel(work, &j, (unsigned)threads, 0);
    else
        work(&j);
}
