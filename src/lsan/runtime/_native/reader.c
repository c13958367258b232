/* From the bytes of a file to a model. Everything is checked before it is used. */
#include "internal.h"
#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_HEADER = 1 << 20, MAX_MANIFEST = 16 << 20, MAX_DIMS = 8, SHORT_ROW = 16, NAME_SHOWN = 80 };

typedef enum { TYPE_U8, TYPE_F16, TYPE_F32, TYPE_I32, TYPE_I64 } number_type;

static const struct {
    const char *name;
    uint64_t bytes;
} types[] = {{"U8", 1}, {"F16", 2}, {"F32", 4}, {"I32", 4}, {"I64", 8}};

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

typedef struct node {
    struct node *next;
} node;

#define TRY(x)                  \
    do {                        \
        if (!(x)) return false; \
    } while (0)
#define REQUIRE(x, ...)           \
    do {                          \
        if (!(x)) {               \
            fail(r, __VA_ARGS__); \
            return false;         \
        }                         \
    } while (0)

__attribute__((format(printf, 2, 3))) static bool fail(reader *r, const char *format, ...) {
    if (r->reason_size == 0 || r->reason[0]) return false;
    int used = 0;
    if (r->operation >= 0) {
        used = snprintf(r->reason, r->reason_size, "operation %lld (%s): ", (long long)r->operation, r->where);
        if (used < 0 || (size_t)used >= r->reason_size) return false;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(r->reason + used, r->reason_size - (size_t)used, format, arguments);
    va_end(arguments);
    return false;
}

/* `count` things of `size` bytes, all 0, at a multiple of 64, with slack after them. They are freed with the model. */
static void *hold(reader *r, uint64_t count, uint64_t size) {
    uint64_t extra = SLACK * 4 + 64 + sizeof(node);
    if (size && count > (UINT64_MAX / 4) / size) {
        fail(r, "too large");
        return NULL;
    }
    uint64_t bytes = count * size;
    if (bytes > r->budget || bytes > SIZE_MAX / 2 - extra) {
        fail(r, "the file would need much more memory than its size");
        return NULL;
    }
    node *new = calloc(1, (size_t)(bytes + extra));
    if (!new) {
        fail(r, "there is not enough memory");
        return NULL;
    }
    r->budget -= bytes;
    r->model->held += bytes;
    new->next = r->model->allocated;
    r->model->allocated = new;
    return (void *)(((uintptr_t)(new + 1) + 63) & ~(uintptr_t)63);
}

static uint16_t u16_at(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static uint32_t u32_at(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static float f32_at(const uint8_t *p) {
    uint32_t bits = u32_at(p);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static int compare_text(const char *a, uint32_t a_length, const char *b, uint32_t b_length) {
    int order = memcmp(a, b, a_length < b_length ? a_length : b_length);
    return order ? order : (a_length > b_length) - (a_length < b_length);
}

static int by_name(const void *a, const void *b) {
    const tensor *x = a, *y = b;
    return compare_text(x->name, x->name_length, y->name, y->name_length);
}

static int by_place(const void *a, const void *b) {
    const tensor *x = *(const tensor *const *)a, *y = *(const tensor *const *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static tensor *find(const reader *r, const char *name, uint32_t length) {
    uint32_t low = 0, high = r->tensor_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        tensor *t = &r->tensors[middle];
        int order = compare_text(t->name, t->name_length, name, length);
        if (order == 0) return t;
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return NULL;
}

static tensor *find_named(const reader *r, const char *name) { return find(r, name, (uint32_t)strlen(name)); }

#define SHOW(length, text) (int)((length) < NAME_SHOWN ? (length) : NAME_SHOWN), (text)
#define TENSOR(t) SHOW((t)->name_length, (t)->name)

static bool read_dims(reader *r, const json *j, uint32_t token, const char *name, uint32_t length, tensor *t) {
    REQUIRE(
        j->tokens[token].kind == JSON_ARRAY && j->tokens[token].length <= MAX_DIMS, "tensor %.*s has no proper shape",
        SHOW(length, name)
    );
    t->dim_count = j->tokens[token].length;
    t->count = 1;
    for (uint32_t i = 0; i < t->dim_count; i++) {
        int64_t dim;
        REQUIRE(
            json_integer(j, token + 1 + i, &dim) && dim >= 0 && dim < (int64_t)1 << 40,
            "tensor %.*s has no proper shape", SHOW(length, name)
        );
        t->dims[i] = (uint64_t)dim;
        REQUIRE(
            dim == 0 || t->count <= ((uint64_t)1 << 44) / (uint64_t)dim, "tensor %.*s is too large", SHOW(length, name)
        );
        t->count *= (uint64_t)dim;
    }
    return true;
}

static bool read_header(reader *r, const uint8_t *bytes, size_t size) {
    REQUIRE(size >= 8, "the file is too short");
    uint64_t length = u32_at(bytes) | (uint64_t)u32_at(bytes + 4) << 32;
    REQUIRE(length <= MAX_HEADER && length <= size - 8, "the header is longer than allowed or than the file");
    REQUIRE(json_parse(&r->header, bytes + 8, (size_t)length) == 0, "the header is not JSON");
    const json *j = &r->header;
    REQUIRE(j->tokens[0].kind == JSON_OBJECT, "the header is not a JSON object");
    const uint8_t *data = bytes + 8 + length;
    uint64_t data_size = size - 8 - length;

    int64_t about = json_get(j, 0, "__metadata__");
    REQUIRE(about > 0 && j->tokens[about].kind == JSON_OBJECT, "the header has no __metadata__");
    int64_t format = json_get(j, (uint32_t)about, "format"), schema = json_get(j, (uint32_t)about, "schema");
    REQUIRE(format > 0 && json_is(j, (uint32_t)format, "lsan"), "not a bundle: __metadata__ does not say format lsan");
    REQUIRE(schema > 0 && json_is(j, (uint32_t)schema, "1"), "unknown schema: this reader knows schema 1");

    uint32_t count = j->tokens[0].length - 1;
    r->tensors = calloc((size_t)count + 1, sizeof *r->tensors);
    REQUIRE(r->tensors, "there is not enough memory");
    for (uint32_t key = 1; key < j->tokens[0].next; key = j->tokens[key + 1].next) {
        if (json_is(j, key, "__metadata__")) continue;
        uint32_t value = key + 1;
        tensor *t = &r->tensors[r->tensor_count];
        t->name = j->text + j->tokens[key].begin;
        t->name_length = j->tokens[key].length;
        int64_t type = json_get(j, value, "dtype"), shape = json_get(j, value, "shape");
        int64_t place = json_get(j, value, "data_offsets"), begin, end;
        REQUIRE(type > 0 && shape > 0 && place > 0, "tensor %.*s lacks dtype, shape or data_offsets", TENSOR(t));
        uint32_t known = 0;
        while (known < sizeof types / sizeof *types && !json_is(j, (uint32_t)type, types[known].name)) known++;
        REQUIRE(
            known < sizeof types / sizeof *types, "tensor %.*s has a type other than U8, F16, F32, I32, I64", TENSOR(t)
        );
        t->type = (number_type)known;
        TRY(read_dims(r, j, (uint32_t)shape, t->name, t->name_length, t));
        REQUIRE(
            j->tokens[place].kind == JSON_ARRAY && j->tokens[place].length == 2 &&
                json_integer(j, (uint32_t)place + 1, &begin) && json_integer(j, (uint32_t)place + 2, &end) &&
                begin >= 0 && end >= begin && (uint64_t)end <= data_size,
            "tensor %.*s is not inside the file", TENSOR(t)
        );
        t->begin = (uint64_t)begin;
        t->end = (uint64_t)end;
        REQUIRE(
            t->end - t->begin == t->count * types[known].bytes, "tensor %.*s: its shape and its bytes differ", TENSOR(t)
        );
        t->data = data + t->begin;
        r->tensor_count++;
    }
    qsort(r->tensors, r->tensor_count, sizeof *r->tensors, by_name);
    for (uint32_t i = 1; i < r->tensor_count; i++) {
        REQUIRE(by_name(&r->tensors[i - 1], &r->tensors[i]) != 0, "tensor %.*s is there twice", TENSOR(&r->tensors[i]));
    }
    const tensor **placed = malloc(((size_t)count + 1) * sizeof(const tensor *));
    REQUIRE(placed, "there is not enough memory");
    for (uint32_t i = 0; i < r->tensor_count; i++) placed[i] = &r->tensors[i];
    qsort(placed, r->tensor_count, sizeof *placed, by_place);
    uint64_t at = 0;
    const tensor *bad = NULL;
    for (uint32_t i = 0; i < r->tensor_count && !bad; i++) {
        if (placed[i]->begin != at) bad = placed[i];
        at = placed[i]->end;
    }
    free(placed);
    REQUIRE(!bad, "tensor %.*s overlaps another or comes after a gap", TENSOR(bad));
    REQUIRE(at == data_size, "there are bytes after the last tensor");

    for (uint32_t i = 0; i < r->tensor_count; i++) {
        const tensor *t = &r->tensors[i];
        bool finite = true;
        if (t->type == TYPE_F16) {
            for (uint64_t n = 0; n < t->count; n++) finite &= (t->data[2 * n + 1] & 0x7C) != 0x7C;
        } else if (t->type == TYPE_F32) {
            for (uint64_t n = 0; n < t->count; n++) finite &= (u32_at(t->data + 4 * n) & 0x7F800000) != 0x7F800000;
        }
        REQUIRE(finite, "tensor %.*s has a number that is not finite", TENSOR(t));
    }
    return true;
}

/* The value of a name in an object of the manifest. */
static bool get(reader *r, uint32_t object, const char *name, uint32_t *value) {
    int64_t found = json_get(&r->manifest, object, name);
    REQUIRE(found > 0, found ? "%s is there twice" : "%s is missing", name);
    *value = (uint32_t)found;
    return true;
}

static bool get_integer(reader *r, uint32_t object, const char *name, int64_t least, int64_t most, int64_t *value) {
    uint32_t token = 0;
    TRY(get(r, object, name, &token));
    REQUIRE(
        json_integer(&r->manifest, token, value) && *value >= least && *value <= most,
        "%s is not a whole number from %lld to %lld", name, (long long)least, (long long)most
    );
    return true;
}

static bool get_float(reader *r, uint32_t object, const char *name, float *value) {
    uint32_t token = 0;
    double x;
    TRY(get(r, object, name, &token));
    REQUIRE(json_real(&r->manifest, token, &x) && x > -3.4e38 && x < 3.4e38, "%s is not a number", name);
    *value = (float)x;
    return true;
}

static bool get_bool(reader *r, uint32_t object, const char *name, bool *value) {
    uint32_t token = 0;
    TRY(get(r, object, name, &token));
    json_kind kind = r->manifest.tokens[token].kind;
    REQUIRE(kind == JSON_TRUE || kind == JSON_FALSE, "%s is neither true nor false", name);
    *value = kind == JSON_TRUE;
    return true;
}

/* One of the words, by its place. */
static bool get_word(reader *r, uint32_t object, const char *name, const char *const *words, uint32_t *which) {
    uint32_t token = 0;
    TRY(get(r, object, name, &token));
    for (*which = 0; words[*which]; ++*which) {
        if (json_is(&r->manifest, token, words[*which])) return true;
    }
    const json_token *t = &r->manifest.tokens[token];
    return fail(r, "%s is unknown: %.*s", name, SHOW(t->length, r->manifest.text + t->begin));
}

/* A tensor of parameters that the manifest names, of `dims` dimensions. */
static bool get_tensor(reader *r, uint32_t object, const char *name, uint32_t dims, tensor **found) {
    uint32_t token = 0;
    TRY(get(r, object, name, &token));
    const json_token *t = &r->manifest.tokens[token];
    REQUIRE(t->kind == JSON_STRING, "%s is not the name of a tensor", name);
    *found = find(r, r->manifest.text + t->begin, t->length);
    REQUIRE(*found, "there is no tensor %.*s", SHOW(t->length, r->manifest.text + t->begin));
    const tensor *x = *found;
    REQUIRE(
        x->bits || x->type == TYPE_F32 || x->type == TYPE_F16, "tensor %.*s is neither of floats nor quantised",
        TENSOR(x)
    );
    REQUIRE(
        x->dim_count == dims && x->count > 0, "tensor %.*s should have %u dimensions and some numbers", TENSOR(x), dims
    );
    return true;
}

static bool is_null(const reader *r, uint32_t object, const char *name) {
    int64_t found = json_get(&r->manifest, object, name);
    return found > 0 && r->manifest.tokens[found].kind == JSON_NULL;
}

static bool zero_tail(const uint8_t *data, uint64_t bits) {
    return bits % 8 == 0 || (data[bits / 8] & (0xFF >> bits % 8)) == 0;
}

/* A tensor of packed whole numbers. */
static bool get_whole(reader *r, const char *name, uint64_t count, uint32_t bits, const uint8_t **data) {
    const tensor *t = find_named(r, name);
    REQUIRE(t, "there is no tensor %s", name);
    REQUIRE(t->type == TYPE_U8 && !t->bits, "tensor %s is not of type U8", name);
    uint64_t total = count * bits;
    REQUIRE(
        t->count == (total + 7) / 8, "tensor %s should have %llu bytes", name, (unsigned long long)((total + 7) / 8)
    );
    REQUIRE(zero_tail(t->data, total), "tensor %s: its last byte is not filled with zeros", name);
    *data = t->data;
    return true;
}

static bool read_quantised(reader *r) {
    uint32_t all;
    TRY(get(r, 0, "quantised", &all));
    const json *j = &r->manifest;
    REQUIRE(j->tokens[all].kind == JSON_OBJECT, "quantised is not an object");
    for (uint32_t key = all + 1; key < j->tokens[all].next; key = j->tokens[key + 1].next) {
        const char *name = j->text + j->tokens[key].begin;
        uint32_t length = j->tokens[key].length, shape;
        tensor *t = find(r, name, length), as = {0};
        REQUIRE(t && t->type == TYPE_U8, "quantised: there is no U8 tensor %.*s", SHOW(length, name));
        REQUIRE(!t->bits, "quantised: %.*s is there twice", SHOW(length, name));
        int64_t bits;
        TRY(get_integer(r, key + 1, "bits", 4, 8, &bits));
        REQUIRE(bits == 4 || bits == 8, "quantised: %.*s has neither 4 nor 8 bits", SHOW(length, name));
        TRY(get(r, key + 1, "shape", &shape));
        TRY(read_dims(r, j, shape, name, length, &as));
        REQUIRE(as.dim_count > 0 && as.count > 0, "quantised: %.*s has no numbers", SHOW(length, name));
        uint64_t total = as.count * (uint64_t)bits;
        REQUIRE(t->count == (total + 7) / 8, "quantised: the shape and the bytes of %.*s differ", SHOW(length, name));
        REQUIRE(
            zero_tail(t->data, total), "quantised: the last byte of %.*s is not filled with zeros", SHOW(length, name)
        );

        char scale_name[512];
        REQUIRE(length < sizeof scale_name - 8, "quantised: a name is too long");
        memcpy(scale_name, name, length);
        memcpy(scale_name + length, ".scale", 6);
        const tensor *scale = find(r, scale_name, length + 6);
        REQUIRE(scale && scale->type == TYPE_F16, "quantised: there is no F16 tensor %.*s.scale", SHOW(length, name));
        uint64_t scales = as.count / as.dims[0] >= SHORT_ROW ? as.dims[0] : 1;
        REQUIRE(
            scale->count == scales, "quantised: %.*s should have %llu scales", SHOW(length, name),
            (unsigned long long)scales
        );
        for (uint64_t i = 0; i < scales; i++) {
            uint16_t half = u16_at(scale->data + 2 * i);
            REQUIRE(half <= 0x7C00 || half == 0x8000, "quantised: %.*s has a negative scale", SHOW(length, name));
        }
        t->bits = (uint32_t)bits;
        t->dim_count = as.dim_count;
        memcpy(t->dims, as.dims, sizeof as.dims);
        t->count = as.count;
        t->scale = scale->data;
        t->scale_count = scales;
    }
    return true;
}

/* Of a quantised tensor. */
static int whole_number(const tensor *t, uint64_t i) {
    return t->bits == 8 ? t->data[i] - 128 : (t->data[i / 2] >> (i % 2 ? 0 : 4) & 15) - 8;
}

static float value(const tensor *t, uint64_t i) {
    if (!t->bits) return t->type == TYPE_F32 ? f32_at(t->data + 4 * i) : lsan_half(u16_at(t->data + 2 * i));
    uint64_t row = t->scale_count > 1 ? i / (t->count / t->dims[0]) : 0;
    return (float)whole_number(t, i) * lsan_half(u16_at(t->scale + 2 * row));
}

/* All numbers of a tensor in float32, row-major; made once. */
static const float *floats(reader *r, tensor *t) {
    if (!t->floats) {
        float *x = hold(r, t->count, sizeof *x);
        if (!x) return NULL;
        for (uint64_t i = 0; i < t->count; i++) x[i] = value(t, i);
        t->floats = x;
    }
    return t->floats;
}

/* B[i][j] = number first + i * down + j * along of the tensor, for the product x B. */
static bool
pack(reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint64_t first, uint64_t down, uint64_t along) {
    uint32_t w = r->model->kernels->width, panel = r->model->kernels->panel;
    uint64_t whole = ((uint64_t)n + w - 1) / w * w;
    *b = (packed){.k = k, .n = n};
    TRY(b->data = hold(r, whole * k, sizeof(float)));
    float *to = b->data;
    for (uint32_t c = 0; c < n; c += panel) {
        uint32_t columns = n - c < panel ? n - c : panel, filled = (columns + w - 1) / w * w;
        for (uint32_t i = 0; i < k; i++, to += filled) {
            for (uint32_t j = 0; j < columns; j++) to[j] = value(t, first + i * down + (c + j) * along);
        }
    }
    return true;
}

/* The same in the whole numbers of the tensor's rows first .. first + n - 1. */
static bool pack_whole(reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint32_t first) {
    uint32_t w = r->model->kernels->width, panel = r->model->kernels->panel, group = r->model->kernels->group;
    uint64_t columns = ((uint64_t)n + w - 1) / w * w, groups = ((uint64_t)k + 3) / 4 * 4 / group;
    *b = (packed){.k = k, .n = n};
    TRY((b->whole = hold(r, columns * groups, 4)) && (b->scales = hold(r, columns, sizeof(float))));
    TRY(b->start = hold(r, columns, sizeof(int32_t)));
    uint8_t *to = b->whole;
    for (uint32_t c = 0; c < n; c += panel) {
        uint32_t here = n - c < panel ? n - c : panel, filled = (here + w - 1) / w * w;
        for (uint64_t i = 0; i < groups * group; i++) {
            for (uint32_t j = 0; j < here && i < k; j++) {
                int16_t number = (int16_t)whole_number(t, (uint64_t)(first + c + j) * k + i);
                uint8_t *at = to + ((i / group * filled + j) * group + i % group) * (4 / group);
                if (group == 4) {
                    *at = (uint8_t)number;
                    b->start[c + j] -= 128 * number; /* rows of x are shifted by 128 */
                } else {
                    memcpy(at, &number, 2);
                }
            }
        }
        to += groups * filled * 4;
    }
    for (uint32_t i = 0; i < n; i++) b->scales[i] = lsan_half(u16_at(t->scale + (t->scale_count > 1 ? 2 * (uint64_t)(first + i) : 0)));
    return true;
}

static bool pack_bias(reader *r, packed *b, const tensor *t, uint32_t first) {
    TRY(b->bias = hold(r, b->n, sizeof(float)));
    for (uint32_t i = 0; i < b->n; i++) b->bias[i] = value(t, first + i);
    return true;
}

/* A matrix to be multiplied with one vector, in the numbers of the file. */
static bool hold_matrix(reader *r, matrix *m, const tensor *t, bool flat) {
    REQUIRE(t->dims[0] < (uint64_t)1 << 31 && t->dims[1] <= MAX_COLUMNS, "tensor %.*s is too large", TENSOR(t));
    m->rows = (uint32_t)t->dims[0];
    m->columns = (uint32_t)t->dims[1];
    m->padded = (m->columns + 3) / 4 * 4;
    m->kind = t->bits == 8 ? NUMBERS_I8 : t->bits == 4 ? NUMBERS_I4 : t->type == TYPE_F16 ? NUMBERS_F16 : NUMBERS_F32;
    if (FEW_KINDS) m->kind = t->bits ? NUMBERS_I8 : NUMBERS_F32;
    static const uint8_t bits[] = {[NUMBERS_F32] = 32, [NUMBERS_F16] = 16, [NUMBERS_I8] = 8, [NUMBERS_I4] = 4};
    m->block_bytes = (size_t)m->padded * LANES * bits[m->kind] / 8;
    uint64_t blocks = ((uint64_t)m->rows + LANES - 1) / LANES;
    TRY(m->data = hold(r, blocks, m->block_bytes));
    if (m->kind == NUMBERS_I4) memset(m->data, 0x88, (size_t)(blocks * m->block_bytes));
    for (uint32_t row = 0; row < m->rows; row++) {
        uint8_t *block = m->data + (size_t)(row / LANES) * m->block_bytes;
        uint32_t lane = row % LANES;
        uint64_t first = (uint64_t)row * m->columns;
        for (uint32_t c = 0; c < m->columns; c++) {
            uint64_t i = first + c;
            size_t to = (size_t)c * LANES + lane;
            float x;
            uint16_t half;
            switch (m->kind) {
            case NUMBERS_F32:
                x = value(t, i);
                memcpy(block + 4 * to, &x, 4);
                break;
            case NUMBERS_F16:
                half = u16_at(t->data + 2 * i);
                memcpy(block + 2 * to, &half, 2);
                break;
            case NUMBERS_I8: block[to] = (uint8_t)whole_number(t, i); break;
            case NUMBERS_I4: {
                if (FEW_KINDS) break;
                uint8_t number = t->data[i / 2] >> (i % 2 ? 0 : 4) & 15, *cell = block + (size_t)(c / 2) * LANES + lane;
                *cell = c % 2 ? (uint8_t)((*cell & 15) | number << 4) : (uint8_t)((*cell & 0xF0) | number);
            }
            }
        }
    }
    if (t->bits) {
        m->scale_by_row = t->scale_count > 1;
        TRY(m->scales = hold(r, t->scale_count, sizeof(float)));
        for (uint64_t i = 0; i < t->scale_count; i++) m->scales[i] = lsan_half(u16_at(t->scale + 2 * i));
    }
    if (flat) {
        float *copy = hold(r, t->count, sizeof *copy);
        TRY(copy);
        for (uint64_t i = 0; i < t->count; i++) copy[i] = value(t, i);
        m->flat = copy;
    }
    return true;
}

static uint32_t hashed(uint32_t item, uint32_t table) {
    uint32_t x = item + 0x9E3779B9u * table;
    x ^= x >> 16;
    x *= 0x85EBCA6Bu;
    x ^= x >> 13;
    x *= 0xC2B2AE35u;
    return x ^ x >> 16;
}

static bool read_codes(reader *r, uint32_t table, const tensor *weight, bool scored) {
    lsan_model *m = r->model;
    code_planes *codes = &m->codes;
    const json *j = &r->manifest;
    int64_t slices;
    uint32_t rows = 0, offsets = 0, source = 0, from = 0;
    TRY(get(r, table, "rows", &rows) && get(r, table, "offsets", &offsets) && get(r, table, "codes", &source));
    REQUIRE(
        j->tokens[rows].kind == JSON_ARRAY && j->tokens[offsets].kind == JSON_ARRAY && j->tokens[rows].length >= 1 &&
            j->tokens[rows].length <= MAX_TABLES && j->tokens[offsets].length == j->tokens[rows].length,
        "table: rows and offsets are not lists of the same length from 1 to %d", MAX_TABLES
    );
    codes->count = j->tokens[rows].length;
    TRY(get_integer(r, table, "slices", 1, MAX_TABLES, &slices));
    codes->slices = (uint32_t)slices;
    REQUIRE(codes->slices == 1 || codes->slices == codes->count, "table: slices is neither 1 nor the number of tables");
    REQUIRE(weight->dims[1] * codes->slices == m->width, "table: tensor %.*s does not fit the width", TENSOR(weight));
    codes->narrow = true;
    uint32_t plane = 0;
    for (uint32_t n = 0; n < codes->count; n++) {
        code_table *t = &codes->tables[n];
        int64_t height, offset;
        REQUIRE(
            json_integer(j, rows + 1 + n, &height) && json_integer(j, offsets + 1 + n, &offset) && height >= 1 &&
                offset >= 0 && height <= (int64_t)weight->dims[0] && offset <= (int64_t)weight->dims[0] - height,
            "table: rows of table %u are not inside %.*s", n + 1, TENSOR(weight)
        );
        t->rows = (uint32_t)height;
        t->offset = (uint32_t)offset;
        t->bytes = t->rows <= 256 ? 1 : t->rows <= 65536 ? 2 : 4;
        t->plane = plane;
        plane += t->bytes;
        codes->narrow &= t->bytes == 1;
        t->scores = codes->scores;
        codes->scores += ((size_t)t->rows + 63) / 64 * 64;
    }
    if (scored && !lsan_same_bias(&m->bias) && (codes->narrow || m->bias.kind == BIAS_PLANE)) {
        m->bias.plane = true;
        m->bias.plane_at = plane++;
    }
    codes->stride = plane * BLOCK;
    codes->blocks = (m->items - 1) / BLOCK + 1;
    TRY(codes->planes = hold(r, codes->blocks, codes->stride));

    enum { PACKED, PAIRS, DIGITS, HASH };
    static const char *const sources[] = {"packed", "pairs", "digits", "hash", NULL};
    TRY(get_word(r, source, "from", sources, &from));
    const uint8_t *data = NULL, *pairs = NULL;
    int64_t bits = 0, paired = 0, pair_count = 0;
    if (from != HASH) {
        TRY(get_integer(r, source, "bits", 1, 32, &bits));
        uint64_t numbers = (uint64_t)m->items * (from == DIGITS ? 1 : codes->count);
        if (from == PAIRS) {
            REQUIRE(codes->count % 2 == 0, "codes: pairs of an odd number of tables");
            TRY(get_integer(r, source, "paired", 0, m->items, &paired));
            TRY(get_integer(r, source, "pairs", 1, 65536, &pair_count));
            TRY(get_whole(r, "codes.pairs", (uint64_t)pair_count * codes->count, (uint32_t)bits, &pairs));
            numbers -= (uint64_t)paired * (codes->count / 2);
        }
        TRY(get_whole(r, from == DIGITS ? "numbers" : "codes", numbers, (uint32_t)bits, &data));
    }
    codes->sorted = true;
    uint64_t before = 0;
    for (uint32_t place = 0; place < m->items; place++) {
        uint8_t *block = codes->planes + (size_t)(place / BLOCK) * codes->stride;
        uint32_t number = from == DIGITS ? lsan_packed_number(data, (uint32_t)bits, place) : 0;
        uint64_t group = 0, first = (uint64_t)place * codes->count; /* of its numbers in `data` */
        bool in_pairs = place < paired;
        first -= (in_pairs ? place : (uint64_t)paired) * (codes->count / 2);
        for (uint32_t n = 0; n < codes->count; n++) {
            const code_table *t = &codes->tables[n];
            uint32_t code;
            if (from <= PAIRS) {
                uint64_t i = first + (in_pairs ? n / 2 : n);
                code = bits == 8 ? data[i] : lsan_packed_number(data, (uint32_t)bits, i);
                if (in_pairs) {
                    i = ((uint64_t)(n / 2) * (uint64_t)pair_count + code) * 2 + n % 2;
                    code = code < pair_count ? lsan_packed_number(pairs, (uint32_t)bits, i) : UINT32_MAX;
                }
                REQUIRE(
                    code < t->rows, "codes: item %u has code %u in table %u of %u rows", place + 1, code, n + 1, t->rows
                );
            } else if (from == DIGITS) {
                code = number % t->rows;
                number /= t->rows;
            } else {
                code = hashed(place + 1, n) % t->rows;
            }
            uint8_t *cell = block + (size_t)t->plane * BLOCK + (size_t)(place % BLOCK) * t->bytes;
            uint16_t two = (uint16_t)code;
            if (t->bytes == 1) *cell = (uint8_t)code;
            else if (t->bytes == 2) memcpy(cell, &two, 2);
            else memcpy(cell, &code, 4);
            if (n < 2) group = group * t->rows + code;
        }
        codes->sorted &= group >= before;
        before = group;
    }
    if (!scored) return true;
    uint64_t numbers = 0;
    for (uint32_t n = 0; n < codes->count; n++) numbers += (uint64_t)codes->tables[n].rows * weight->dims[1];
    if (numbers <= 1 << 18) {
        for (uint32_t n = 0; n < codes->count; n++) {
            code_table *t = &codes->tables[n];
            TRY(pack(
                r, &t->facing, weight, (uint32_t)weight->dims[1], t->rows, t->offset * weight->dims[1], 1,
                weight->dims[1]
            ));
        }
    }
    return true;
}

static bool all_the_same(const tensor *t) {
    for (uint64_t i = 1; i < t->count; i++) {
        if (value(t, i) != value(t, 0)) return false;
    }
    return true;
}

static bool read_bias(reader *r, tensor *t) {
    lsan_model *m = r->model;
    item_bias *bias = &m->bias;
    REQUIRE(t->count == m->items, "tensor %.*s should have a number for each item", TENSOR(t));
    bias->kind = t->bits ? BIAS_PLANE : t->type == TYPE_F16 ? BIAS_F16 : BIAS_F32;
    if (t->scale_count > 1) return fail(r, "tensor %.*s should have one scale", TENSOR(t));
    if (!FEW_KINDS && all_the_same(t)) {
        bias->kind = BIAS_SAME;
        bias->largest = value(t, 0);
    }
    return true;
}

/* After the codes: the biases, and for narrow codes the plane of them or of their bounds. */
static bool hold_bias(reader *r, const tensor *t) {
    lsan_model *m = r->model;
    item_bias *bias = &m->bias;
    uint8_t *plane = bias->plane ? m->codes.planes + (size_t)bias->plane_at * BLOCK : NULL;
    size_t stride = m->codes.stride;
    if (lsan_same_bias(bias)) return true;
    if (bias->kind == BIAS_PLANE) {
        float scale = lsan_half(u16_at(t->scale));
        int zero = t->bits == 8 ? 128 : 8;
        bias->plane_rows = t->bits == 8 ? 256 : 16;
        for (int i = 0; i < 256; i++) bias->table[i] = (float)((t->bits == 8 ? i : i & 15) - zero) * scale;
        if (!plane) TRY(bias->numbers = hold(r, m->items, 1));
        uint8_t largest = 0;
        for (uint32_t i = 0; i < m->items; i++) {
            uint8_t number = t->bits == 8 ? t->data[i] : t->data[i / 2] >> (i % 2 ? 0 : 4) & 15;
            if (plane) plane[i / BLOCK * stride + i % BLOCK] = number;
            else bias->numbers[i] = number;
            if (number > largest) largest = number;
        }
        bias->largest = bias->table[largest];
        return true;
    }
    size_t size = bias->kind == BIAS_F16 ? 2 : 4;
    TRY(bias->values = hold(r, m->items, size));
    float least = INFINITY, most = -INFINITY;
    for (uint32_t i = 0; i < m->items; i++) {
        float x = value(t, i);
        uint16_t half = size == 2 ? u16_at(t->data + 2 * (size_t)i) : 0;
        if (size == 2) ((uint16_t *)bias->values)[i] = half;
        else ((float *)bias->values)[i] = x;
        least = x < least ? x : least;
        most = x > most ? x : most;
    }
    bias->largest = most;
    bias->plane_rows = 256;
    if (!plane) return true;
    float step = (most - least) / 255;
    bool usable = step > 0 && step < 1e37f;
    for (int i = 0; i < 255; i++) bias->table[i] = usable ? least + (float)i * step : most;
    bias->table[255] = most;
    for (uint32_t i = 0; i < m->items; i++) {
        float x = value(t, i);
        int level = usable ? (int)((x - least) / step) : 0;
        if (level > 255) level = 255;
        while (level < 255 && bias->table[level] < x) level++;
        plane[i / BLOCK * stride + i % BLOCK] = (uint8_t)level;
    }
    return true;
}

static bool build_index(reader *r) {
    lsan_model *m = r->model;
    code_planes *codes = &m->codes;
    if (!codes->narrow || !codes->sorted || codes->count < 2) return true;
    uint32_t second = codes->tables[1].rows, groups = codes->tables[0].rows * second;
    if (m->items / 16 < groups) return true;
    TRY(codes->starts = hold(r, (uint64_t)groups + 1, sizeof *codes->starts));
    TRY(codes->group_bias = hold(r, groups, 1));
    uint32_t next = 0;
    for (uint32_t i = 0; i < m->items; i++) {
        uint32_t group = lsan_code(codes, 0, i) * second + lsan_code(codes, 1, i);
        while (next <= group) codes->starts[next++] = i;
        if (!m->bias.plane) continue;
        uint8_t number =
            codes->planes[(size_t)(i / BLOCK) * codes->stride + (size_t)m->bias.plane_at * BLOCK + i % BLOCK];
        if (number > codes->group_bias[group]) codes->group_bias[group] = number;
    }
    while (next <= groups) codes->starts[next++] = m->items;
    return true;
}

static bool read_table_and_output(reader *r) {
    lsan_model *m = r->model;
    static const char *const kinds[] = {"vectors", "codes", NULL}, *const outputs[] = {"table", "matrix", NULL};
    uint32_t table = 0, output = 0, kind = 0, way = 0;
    tensor *weight, *bias, *other = NULL;
    TRY(get(r, 0, "table", &table) && get(r, 0, "output", &output));
    TRY(get_word(r, table, "kind", kinds, &kind) && get_tensor(r, table, "weight", 2, &weight));
    TRY(get_word(r, output, "kind", outputs, &way) && get_tensor(r, output, "bias", 1, &bias));
    m->has_codes = kind == 1;
    m->output_is_codes = m->has_codes && way == 0;
    TRY(read_bias(r, bias));
    if (m->has_codes) {
        TRY(read_codes(r, table, weight, way == 0));
    } else {
        REQUIRE(
            weight->dims[0] == m->items && weight->dims[1] == m->width,
            "table: %.*s does not have a row of the width for each item", TENSOR(weight)
        );
    }
    TRY(hold_matrix(r, &m->rows, weight, m->has_codes && weight->count <= 1 << 18));
    m->hidden_width = m->width;
    if (way == 1) {
        TRY(get_tensor(r, output, "weight", 2, &other));
        REQUIRE(other->dims[0] == m->items, "output: %.*s does not have a row for each item", TENSOR(other));
        TRY(hold_matrix(r, &m->other, other, false));
        m->hidden_width = m->other.columns;
    }
    m->output = way == 1 ? &m->other : &m->rows;
    TRY(hold_bias(r, bias));
    return m->output_is_codes ? build_index(r) : true;
}

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->item < y->item ? -1 : x->item > y->item;
}

static bool read_popularity(reader *r) {
    lsan_model *m = r->model;
    int64_t listed, bits;
    const uint8_t *items, *counts;
    TRY(get_integer(r, 0, "popular", 0, m->items, &listed));
    TRY(get_integer(r, 0, "popular_bits", 1, 31, &bits));
    uint32_t n = (uint32_t)listed, item_bits = 0;
    while (m->items >> item_bits) item_bits++;
    TRY(get_whole(r, "popularity.items", n, item_bits, &items));
    TRY(get_whole(r, "popularity.counts", n, (uint32_t)bits, &counts));
    uint32_t *known;
    ranked *order;
    TRY((known = hold(r, n, sizeof *known)) && (order = hold(r, n, sizeof *order)));
    uint32_t before = 0, used = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t item = lsan_packed_number(items, item_bits, i), count = lsan_packed_number(counts, (uint32_t)bits, i);
        REQUIRE(item > before && item <= m->items, "popularity.items are not increasing items");
        before = item;
        if (count == 0) continue;
        known[used] = item;
        order[used++] = (ranked){.score = (float)log1p((double)count), .item = item};
    }
    qsort(order, used, sizeof *order, by_score);
    m->popular_known = known;
    m->popular = order;
    m->popular_count = used;
    return true;
}

static bool read_categories_and_offered(reader *r) {
    lsan_model *m = r->model;
    const uint8_t *data;
    int64_t categories;
    TRY(get_integer(r, 0, "categories", 0, INT32_MAX - 2, &categories));
    m->category_count = (uint32_t)categories;
    if (categories > 0) {
        while (categories >> m->category_bits) m->category_bits++;
        TRY(get_whole(r, "categories", m->items, m->category_bits, &data));
        uint64_t bytes = ((uint64_t)m->items * m->category_bits + 7) / 8;
        TRY(m->categories = hold(r, bytes, 1));
        memcpy(m->categories, data, (size_t)bytes);
        for (uint32_t i = 0; i < m->items; i++) {
            REQUIRE(
                lsan_packed_number(data, m->category_bits, i) <= m->category_count,
                "categories: that of item %u is too large", i + 1
            );
        }
    } else {
        REQUIRE(!find_named(r, "categories"), "there are no categories, but a tensor of them");
    }
    if (find_named(r, "offered")) {
        TRY(get_whole(r, "offered", m->items, 1, &data));
        TRY(m->offered = hold(r, ((uint64_t)m->items + 7) / 8, 1));
        memcpy(m->offered, data, ((size_t)m->items + 7) / 8);
    }
    return true;
}

static const char *const op_names[] = {
    "items",     "rows", "constant",  "append", "linear", "norm",   "sum", "channels",  "concat",  "convolution",
    "attention", "last", "circulant", "gru",    "window", "unfold", "max", "transpose", "flatten", NULL,
};
static const char *const index_names[] = {
    "position",   "position_from_end", "category",   "previous_category", "hour",
    "gap_before", "gap_after",         "hour_after", "weekday_after",     NULL,
};
static const char *const activation_names[] = {"none", "relu", "gelu", NULL};

static bool same_rows(const row_rule *a, const row_rule *b) {
    return a->by_event == b->by_event && a->more == b->more && a->capped == b->capped;
}

static bool is_fixed(const row_rule *rule) { return rule->by_event == 0; }
static bool is_events(const row_rule *rule) { return rule->by_event == 1 && rule->more == 0; }

static row_rule fixed_rows(uint64_t rows) { return (row_rule){.more = (uint32_t)rows}; }

/* A vector of parameters with as many numbers as the operation has columns. */
static bool get_vector(reader *r, uint32_t object, const char *name, uint64_t size, const float **x) {
    tensor *t;
    TRY(get_tensor(r, object, name, 1, &t));
    REQUIRE(t->count == size, "%s should have %llu numbers", name, (unsigned long long)size);
    TRY(*x = floats(r, t));
    return true;
}

static bool set_columns(reader *r, operation *o, uint64_t columns) {
    REQUIRE(columns >= 1 && columns <= MAX_COLUMNS, "more than %d columns", MAX_COLUMNS);
    o->columns = (uint32_t)columns;
    return true;
}

static bool read_operation(reader *r, uint32_t token, uint32_t number) {
    lsan_model *m = r->model;
    operation *o = &m->operations[number];
    const uint32_t history = m->history;
    uint32_t kind, word;
    int64_t whole;
    tensor *t, *u;
    r->where = "?";
    TRY(get_word(r, token, "op", op_names, &kind));
    r->where = op_names[kind];
    o->kind = (op_kind)kind;
    o->of = -1;

    uint32_t in;
    const json *j = &r->manifest;
    TRY(get(r, token, "in", &in));
    REQUIRE(j->tokens[in].kind == JSON_ARRAY, "in is not a list");
    o->in_count = j->tokens[in].length;
    static const struct {
        uint16_t least, most;
    } counts[] = {
        [OP_ITEMS] = {0, 1},
        [OP_ROWS] = {0, 1},
        [OP_CONSTANT] = {0, 0},
        [OP_APPEND] = {2, 2},
        [OP_LINEAR] = {1, 1},
        [OP_NORM] = {1, 1},
        [OP_SUM] = {1, MAX_OPERATIONS},
        [OP_CHANNELS] = {1, 1},
        [OP_CONCAT] = {1, MAX_OPERATIONS},
        [OP_CONVOLUTION] = {1, 1},
        [OP_ATTENTION] = {3, 3},
        [OP_LAST] = {1, 1},
        [OP_CIRCULANT] = {1, 1},
        [OP_GRU] = {1, 1},
        [OP_WINDOW] = {1, 1},
        [OP_UNFOLD] = {1, 1},
        [OP_MAX] = {1, 1},
        [OP_TRANSPOSE] = {1, 1},
        [OP_FLATTEN] = {1, 1},
    };
    REQUIRE(o->in_count >= counts[kind].least && o->in_count <= counts[kind].most, "in has %u operations", o->in_count);
    uint32_t *inputs = hold(r, o->in_count, sizeof *inputs);
    TRY(inputs);
    o->in = inputs;
    bool all_fixed = true, any_tail = false;
    for (uint32_t i = 0; i < o->in_count; i++) {
        REQUIRE(
            json_integer(j, in + 1 + i, &whole) && whole >= 0 && whole < number,
            "in names something other than earlier operations"
        );
        inputs[i] = (uint32_t)whole;
        all_fixed &= m->operations[whole].class_ == CLASS_FIXED;
        any_tail |= m->operations[whole].class_ == CLASS_TAIL;
    }
    const operation *x = o->in_count ? &m->operations[inputs[0]] : NULL;
    const operation *y = o->in_count > 1 ? &m->operations[inputs[1]] : NULL;
    const operation *z = o->in_count > 2 ? &m->operations[inputs[2]] : NULL;
    /* By row: row i of the result depends on row i of what goes in (and those before). */
    bool by_row = true, causal = true;

    switch (o->kind) {
    case OP_ITEMS:
        TRY(get_float(r, token, "factor", &o->factor));
        o->rule = (row_rule){.by_event = 1};
        TRY(set_columns(r, o, m->width));
        if (x) {
            REQUIRE(m->has_codes, "items in context need a table of codes");
            REQUIRE(
                is_events(&x->rule) && !x->rule.capped && x->columns == m->width,
                "the context should have a row of the width for each event"
            );
            TRY(get_tensor(r, token, "attention", 2, &t));
            REQUIRE(t->dims[0] == m->width && t->dims[1] == m->width, "attention should be a square of the width");
            TRY(pack(r, &o->a, t, m->width, m->width, 0, 1, m->width));
            o->aux = (uint64_t)m->codes.count * m->width * 2 + m->codes.count + SLACK;
        } else {
            all_fixed = false;
        }
        break;
    case OP_ROWS:
        TRY(get_word(r, token, "index", index_names, &word));
        TRY(get_tensor(r, token, "table", 2, &t));
        o->index = (index_kind)word;
        o->rule = (row_rule){.by_event = 1};
        if (json_get(j, token, "of") != 0) {
            TRY(get_integer(r, token, "of", 0, number, &whole));
            REQUIRE(o->index <= INDEX_POSITION_FROM_END, "only positions have of");
            REQUIRE(x && inputs[0] == (uint64_t)whole, "of is not what goes in");
            o->of = whole;
            o->rule = x->rule;
        } else {
            REQUIRE(!x, "what goes in is not named by of");
            all_fixed = false;
        }
        {
            uint64_t least = 0;
            switch (o->index) {
            case INDEX_POSITION:
            case INDEX_POSITION_FROM_END: least = lsan_rows_of(&o->rule, history, history); break;
            case INDEX_CATEGORY:
            case INDEX_PREVIOUS_CATEGORY: least = (uint64_t)m->category_count + 2; break;
            case INDEX_HOUR: least = 25; break;
            case INDEX_GAP_BEFORE:
            case INDEX_GAP_AFTER: least = 31; break;
            case INDEX_HOUR_AFTER: least = 24; break;
            case INDEX_WEEKDAY_AFTER: least = 7; break;
            }
            REQUIRE(
                t->dims[0] >= least && t->dims[0] <= INT32_MAX, "table should have %llu rows or more",
                (unsigned long long)least
            );
        }
        o->table_rows = (uint32_t)t->dims[0];
        TRY(set_columns(r, o, t->dims[1]) && (o->x = floats(r, t)));
        by_row = o->index != INDEX_POSITION_FROM_END;
        causal = by_row;
        break;
    case OP_CONSTANT:
        TRY(get_tensor(r, token, "tensor", 2, &t));
        REQUIRE(t->dims[0] <= INT32_MAX, "too many rows");
        o->rule = fixed_rows(t->dims[0]);
        TRY(set_columns(r, o, t->dims[1]) && (o->x = floats(r, t)));
        break;
    case OP_APPEND:
        REQUIRE(x->columns == y->columns, "columns differ");
        {
            uint64_t by_event = (uint64_t)x->rule.by_event + y->rule.by_event,
                     more = (uint64_t)x->rule.more + y->rule.more;
            o->rule = (row_rule){.by_event = (uint32_t)by_event, .more = (uint32_t)more, .capped = true};
            if (by_event + more >= history) o->rule = fixed_rows(history);
            if (by_event == 0) o->rule = fixed_rows(more < history ? more : history);
        }
        TRY(set_columns(r, o, x->columns));
        by_row = causal = false;
        break;
    case OP_LINEAR: {
        int64_t begin, end;
        bool transposed;
        TRY(get_tensor(r, token, "weight", 2, &t) && get_bool(r, token, "transposed", &transposed));
        int64_t out = (int64_t)t->dims[transposed];
        TRY(get_integer(r, token, "begin", 0, transposed ? 0 : out - 1, &begin));
        TRY(get_integer(r, token, "end", transposed ? out : begin + 1, out, &end));
        TRY(get_word(r, token, "activation", activation_names, &word));
        o->act = (activation)word;
        REQUIRE(t->dims[!transposed] == x->columns, "%.*s does not fit %u columns", TENSOR(t), x->columns);
        TRY(set_columns(r, o, (uint64_t)(end - begin)));
        uint64_t across = t->dims[1];
        if (json_get(&r->manifest, token, "input_bits") != 0) {
            TRY(get_integer(r, token, "input_bits", 8, 8, &whole));
            REQUIRE(t->bits && !transposed, "input_bits: %.*s is not quantised, or transposed", TENSOR(t));
            TRY(pack_whole(r, &o->a, t, x->columns, o->columns, (uint32_t)begin));
            o->aux = lsan_rounded_bytes(m->kernels, x->columns) / 4 * m->kernels->height;
        } else {
            TRY(transposed ? pack(r, &o->a, t, x->columns, o->columns, 0, across, 1)
                           : pack(r, &o->a, t, x->columns, o->columns, (uint64_t)begin * across, 1, across));
        }
        if (!is_null(r, token, "bias")) {
            TRY(get_tensor(r, token, "bias", 1, &u));
            REQUIRE(u->count == (uint64_t)out, "bias should have %lld numbers", (long long)out);
            TRY(pack_bias(r, &o->a, u, (uint32_t)begin));
        }
        o->rule = x->rule;
        break;
    }
    case OP_NORM:
        TRY(get_vector(r, token, "weight", x->columns, &o->x) && get_vector(r, token, "bias", x->columns, &o->y));
        TRY(get_float(r, token, "eps", &o->factor));
        REQUIRE(o->factor > 0, "eps is not positive");
        o->rule = x->rule;
        o->columns = x->columns;
        break;
    case OP_SUM: {
        uint32_t list;
        TRY(get(r, token, "factors", &list));
        REQUIRE(
            j->tokens[list].kind == JSON_ARRAY && j->tokens[list].length == o->in_count,
            "factors should be as many as in"
        );
        float *factors = hold(r, o->in_count, sizeof *factors);
        TRY(factors);
        for (uint32_t i = 0; i < o->in_count; i++) {
            double factor;
            const operation *other = &m->operations[inputs[i]];
            REQUIRE(json_real(j, list + 1 + i, &factor) && factor > -3e38 && factor < 3e38, "factors are not numbers");
            REQUIRE(other->columns == x->columns && same_rows(&other->rule, &x->rule), "shapes differ");
            factors[i] = (float)factor;
        }
        o->x = factors;
        o->rule = x->rule;
        o->columns = x->columns;
        break;
    }
    case OP_CHANNELS:
        TRY(get_vector(r, token, "tensor", x->columns, &o->x));
        o->rule = x->rule;
        o->columns = x->columns;
        break;
    case OP_CONCAT: {
        uint64_t columns = 0;
        for (uint32_t i = 0; i < o->in_count; i++) {
            const operation *other = &m->operations[inputs[i]];
            REQUIRE(same_rows(&other->rule, &x->rule), "numbers of rows differ");
            columns += other->columns;
        }
        TRY(set_columns(r, o, columns));
        o->rule = x->rule;
        break;
    }
    case OP_CONVOLUTION: {
        TRY(get_tensor(r, token, "kernel", 2, &t) && get_bool(r, token, "last", &o->last));
        REQUIRE(
            t->dims[0] <= x->columns && x->columns % t->dims[0] == 0, "heads of the kernel do not divide the columns"
        );
        REQUIRE(t->dims[1] <= MAX_HISTORY, "the window is too long");
        TRY(get_integer(r, token, "back", 0, (int64_t)t->dims[1] - 1, &whole));
        o->window = (uint32_t)t->dims[1];
        o->number = (uint32_t)whole;
        o->columns = x->columns;
        float *kernel = hold(r, (uint64_t)o->window * o->columns, sizeof *kernel);
        TRY(kernel);
        for (uint32_t c = 0; c < o->columns; c++) {
            uint64_t head = c / (x->columns / t->dims[0]);
            for (uint32_t i = 0; i < o->window; i++)
                kernel[(size_t)i * o->columns + c] = value(t, head * o->window + i);
        }
        o->x = kernel;
        o->rule = o->last ? fixed_rows(1) : x->rule;
        causal = o->number == o->window - 1;
        by_row = causal && !o->last;
        break;
    }
    case OP_ATTENTION: {
        TRY(get_integer(r, token, "heads", 1, MAX_COLUMNS, &whole));
        TRY(get_bool(r, token, "causal", &o->causal) && get_float(r, token, "scale", &o->factor));
        o->number = (uint32_t)whole;
        REQUIRE(x->columns == y->columns, "queries and keys have different columns");
        REQUIRE(same_rows(&y->rule, &z->rule), "keys and values have different rows");
        REQUIRE(x->columns % o->number == 0 && z->columns % o->number == 0, "heads do not divide the columns");
        o->rule = x->rule;
        o->columns = z->columns;
        if (o->causal) {
            for (uint32_t events = 1; events <= history; events++) {
                REQUIRE(
                    lsan_rows_of(&x->rule, events, history) <= lsan_rows_of(&y->rule, events, history),
                    "causal, but there are more queries than keys"
                );
            }
        }
        bool still = y->class_ == CLASS_FIXED && z->class_ == CLASS_FIXED;
        causal = o->causal || still;
        by_row = o->causal ? y->class_ != CLASS_FIXED && z->class_ != CLASS_FIXED && is_events(&x->rule) : still;
        uint64_t panel = m->kernels->panel, width = (y->max_rows + panel - 1) / panel * panel;
        o->aux = (lsan_asks_once(x) ? width : width * (x->columns + m->kernels->height)) + SLACK;
        break;
    }
    case OP_LAST:
    case OP_MAX:
        o->rule = fixed_rows(1);
        o->columns = x->columns;
        by_row = false;
        causal = o->kind == OP_LAST;
        break;
    case OP_CIRCULANT:
        TRY(get_tensor(r, token, "kernel", 1, &t) && get_bool(r, token, "last", &o->last) && (o->x = floats(r, t)));
        REQUIRE(
            t->count >= history && t->count >= x->max_rows && t->count <= INT32_MAX,
            "the kernel is shorter than the history or what goes in"
        );
        o->window = (uint32_t)t->count;
        o->columns = x->columns;
        o->rule = o->last ? fixed_rows(1) : x->rule;
        o->aux = x->max_rows;
        by_row = causal = false;
        break;
    case OP_GRU: {
        tensor *first, *second;
        TRY(get_tensor(r, token, "input", 2, &t) && get_tensor(r, token, "state", 2, &u));
        TRY(get_tensor(r, token, "input_bias", 1, &first) && get_tensor(r, token, "state_bias", 1, &second));
        uint64_t size = u->dims[1];
        TRY(set_columns(r, o, size));
        REQUIRE(
            t->dims[0] == 3 * size && t->dims[1] == x->columns && u->dims[0] == 3 * size && first->count == 3 * size &&
                second->count == 3 * size,
            "shapes of the parameters differ"
        );
        TRY(pack(r, &o->a, t, x->columns, 3 * o->columns, 0, 1, x->columns) && pack_bias(r, &o->a, first, 0));
        TRY(pack(r, &o->b, u, o->columns, 3 * o->columns, 0, 1, o->columns) && pack_bias(r, &o->b, second, 0));
        o->rule = x->rule;
        o->aux = (uint64_t)o->columns * (3 * m->kernels->height + 4);
        break;
    }
    case OP_WINDOW:
        TRY(get_integer(r, token, "length", 1, MAX_HISTORY, &whole));
        o->rule = fixed_rows((uint64_t)whole);
        o->columns = x->columns;
        by_row = causal = false;
        break;
    case OP_UNFOLD:
        TRY(get_integer(r, token, "height", 1, MAX_COLUMNS, &whole));
        REQUIRE(
            is_fixed(&x->rule) && (uint64_t)whole <= x->rule.more,
            "what goes in should have a fixed number of rows, height or more"
        );
        o->rule = fixed_rows(x->rule.more - (uint64_t)whole + 1);
        TRY(set_columns(r, o, (uint64_t)whole * x->columns));
        by_row = causal = false;
        break;
    case OP_TRANSPOSE:
        REQUIRE(is_fixed(&x->rule), "what goes in should have a fixed number of rows");
        o->rule = fixed_rows(x->columns);
        TRY(set_columns(r, o, x->rule.more));
        by_row = causal = false;
        break;
    case OP_FLATTEN:
        REQUIRE(is_fixed(&x->rule), "what goes in should have a fixed number of rows");
        o->rule = fixed_rows(1);
        TRY(set_columns(r, o, (uint64_t)x->columns * x->rule.more));
        by_row = causal = false;
        break;
    }
    o->max_rows = lsan_rows_of(&o->rule, history, history);
    o->class_ = all_fixed ? CLASS_FIXED : by_row && !any_tail && is_events(&o->rule) ? CLASS_GROWING : CLASS_TAIL;
    if (o->class_ == CLASS_FIXED && !is_fixed(&o->rule)) o->class_ = CLASS_TAIL;
    if (o->class_ != CLASS_FIXED) m->causal &= causal;
    if (o->kind == OP_ROWS && o->index >= INDEX_GAP_AFTER) m->provisional = true;
    return true;
}

static bool read_program(reader *r) {
    lsan_model *m = r->model;
    const json *j = &r->manifest;
    uint32_t program;
    TRY(get(r, 0, "program", &program));
    REQUIRE(
        j->tokens[program].kind == JSON_ARRAY && j->tokens[program].length >= 1 &&
            j->tokens[program].length <= MAX_OPERATIONS,
        "the program is not a list of 1 to %d operations", MAX_OPERATIONS
    );
    m->operation_count = j->tokens[program].length;
    TRY(m->operations = hold(r, m->operation_count, sizeof *m->operations));
    m->causal = true;
    uint32_t token = program + 1;
    for (uint32_t i = 0; i < m->operation_count; i++, token = j->tokens[token].next) {
        r->operation = i;
        r->where = "?";
        TRY(read_operation(r, token, i));
    }
    const operation *last = &m->operations[m->operation_count - 1];
    REQUIRE(is_fixed(&last->rule) && last->rule.more == 1, "the last operation should give one row");
    REQUIRE(
        last->columns == m->hidden_width, "the last operation gives %u columns, the output wants %u", last->columns,
        m->hidden_width
    );
    r->operation = -1;
    REQUIRE(lsan_plan(m) == 0, "the program needs more than 1 GiB to run");
    return true;
}

static bool read_model(reader *r, const uint8_t *bytes, size_t size) {
    lsan_model *m = r->model;
    TRY(read_header(r, bytes, size));
    const tensor *manifest = find_named(r, "manifest");
    REQUIRE(manifest && manifest->type == TYPE_U8, "there is no U8 tensor manifest");
    REQUIRE(manifest->count <= MAX_MANIFEST, "the manifest is longer than 16 MiB");
    REQUIRE(json_parse(&r->manifest, manifest->data, (size_t)manifest->count) == 0, "the manifest is not JSON");
    REQUIRE(r->manifest.tokens[0].kind == JSON_OBJECT, "the manifest is not a JSON object");
    int64_t items, history, width;
    TRY(get_integer(r, 0, "items", 1, INT32_MAX, &items));
    TRY(get_integer(r, 0, "history", 1, MAX_HISTORY, &history));
    TRY(get_integer(r, 0, "width", 1, MAX_COLUMNS, &width));
    TRY(get_bool(r, 0, "timed", &m->timed) && get_bool(r, 0, "exclude_seen", &m->exclude_seen));
    m->items = (uint32_t)items;
    m->history = (uint32_t)history;
    m->width = (uint32_t)width;
    TRY(read_quantised(r));
    TRY(read_categories_and_offered(r));
    TRY(read_popularity(r));
    TRY(read_table_and_output(r));
    return read_program(r);
}

int lsan_open(
    const uint8_t *bytes, size_t size, lsan_instructions instructions, lsan_model **model, char *reason,
    size_t reason_size
) {
    *model = NULL;
    if (reason_size) reason[0] = 0;
    lsan_model *m = calloc(1, sizeof *m);
    reader r = {
        .model = m,
        .budget = (uint64_t)size * 16 + (1 << 20),
        .reason = reason,
        .reason_size = reason_size,
        .operation = -1
    };
    if (!m) {
        fail(&r, "there is not enough memory");
        return -1;
    }
    m->kernels = lsan_choose_kernels(instructions);
    m->held = sizeof *m;
    bool good = read_model(&r, bytes, size);
    json_free(&r.header);
    json_free(&r.manifest);
    free(r.tensors);
    if (good) {
        *model = m;
        return 0;
    }
    fail(&r, "not a bundle");
    lsan_close(m);
    return -1;
}

void lsan_close(lsan_model *model) {
    if (!model) return;
    for (node *held = model->allocated, *next; held; held = next) {
        next = held->next;
        free(held);
    }
    free(model);
}

lsan_facts lsan_describe(const lsan_model *model) {
    return (lsan_facts){
        .items = model->items,
        .history = model->history,
        .width = model->width,
        .hidden_width = model->hidden_width,
        .timed = model->timed,
        .causal = model->causal,
        .exclude_seen = model->exclude_seen,
        .indexed = model->codes.starts != NULL,
        .memory = (size_t)model->held,
        .instruction_set = model->kernels->name,
    };
}
