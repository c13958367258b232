/* From the bytes of a file to a model. Everything is checked before it is used. */
#include "reader.h"

#include <stdarg.h>

enum { MAX_MANIFEST = 16 << 20 };

typedef struct node {
    struct node *next;
} node;

bool lsan_fail(reader *r, const char *format, ...) {
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
void *lsan_hold(reader *r, uint64_t count, uint64_t size) {
    uint64_t extra = SLACK * 4 + 64 + sizeof(node);
    if (size && count > (UINT64_MAX / 4) / size) {
        lsan_fail(r, "too large");
        return NULL;
    }
    uint64_t bytes = count * size;
    if (bytes > r->budget || bytes > SIZE_MAX / 2 - extra) {
        lsan_fail(r, "the file would need much more memory than its size");
        return NULL;
    }
    node *new = calloc(1, (size_t)(bytes + extra));
    if (!new) {
        lsan_fail(r, "there is not enough memory");
        return NULL;
    }
    r->budget -= bytes;
    r->model->held += bytes;
    new->next = r->model->allocated;
    r->model->allocated = new;
    return (void *)(((uintptr_t)(new + 1) + 63) & ~(uintptr_t)63);
}

bool lsan_get(reader *r, uint32_t object, const char *name, uint32_t *value) {
    int64_t found = json_get(&r->manifest, object, name);
    REQUIRE(found > 0, found ? "%s is there twice" : "%s is missing", name);
    *value = (uint32_t)found;
    return true;
}

bool lsan_get_integer(reader *r, uint32_t object, const char *name, int64_t least, int64_t most, int64_t *value) {
    uint32_t token = 0;
    TRY(lsan_get(r, object, name, &token));
    REQUIRE(
        json_integer(&r->manifest, token, value) && *value >= least && *value <= most,
        "%s is not a whole number from %lld to %lld", name, (long long)least, (long long)most
    );
    return true;
}

bool lsan_get_float(reader *r, uint32_t object, const char *name, float *value) {
    uint32_t token = 0;
    double x;
    TRY(lsan_get(r, object, name, &token));
    REQUIRE(json_real(&r->manifest, token, &x) && x > -3.4e38 && x < 3.4e38, "%s is not a number", name);
    *value = (float)x;
    return true;
}

bool lsan_get_bool(reader *r, uint32_t object, const char *name, bool *value) {
    uint32_t token = 0;
    TRY(lsan_get(r, object, name, &token));
    json_kind kind = r->manifest.tokens[token].kind;
    REQUIRE(kind == JSON_TRUE || kind == JSON_FALSE, "%s is neither true nor false", name);
    *value = kind == JSON_TRUE;
    return true;
}

bool lsan_get_word(reader *r, uint32_t object, const char *name, const char *const *words, uint32_t *which) {
    uint32_t token = 0;
    TRY(lsan_get(r, object, name, &token));
    for (*which = 0; words[*which]; ++*which) {
        if (json_is(&r->manifest, token, words[*which])) return true;
    }
    const json_token *t = &r->manifest.tokens[token];
    return lsan_fail(r, "%s is unknown: %.*s", name, SHOW(t->length, r->manifest.text + t->begin));
}

bool lsan_get_tensor(reader *r, uint32_t object, const char *name, uint32_t dims, tensor **found) {
    uint32_t token = 0;
    TRY(lsan_get(r, object, name, &token));
    const json_token *t = &r->manifest.tokens[token];
    REQUIRE(t->kind == JSON_STRING, "%s is not the name of a tensor", name);
    *found = lsan_find(r, r->manifest.text + t->begin, t->length);
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

bool lsan_is_null(const reader *r, uint32_t object, const char *name) {
    int64_t found = json_get(&r->manifest, object, name);
    return found > 0 && r->manifest.tokens[found].kind == JSON_NULL;
}

static bool read_model(reader *r, const uint8_t *bytes, size_t size) {
    lsan_model *m = r->model;
    TRY(lsan_read_header(r, bytes, size));
    const tensor *manifest = lsan_find_named(r, "manifest");
    REQUIRE(manifest && manifest->type == TYPE_U8, "there is no U8 tensor manifest");
    REQUIRE(manifest->count <= MAX_MANIFEST, "the manifest is longer than 16 MiB");
    REQUIRE(json_parse(&r->manifest, manifest->data, (size_t)manifest->count) == 0, "the manifest is not JSON");
    REQUIRE(r->manifest.tokens[0].kind == JSON_OBJECT, "the manifest is not a JSON object");
    int64_t items, history, width;
    TRY(lsan_get_integer(r, 0, "items", 1, INT32_MAX, &items));
    TRY(lsan_get_integer(r, 0, "history", 1, MAX_HISTORY, &history));
    TRY(lsan_get_integer(r, 0, "width", 1, MAX_COLUMNS, &width));
    TRY(lsan_get_bool(r, 0, "timed", &m->timed) && lsan_get_bool(r, 0, "exclude_seen", &m->exclude_seen));
    m->items = (uint32_t)items;
    m->history = (uint32_t)history;
    m->width = (uint32_t)width;
    TRY(lsan_read_quantised(r));
    return lsan_read_items(r) && lsan_read_program(r);
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
        lsan_fail(&r, "there is not enough memory");
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
    lsan_fail(&r, "not a bundle");
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
