/* Recommends from a .lsan file in C, without Python.
 *
 *   native=src/lsan/runtime/_native
 *   cc -std=c11 -O2 -fno-math-errno -I $native examples/embed.c $native/{json,reader,tensors,items,program,encoder,topk,kernels}.c -lm -o embed
 *   ./embed model.lsan 17 4 250
 *
 * prints the ten best next items after the items 17, 4 and 250, oldest first, one line each: number and score. Items
 * are numbered 1..V, in the order of `ids.numbers` or `ids.bytes` of the file, as docs/bundle.md has it.
 */
#include "lsan.h"

#include <stdio.h>
#include <stdlib.h>

enum { BEST = 10 };

/* The whole file. An app has it as an asset or in flash memory already, and passes its address. */
static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    uint8_t *bytes = NULL;
    if (file && fseek(file, 0, SEEK_END) == 0 && ftell(file) >= 0) {
        *size = (size_t)ftell(file);
        rewind(file);
        bytes = malloc(*size + 1);
        if (bytes && fread(bytes, 1, *size, file) != *size) {
            free(bytes);
            bytes = NULL;
        }
    }
    if (file) fclose(file);
    return bytes;
}

static int fail(const char *what, const char *why) {
    fprintf(stderr, "embed: %s: %s\n", what, why);
    return 1;
}

int main(int count, char **arguments) {
    if (count < 2) return fail("usage", "embed FILE [ITEM...]");
    size_t size;
    uint8_t *bytes = read_file(arguments[1], &size);
    if (!bytes) return fail(arguments[1], "cannot be read");

    /* Once: the model. It is read-only afterwards, may be shared between threads, and does not need the bytes. */
    lsan_model *model;
    char reason[256];
    int failed = lsan_open(bytes, size, LSAN_BEST, &model, reason, sizeof reason);
    free(bytes);
    if (failed) return fail(arguments[1], reason);

    /* Once a thread: a state, the memory to work in. Nothing is allocated after it. A state made with `true` keeps what
     * it computed, for lsan_append and lsan_session_hidden. */
    lsan_state *state = lsan_state_new(model, BEST, false);
    size_t events = (size_t)count - 2;
    int32_t *history = malloc((events + 1) * sizeof *history);
    if (!state || !history) return fail("embed", "there is not enough memory");
    for (size_t i = 0; i < events; i++) history[i] = atoi(arguments[i + 2]);

    /* For each recommendation: the history becomes a vector (NULL where it is empty: then the most popular items are
     * ranked), the vector a list of items. Times are left out here; milliseconds, negative where unknown. */
    const float *hidden;
    if (lsan_encode(state, history, NULL, events, -1, &hidden) < 0) return fail("embed", "items are numbered 1..V");
    lsan_wishes wishes = {0};
    if (lsan_describe(model).exclude_seen) {
        wishes.excluded = history;
        wishes.excluded_count = events;
    }
    int32_t items[BEST];
    float scores[BEST];
    size_t found = lsan_rank(state, hidden, BEST, &wishes, items, scores);
    for (size_t i = 0; i < found; i++) printf("%ld %.9g\n", (long)items[i], (double)scores[i]);

    free(history);
    lsan_state_free(state);
    lsan_close(model);
    return 0;
}
