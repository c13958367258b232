/* Opens made-up bytes and, where they are a bundle, recommends once; nothing may go wrong but a refusal.
 *
 * With libFuzzer: clang -g -O1 -fsanitize=fuzzer,address,undefined *.c -lm -lpthread
 * Without: gcc -g -O1 -std=gnu11 -DLSAN_FUZZ_MAIN -fsanitize=address,undefined *.c -lm -lpthread
 *          ./a.out ROUNDS FILE...    changes each file ROUNDS times
 */
#include "lsan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static unsigned round;
    static const lsan_instructions sets[] = {LSAN_BEST, LSAN_AVX2, LSAN_PORTABLE};
    lsan_model *model;
    char reason[256];
    if (lsan_open(data, size, sets[round++ % 3], &model, reason, sizeof reason)) return 0;
    lsan_facts facts = lsan_describe(model);
    for (int session = 0; session < 2; session++) {
        lsan_state *state = lsan_state_new(model, 10, session);
        if (!state) break;
        int32_t items[70], best[10];
        int64_t times[70];
        float scores[10];
        const float *hidden = NULL;
        for (int i = 0; i < 70; i++) {
            items[i] = (int32_t)((uint32_t)i * 7919u % facts.items) + 1;
            times[i] = i % 5 ? (int64_t)i * 100000007 : -1;
            if (session) {
                lsan_append(state, items[i], times[i]);
                if (i % 9 == 0) lsan_session_hidden(state, times[i], &hidden);
            }
        }
        if (session) lsan_session_hidden(state, INT64_MAX, &hidden);
        else lsan_encode(state, items, times, 70, INT64_MAX, &hidden);
        for (int method = LSAN_CHOOSE; method <= LSAN_INDEX; method++) {
            lsan_wishes wishes = {.excluded = items, .excluded_count = 5, .method = (lsan_method)method};
            size_t found = lsan_rank(state, hidden, 10, &wishes, best, scores);
            for (size_t i = 0; i < found; i++) {
                if (best[i] < 1 || (uint32_t)best[i] > facts.items) abort();
            }
        }
        lsan_state_free(state);
    }
    lsan_close(model);
    return 0;
}

#ifdef LSAN_FUZZ_MAIN
#include <stdio.h>

static uint64_t seed = 88172645463325252u;

static uint32_t any(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 16) % below;
}

int main(int count, char **arguments) {
    static const char text[] = "0123456789\"{}[]:,-.eE\\utrfalsn ";
    for (int n = 2; n < count; n++) {
        FILE *file = fopen(arguments[n], "rb");
        if (!file || fseek(file, 0, SEEK_END)) return 1;
        size_t size = (size_t)ftell(file);
        rewind(file);
        uint8_t *whole = malloc(size + 1);
        if (!whole || fread(whole, 1, size, file) != size) return 1;
        fclose(file);
        LLVMFuzzerTestOneInput(whole, size);
        uint32_t header = size > 8 ? 8 + (whole[0] | (uint32_t)whole[1] << 8 | (uint32_t)whole[2] << 16) : 1;
        if (header > size) header = (uint32_t)size;
        for (long round = atol(arguments[1]); round > 0; round--) {
            size_t kept = any(8) ? size : any((uint32_t)size + 1);
            uint8_t *changed = malloc(kept ? kept : 1); /* of this size, so that reading on is found */
            if (!changed) return 1;
            memcpy(changed, whole, kept);
            for (uint32_t i = 1 + any(4); i > 0 && kept; i--) {
                size_t at = any(2) ? any((uint32_t)kept) : any(header) % kept;
                changed[at] = any(3) ? (uint8_t)text[any(sizeof text - 1)] : (uint8_t)any(256);
            }
            LLVMFuzzerTestOneInput(changed, kept);
            free(changed);
        }
        free(whole);
    }
    return 0;
}
#endif
