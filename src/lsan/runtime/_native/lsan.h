/* Recommendations from one file: reads a bundle (docs/bundle.md), encodes histories, ranks items.
 *
 * A model is read-only after lsan_open and may be shared between threads. A state belongs to one thread at a time.
 * Memory is allocated by lsan_open, lsan_state_new and lsan_state_reserve only. Items are numbered 1..V; times are
 * milliseconds, negative where unknown.
 */
#ifndef LSAN_H
#define LSAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct lsan_model lsan_model;
typedef struct lsan_state lsan_state;

/* Code that is used at most; LSAN_BEST takes the best that the processor has. */
typedef enum { LSAN_PORTABLE = 0, LSAN_AVX2 = 1, LSAN_AVX512 = 2, LSAN_BEST = 100 } lsan_instructions;

/* How items are found; all give the same answer. LSAN_CHOOSE takes one by the number of items and k. */
typedef enum {
    LSAN_CHOOSE = 0,
    LSAN_PLAIN = 1,  /* score all items */
    LSAN_FILTER = 2, /* bounds of one byte first; items of few bytes only, else plain */
    LSAN_INDEX = 3   /* groups of items that share their first two codes; sorted items only, else the filter */
} lsan_method;

typedef struct {
    uint32_t items;
    uint32_t history;
    uint32_t width; /* of the item table's vectors */
    uint32_t hidden_width;
    bool timed;
    bool causal;
    bool exclude_seen;
    bool indexed;  /* has the groups of LSAN_INDEX */
    size_t memory; /* bytes held by the model */
    const char *instruction_set;
} lsan_facts;

typedef struct {
    const int32_t *excluded; /* items to leave out, in any order; numbers that no item has are ignored */
    size_t excluded_count;
    const uint8_t *allowed; /* one byte for each item, 0 leaves it out; NULL allows all */
    lsan_method method;
} lsan_wishes;

/* 0 and *model, or -1 and why not in `reason` (always ends with 0 where reason_size > 0). The bytes are not kept. */
int lsan_open(
    const uint8_t *bytes, size_t size, lsan_instructions instructions, lsan_model **model, char *reason,
    size_t reason_size
);
void lsan_close(lsan_model *model);
lsan_facts lsan_describe(const lsan_model *model);

/* NULL where there is no memory. `k`: the most items asked for later. A state for sessions keeps what it computed. */
lsan_state *lsan_state_new(const lsan_model *model, size_t k, bool session);
/* Room for k items. -1 where there is no memory: the state is as before. */
int lsan_state_reserve(lsan_state *state, size_t k);
size_t lsan_state_memory(const lsan_state *state);
void lsan_state_free(lsan_state *state);

/* 1 and the hidden vector, which stays valid until the state is used again; 0 where no event is of an offered item;
 * -1 where an item is not one of 1..V. The latest H events of offered items are used. `times` may be NULL. */
int lsan_encode(
    lsan_state *state, const int32_t *items, const int64_t *times, size_t count, int64_t asked, const float **hidden
);

/* Puts the best items and their scores in order (higher score, then lower number) and gives how many: k, or fewer where
 * fewer are left. k is at most what the state has room for. Without `hidden` items are ranked as for an empty history.
 * `wishes` may be NULL. */
size_t
lsan_rank(lsan_state *state, const float *hidden, size_t k, const lsan_wishes *wishes, int32_t *items, float *scores);

/* The scores of all V items. */
void lsan_scores(lsan_state *state, const float *hidden, float *scores);

/* Only for states made for sessions. */
int lsan_append(lsan_state *session, int32_t item, int64_t time); /* -1 where the item is not one of 1..V */
int lsan_session_hidden(lsan_state *session, int64_t asked, const float **hidden); /* as lsan_encode */
size_t lsan_session_length(const lsan_state *session);                             /* events of offered items so far */

/* Many histories one after the other in `items` and `times` (may be NULL), ends[i] = where history i ends; `asked` has
 * one time for each. Row i of `best` and `scores` (k numbers each; 0 where there are fewer). 0, or -1 where an item is
 * not one of 1..V or an end is out of order, -2 where there is no memory. */
int lsan_recommend_many(
    const lsan_model *model, const int32_t *items, const int64_t *times, const int64_t *ends, const int64_t *asked,
    size_t count, size_t k, bool exclude_history, int threads, int32_t *best, float *scores
);

#ifdef __cplusplus
}
#endif
#endif
