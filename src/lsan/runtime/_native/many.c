/* Many histories at once, shared between threads. */
#include "internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SHARE = 8, MOST_THREADS = 256 }; /* histories that a thread takes at a time */

typedef struct {
    const lsan_model *model;
    const int32_t *items;
    const int64_t *times, *ends, *asked;
    size_t count, k;
    bool exclude;
    int32_t *best;
    float *scores;
    atomic_size_t next;
    atomic_int failed;
} work;

static void *worker(void *argument) {
    work *w = argument;
    lsan_state *state = lsan_state_new(w->model, w->k, false);
    if (!state) {
        atomic_store(&w->failed, -2);
        return NULL;
    }
    while (!atomic_load(&w->failed)) {
        size_t first = atomic_fetch_add(&w->next, SHARE);
        if (first >= w->count) break;
        size_t end = w->count - first < SHARE ? w->count : first + SHARE;
        for (size_t i = first; i < end; i++) {
            int64_t begin = i ? w->ends[i - 1] : 0;
            size_t length = (size_t)(w->ends[i] - begin);
            const float *hidden;
            if (lsan_encode(state, w->items + begin, w->times ? w->times + begin : NULL, length, w->asked[i], &hidden) <
                0) {
                atomic_store(&w->failed, -1);
                break;
            }
            lsan_wishes wishes = {.excluded = w->items + begin, .excluded_count = w->exclude ? length : 0};
            int32_t *best = w->best + i * w->k;
            float *scores = w->scores + i * w->k;
            for (size_t found = lsan_rank(state, hidden, w->k, &wishes, best, scores); found < w->k; found++) {
                best[found] = 0;
                scores[found] = 0;
            }
        }
    }
    lsan_state_free(state);
    return NULL;
}

int lsan_recommend_many(
    const lsan_model *model, const int32_t *items, const int64_t *times, const int64_t *ends, const int64_t *asked,
    size_t count, size_t k, bool exclude_history, int threads, int32_t *best, float *scores
) {
    for (size_t i = 0; i < count; i++) {
        if (ends[i] < (i ? ends[i - 1] : 0)) return -1;
    }
    work w = {
        .model = model,
        .items = items,
        .times = times,
        .ends = ends,
        .asked = asked,
        .count = count,
        .k = k,
        .exclude = exclude_history,
        .best = best,
        .scores = scores,
    };
    size_t useful = (count + SHARE - 1) / SHARE;
    int wanted = threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads, started = 0;
    if ((size_t)wanted > useful) wanted = (int)useful;
    pthread_t others[MOST_THREADS];
    while (started + 1 < wanted && pthread_create(&others[started], NULL, worker, &w) == 0) started++;
    worker(&w);
    for (int i = 0; i < started; i++) pthread_join(others[i], NULL);
    return atomic_load(&w.failed);
}
