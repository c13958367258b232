/* Only in the WebAssembly build: what it has beyond lsan.h, and the little of printf that messages need. */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

/* The cosines of the vector of item `item` (1..V) with those of all items, 0 where a vector has no length.
 * `room` has space for two vectors. */
void lsan_cosines(const lsan_model *model, int32_t item, float *room, float *cosines) {
    const uint32_t width = model->width;
    float *own = room, *other = room + width, own_length = 0;
    model->kernels->vector(model, (uint32_t)item - 1, own);
    for (uint32_t c = 0; c < width; c++) own_length += own[c] * own[c];
    for (uint32_t place = 0; place < model->items; place++) {
        float product = 0, length = 0;
        model->kernels->vector(model, place, other);
        for (uint32_t c = 0; c < width; c++) {
            product += own[c] * other[c];
            length += other[c] * other[c];
        }
        cosines[place] = product == 0 ? 0 : product / sqrtf(own_length) / sqrtf(length);
    }
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
