/* What the parts of the reader share: from the bytes of a file to a model. */
#ifndef LSAN_READER_H
#define LSAN_READER_H

#include "internal.h"
#include "json.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_DIMS = 8, NAME_SHOWN = 80 };

typedef enum { TYPE_U8, TYPE_F16, TYPE_F32, TYPE_I32, TYPE_I64 } number_type;

/* A tensor of the file. Where it is quantised, `dims` and `count` are those of the matrix. */
typedef struct {
    const char *name;
    uint32_t name_length;
    number_type type;
    uint32_t bits; /* 4 or 8 where it is quantised, else 0 */
    uint32_t dim_count;
    uint64_t dims[MAX_DIMS];
    uint64_t count, begin, end;
    const uint8_t *data;
    const uint8_t *scale; /* F16 */
    uint64_t scale_count;
    float *floats; /* a copy, where one was made */
} tensor;

typedef struct {
    lsan_model *model;
    json header, manifest;
    tensor *tensors; /* by name */
    uint32_t tensor_count;
    uint64_t budget;
    char *reason;
    size_t reason_size;
    const char *where; /* of the message */
    int64_t operation;
} reader;

#define TRY(x)                  \
    do {                        \
        if (!(x)) return false; \
    } while (0)
#define REQUIRE(x, ...)                \
    do {                               \
        if (!(x)) {                    \
            lsan_fail(r, __VA_ARGS__); \
            return false;              \
        }                              \
    } while (0)

#define SHOW(length, text) (int)((length) < NAME_SHOWN ? (length) : NAME_SHOWN), (text)
#define TENSOR(t) SHOW((t)->name_length, (t)->name)

/* ---- reader.c: reasons, memory, values of the manifest */

/* False, with the first reason that is given. */
__attribute__((format(printf, 2, 3))) bool lsan_fail(reader *r, const char *format, ...);
/* `count` things of `size` bytes, all 0, at a multiple of 64, with slack after them. They are freed with the model. */
void *lsan_hold(reader *r, uint64_t count, uint64_t size);
/* The value of a name in an object of the manifest. */
bool lsan_get(reader *r, uint32_t object, const char *name, uint32_t *value);
bool lsan_get_integer(reader *r, uint32_t object, const char *name, int64_t least, int64_t most, int64_t *value);
bool lsan_get_float(reader *r, uint32_t object, const char *name, float *value);
bool lsan_get_bool(reader *r, uint32_t object, const char *name, bool *value);
/* One of the words, by its place. */
bool lsan_get_word(reader *r, uint32_t object, const char *name, const char *const *words, uint32_t *which);
/* A tensor of parameters that the manifest names, of `dims` dimensions. */
bool lsan_get_tensor(reader *r, uint32_t object, const char *name, uint32_t dims, tensor **found);
bool lsan_is_null(const reader *r, uint32_t object, const char *name);

/* ---- tensors.c */

static inline uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
tensor *lsan_find(const reader *r, const char *name, uint32_t length);
tensor *lsan_find_named(const reader *r, const char *name);
/* Number i of a tensor of floats or of a quantised one. */
float lsan_value(const tensor *t, uint64_t i);
bool lsan_read_header(reader *r, const uint8_t *bytes, size_t size);
/* A tensor of packed whole numbers. */
bool lsan_get_whole(reader *r, const char *name, uint64_t count, uint32_t bits, const uint8_t **data);
bool lsan_read_quantised(reader *r);
/* All numbers of a tensor in float32, row-major; made once. */
const float *lsan_floats(reader *r, tensor *t);
/* B[i][j] = number first + i * down + j * along of the tensor, for the product x B. */
bool lsan_pack(
    reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint64_t first, uint64_t down, uint64_t along
);
/* The same in the whole numbers of the tensor's rows first .. first + n - 1. */
bool lsan_pack_whole(reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint32_t first);
bool lsan_pack_bias(reader *r, packed *b, const tensor *t, uint32_t first);
/* A matrix to be multiplied with one vector, in the numbers of the file. */
bool lsan_hold_matrix(reader *r, matrix *m, const tensor *t, bool flat);

/* ---- items.c and program.c */

/* Codes, vectors and biases of the items, categories, which are offered, and the popular ones. */
bool lsan_read_items(reader *r);
bool lsan_read_program(reader *r);

#endif
