/* The tensors of a file: where they are, and copies of their numbers as the engine wants them. */
#include "reader.h"

enum { MAX_HEADER = 1 << 20, SHORT_ROW = 16 };

static const struct {
    const char *name;
    uint64_t bytes;
} types[] = {{"U8", 1}, {"F16", 2}, {"F32", 4}, {"I32", 4}, {"I64", 8}};

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

tensor *lsan_find(const reader *r, const char *name, uint32_t length) {
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

tensor *lsan_find_named(const reader *r, const char *name) { return lsan_find(r, name, (uint32_t)strlen(name)); }

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

bool lsan_read_header(reader *r, const uint8_t *bytes, size_t size) {
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

static bool zero_tail(const uint8_t *data, uint64_t bits) {
    return bits % 8 == 0 || (data[bits / 8] & (0xFF >> bits % 8)) == 0;
}

/* A tensor of packed whole numbers. */
bool lsan_get_whole(reader *r, const char *name, uint64_t count, uint32_t bits, const uint8_t **data) {
    const tensor *t = lsan_find_named(r, name);
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

bool lsan_read_quantised(reader *r) {
    uint32_t all;
    TRY(lsan_get(r, 0, "quantised", &all));
    const json *j = &r->manifest;
    REQUIRE(j->tokens[all].kind == JSON_OBJECT, "quantised is not an object");
    for (uint32_t key = all + 1; key < j->tokens[all].next; key = j->tokens[key + 1].next) {
        const char *name = j->text + j->tokens[key].begin;
        uint32_t length = j->tokens[key].length, shape;
        tensor *t = lsan_find(r, name, length), as = {0};
        REQUIRE(t && t->type == TYPE_U8, "quantised: there is no U8 tensor %.*s", SHOW(length, name));
        REQUIRE(!t->bits, "quantised: %.*s is there twice", SHOW(length, name));
        int64_t bits;
        TRY(lsan_get_integer(r, key + 1, "bits", 4, 8, &bits));
        REQUIRE(bits == 4 || bits == 8, "quantised: %.*s has neither 4 nor 8 bits", SHOW(length, name));
        TRY(lsan_get(r, key + 1, "shape", &shape));
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
        const tensor *scale = lsan_find(r, scale_name, length + 6);
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

/* Number i of a quantised tensor. */
static int whole_number(const tensor *t, uint64_t i) {
    return t->bits == 8 ? t->data[i] - 128 : (t->data[i / 2] >> (i % 2 ? 0 : 4) & 15) - 8;
}

float lsan_value(const tensor *t, uint64_t i) {
    if (!t->bits) return t->type == TYPE_F32 ? f32_at(t->data + 4 * i) : lsan_half(u16_at(t->data + 2 * i));
    uint64_t row = t->scale_count > 1 ? i / (t->count / t->dims[0]) : 0;
    return (float)whole_number(t, i) * lsan_half(u16_at(t->scale + 2 * row));
}

const float *lsan_floats(reader *r, tensor *t) {
    if (!t->floats) {
        float *x = lsan_hold(r, t->count, sizeof *x);
        if (!x) return NULL;
        for (uint64_t i = 0; i < t->count; i++) x[i] = lsan_value(t, i);
        t->floats = x;
    }
    return t->floats;
}

bool lsan_pack(
    reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint64_t first, uint64_t down, uint64_t along
) {
    uint32_t w = r->model->kernels->width, panel = r->model->kernels->panel;
    uint64_t whole = ((uint64_t)n + w - 1) / w * w;
    *b = (packed){.k = k, .n = n};
    TRY(b->data = lsan_hold(r, whole * k, sizeof(float)));
    float *to = b->data;
    for (uint32_t c = 0; c < n; c += panel) {
        uint32_t columns = n - c < panel ? n - c : panel, filled = (columns + w - 1) / w * w;
        for (uint32_t i = 0; i < k; i++, to += filled) {
            for (uint32_t j = 0; j < columns; j++) to[j] = lsan_value(t, first + i * down + (c + j) * along);
        }
    }
    return true;
}

bool lsan_pack_whole(reader *r, packed *b, const tensor *t, uint32_t k, uint32_t n, uint32_t first) {
    uint32_t w = r->model->kernels->width, panel = r->model->kernels->panel, group = r->model->kernels->group;
    uint64_t columns = ((uint64_t)n + w - 1) / w * w, groups = ((uint64_t)k + 3) / 4 * 4 / group;
    *b = (packed){.k = k, .n = n};
    TRY((b->whole = lsan_hold(r, columns * groups, 4)) && (b->scales = lsan_hold(r, columns, sizeof(float))));
    TRY(b->start = lsan_hold(r, columns, sizeof(int32_t)));
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
    for (uint32_t i = 0; i < n; i++)
        b->scales[i] = lsan_half(u16_at(t->scale + (t->scale_count > 1 ? 2 * (uint64_t)(first + i) : 0)));
    return true;
}

bool lsan_pack_bias(reader *r, packed *b, const tensor *t, uint32_t first) {
    TRY(b->bias = lsan_hold(r, b->n, sizeof(float)));
    for (uint32_t i = 0; i < b->n; i++) b->bias[i] = lsan_value(t, first + i);
    return true;
}

bool lsan_hold_matrix(reader *r, matrix *m, const tensor *t, bool flat) {
    REQUIRE(t->dims[0] < (uint64_t)1 << 31 && t->dims[1] <= MAX_COLUMNS, "tensor %.*s is too large", TENSOR(t));
    m->rows = (uint32_t)t->dims[0];
    m->columns = (uint32_t)t->dims[1];
    m->padded = (m->columns + 3) / 4 * 4;
    m->kind = t->bits == 8 ? NUMBERS_I8 : t->bits == 4 ? NUMBERS_I4 : t->type == TYPE_F16 ? NUMBERS_F16 : NUMBERS_F32;
    if (FEW_KINDS) m->kind = t->bits ? NUMBERS_I8 : NUMBERS_F32;
    static const uint8_t bits[] = {[NUMBERS_F32] = 32, [NUMBERS_F16] = 16, [NUMBERS_I8] = 8, [NUMBERS_I4] = 4};
    m->block_bytes = (size_t)m->padded * LANES * bits[m->kind] / 8;
    uint64_t blocks = ((uint64_t)m->rows + LANES - 1) / LANES;
    TRY(m->data = lsan_hold(r, blocks, m->block_bytes));
    if (!FEW_KINDS && m->kind == NUMBERS_I4) memset(m->data, 0x88, (size_t)(blocks * m->block_bytes));
    for (uint32_t row = 0; row < m->rows; row++) {
        uint8_t *block = m->data + (size_t)(row / LANES) * m->block_bytes;
        uint32_t lane = row % LANES;
        uint64_t first = (uint64_t)row * m->columns;
        for (uint32_t c = 0; c < m->columns; c++) {
            uint64_t i = first + c;
            size_t to = (size_t)c * LANES + lane;
            if (m->kind == NUMBERS_I8) {
                block[to] = (uint8_t)whole_number(t, i);
            } else if (FEW_KINDS || m->kind == NUMBERS_F32) {
                float x = lsan_value(t, i);
                memcpy(block + 4 * to, &x, 4);
            } else if (m->kind == NUMBERS_F16) {
                uint16_t half = u16_at(t->data + 2 * i);
                memcpy(block + 2 * to, &half, 2);
            } else {
                uint8_t number = t->data[i / 2] >> (i % 2 ? 0 : 4) & 15, *cell = block + (size_t)(c / 2) * LANES + lane;
                *cell = c % 2 ? (uint8_t)((*cell & 15) | number << 4) : (uint8_t)((*cell & 0xF0) | number);
            }
        }
    }
    if (t->bits) {
        m->scale_by_row = t->scale_count > 1;
        TRY(m->scales = lsan_hold(r, t->scale_count, sizeof(float)));
        for (uint64_t i = 0; i < t->scale_count; i++) m->scales[i] = lsan_half(u16_at(t->scale + 2 * i));
    }
    if (flat) {
        float *copy = lsan_hold(r, t->count, sizeof *copy);
        TRY(copy);
        for (uint64_t i = 0; i < t->count; i++) copy[i] = lsan_value(t, i);
        m->flat = copy;
    }
    return true;
}
