/* Only in the WebAssembly build (scripts/wasm.sh): item vectors compared, and the little that the engine needs of a C
 * library, so that there is none and nothing is imported. */
#ifdef __wasm__
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The cosines of the vector of item `item` (1..V), turned, with those of all items, 0 where a vector has no length; -1
 * where there is not enough memory. */
int lsan_cosines(const lsan_model *model, int32_t item, float *cosines) {
    uint32_t columns = model->turn.data ? model->turn.n : model->width, size = columns + SLACK;
    float *own = malloc((2 * (size_t)size + model->width) * sizeof *own), *other = own + size, *x = other + size;
    if (!own) return -1;
    float own_square = 0;
    for (uint32_t round = 0; round <= model->items; round++) {
        float product = 0, square = 0, *to = round ? other : own;
        model->kernels->vector(model, round ? round - 1 : (uint32_t)item - 1, model->turn.data ? x : to);
        if (model->turn.data) model->kernels->product(&model->turn, x, to);
        for (uint32_t k = 0; k < columns; k++) {
            product += own[k] * to[k];
            square += to[k] * to[k];
        }
        if (round) cosines[round - 1] = product == 0 ? 0 : product / (__builtin_sqrtf(own_square) * __builtin_sqrtf(square));
        else own_square = square;
    }
    free(own);
    return 0;
}

/* Memory: blocks one after the other from __heap_base to `end`. Beyond `end` all is 0. */

typedef struct block {
    size_t size; /* with this header */
    struct block *next;
    uint64_t filling; /* to a multiple of 16 */
} block;

extern uint8_t __heap_base;
static uint8_t *end;
static block *spare; /* by address */

void *malloc(size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size = (size + sizeof(block) + 15) & ~(size_t)15;
    for (block **at = &spare, *found; (found = *at); at = &found->next) {
        if (found->size < size) continue;
        *at = found->next;
        if (found->size - size > sizeof(block)) {
            block *rest = (block *)((uint8_t *)found + size);
            *rest = (block){.size = found->size - size, .next = found->next};
            *at = rest;
            found->size = size;
        }
        return found + 1;
    }
    if (!end) end = (uint8_t *)(((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15);
    size_t page = 1 << 16, needed = (size_t)end + size, there = __builtin_wasm_memory_size(0) * page;
    if (needed > there && __builtin_wasm_memory_grow(0, (needed - there + page - 1) / page) == SIZE_MAX) return NULL;
    block *new = (block *)end;
    new->size = size;
    end += size;
    return new + 1;
}

static bool touch(const block *a, const block *b) { return (const uint8_t *)a + a->size == (const uint8_t *)b; }

void free(void *memory) {
    if (!memory) return;
    block *freed = (block *)memory - 1, **at = &spare, *before = NULL;
    for (; *at && *at < freed; at = &before->next) before = *at;
    freed->next = *at;
    *at = freed;
    if (freed->next && touch(freed, freed->next)) {
        freed->size += freed->next->size;
        freed->next = freed->next->next;
    }
    if (before && touch(before, freed)) {
        before->size += freed->size;
        before->next = freed->next;
    }
}

void *calloc(size_t count, size_t size) {
    if (size && count > SIZE_MAX / size) return NULL;
    uint8_t *before = end, *memory = malloc(count * size);
    if (memory && memory < before) memset(memory, 0, count * size);
    return memory;
}

void *realloc(void *memory, size_t size) {
    void *new = malloc(size);
    if (!new || !memory) return new;
    size_t there = ((block *)memory - 1)->size - sizeof(block);
    memcpy(new, memory, there < size ? there : size);
    free(memory);
    return new;
}

/* With bulk memory each of these is one instruction. */
void *memcpy(void *restrict to, const void *restrict from, size_t size) { return __builtin_memcpy(to, from, size); }
void *memmove(void *to, const void *from, size_t size) { return __builtin_memmove(to, from, size); }
void *memset(void *to, int byte, size_t size) { return __builtin_memset(to, byte, size); }

int memcmp(const void *a, const void *b, size_t size) {
    const uint8_t *x = a, *y = b;
    for (; size; size--, x++, y++) {
        if (*x != *y) return *x - *y;
    }
    return 0;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    return length;
}

static void swap(uint8_t *a, uint8_t *b, size_t size) {
    for (; size; size--, a++, b++) {
        uint8_t byte = *a;
        *a = *b;
        *b = byte;
    }
}

typedef int comparison(const void *, const void *);

static void sift(uint8_t *items, size_t at, size_t count, size_t size, comparison *compare) {
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && compare(items + child * size, items + (child + 1) * size) < 0) child++;
        if (compare(items + at * size, items + child * size) >= 0) return;
        swap(items + at * size, items + child * size, size);
    }
}

/* By a heap. */
void qsort(void *items, size_t count, size_t size, comparison *compare) {
    for (size_t i = count / 2; i > 0; i--) sift(items, i - 1, count, size, compare);
    for (size_t left = count; left > 1; left--) {
        swap(items, (uint8_t *)items + (left - 1) * size, size);
        sift(items, 0, left - 1, size, compare);
    }
}

/* Of whole numbers, which is all that the engine asks for: 1 + x = m 2^e exactly, log m = 2 atanh((m - 1) / (m + 1)). */
double log1p(double x) {
    int64_t bits;
    double whole = 1 + x, power = 0;
    memcpy(&bits, &whole, sizeof bits);
    power = (double)((bits >> 52) - 1023);
    bits = (bits & 0xFFFFFFFFFFFFF) | (int64_t)1023 << 52;
    memcpy(&whole, &bits, sizeof bits);
    if (whole > 1.4142135623730951) whole /= 2, power += 1;
    double s = (whole - 1) / (whole + 1), sum = 0;
    for (int n = 21; n > 0; n -= 2) sum = sum * s * s + 1.0 / n;
    return 2 * s * sum + power * 0.6931471805599453;
}

typedef struct {
    char *text;
    size_t room, length;
} printed;

static void print(printed *to, const char *text, size_t length) {
    for (size_t i = 0; i < length; i++, to->length++) {
        if (to->length + 1 < to->room) to->text[to->length] = text[i];
    }
}

static void print_number(printed *to, uint64_t number, bool negative) {
    char digits[21];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    if (negative) digits[--at] = '-';
    print(to, digits + at, sizeof digits - at);
}

/* Knows %s, %.*s, %d, %u, %lld and %llu. */
int vsnprintf(char *text, size_t room, const char *format, va_list arguments) {
    printed to = {.text = text, .room = room};
    for (; *format; format++) {
        if (*format != '%') {
            print(&to, format, 1);
            continue;
        }
        size_t most = SIZE_MAX;
        bool wide = false;
        for (format++; *format == '.' || *format == '*' || *format == 'l'; format++) {
            if (*format == '*') most = (size_t)va_arg(arguments, int);
            wide |= *format == 'l';
        }
        if (*format == 's') {
            const char *piece = va_arg(arguments, const char *);
            size_t length = 0;
            while (length < most && piece[length]) length++;
            print(&to, piece, length);
        } else if (*format == 'u') {
            print_number(&to, wide ? va_arg(arguments, unsigned long long) : va_arg(arguments, unsigned), false);
        } else {
            int64_t number = wide ? va_arg(arguments, long long) : va_arg(arguments, int);
            print_number(&to, number < 0 ? 0 - (uint64_t)number : (uint64_t)number, number < 0);
        }
    }
    if (room) text[to.length < room ? to.length : room - 1] = 0;
    return (int)to.length;
}

int snprintf(char *text, size_t room, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, room, format, arguments);
    va_end(arguments);
    return length;
}
#endif
