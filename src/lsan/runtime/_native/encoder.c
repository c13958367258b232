/* States, and the program that turns a history into a hidden vector. */
#include "internal.h"

#include <stdlib.h>

static uint64_t whole_lines(uint64_t numbers) { return (numbers + SLACK + 15) / 16 * 16; }

typedef struct {
    uint64_t at, size;
    uint32_t until; /* the last operation that reads it */
} place;

/* The first place where `size` numbers fit between those in use, which are in order. */
static uint64_t put(place *used, uint32_t *count, uint64_t size, uint32_t until) {
    uint64_t at = 0;
    uint32_t i = 0;
    for (; i < *count && used[i].at - at < size; i++) at = used[i].at + used[i].size;
    memmove(used + i + 1, used + i, (*count - i) * sizeof *used);
    used[i] = (place){.at = at, .size = size, .until = until};
    ++*count;
    return at;
}

int lsan_plan(lsan_model *model) {
    uint32_t count = model->operation_count, live = 0;
    uint32_t *until = calloc(count, sizeof *until);
    place *used = calloc(2 * (size_t)count + 1, sizeof *used);
    int result = until && used ? 0 : -1;
    for (uint32_t i = 0; i < count && !result; i++) {
        until[i] = i;
        for (uint32_t n = 0; n < model->operations[i].in_count; n++) until[model->operations[i].in[n]] = i;
    }
    if (!result) until[count - 1] = UINT32_MAX;
    /* What does not depend on the history is computed once, so its place is nobody else's. */
    for (uint32_t step = 0; step < 2 * count && !result; step++) {
        uint32_t i = step % count;
        bool fixed = step < count;
        operation *o = &model->operations[i];
        if ((o->class_ == CLASS_FIXED) != fixed) continue;
        uint32_t left = 0;
        for (uint32_t n = 0; n < live; n++) {
            if (fixed || used[n].until >= i) used[left++] = used[n];
        }
        live = left;
        uint64_t size = o->kind == OP_CONSTANT ? 0 : whole_lines((uint64_t)o->max_rows * o->columns);
        uint64_t aux = o->aux ? whole_lines(o->aux) : 0;
        o->kept_at = model->kept_size;
        o->kept_aux_at = model->kept_size + size;
        model->kept_size += size + aux;
        if (size) o->shared_at = put(used, &live, size, fixed ? UINT32_MAX : until[i]);
        if (aux) o->shared_aux_at = put(used, &live, aux, fixed ? UINT32_MAX : i);
        for (uint32_t n = 0; n < live; n++) {
            uint64_t end = used[n].at + used[n].size;
            if (end > model->shared_size) model->shared_size = end;
        }
        if (model->kept_size > MAX_WORKSPACE / 4) result = -1;
    }
    free(until);
    free(used);
    return result;
}

static void *aligned(void *block) { return (void *)(((uintptr_t)block + 63) & ~(uintptr_t)63); }

static void *carve(uint8_t **at, size_t bytes) {
    void *found = *at;
    *at += (bytes + SLACK * 4 + 63) / 64 * 64;
    return found;
}

static void run(lsan_state *s, uint32_t from, bool fixed) {
    const lsan_model *m = s->model;
    for (uint32_t i = 0; i < m->operation_count; i++) {
        const operation *o = &m->operations[i];
        if ((o->class_ == CLASS_FIXED) != fixed) continue;
        s->row_count[i] = lsan_rows_of(&o->rule, s->length, m->history);
        if (o->kind != OP_CONSTANT) m->kernels->run(s, i, o->class_ == CLASS_GROWING ? from : 0);
    }
}

lsan_state *lsan_state_new(const lsan_model *model, size_t k, bool session) {
    const lsan_model *m = model;
    size_t groups = m->codes.starts ? (size_t)m->codes.tables[0].rows * m->codes.tables[1].rows : 0;
    size_t work = (size_t)(session ? m->kept_size : m->shared_size) * 4, count = m->operation_count;
    size_t sizes[] = {
        work,
        count * sizeof(float *),
        count * sizeof(float *),
        count * 4,
        (size_t)m->history * 4,
        (size_t)m->history * 8,
        2 * ((size_t)m->hidden_width + 4) * 4,
        (m->output_is_codes ? m->codes.scores : 0) * 4,
        m->output_is_codes && m->codes.narrow ? ((size_t)m->codes.count + 1) * 256 : 0,
        ((size_t)m->items + 63) / 64 * 8,
        groups * 8,
        groups,
    };
    size_t total = 64;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) total += (sizes[i] + SLACK * 4 + 63) / 64 * 64;
    lsan_state *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->blocks[0] = calloc(1, total);
    s->memory = sizeof *s + total;
    s->model = m;
    s->session = session;
    if (!s->blocks[0] || lsan_state_reserve(s, k)) {
        lsan_state_free(s);
        return NULL;
    }
    uint8_t *at = aligned(s->blocks[0]);
    float *space = carve(&at, sizes[0]);
    s->reg = carve(&at, sizes[1]);
    s->aux = carve(&at, sizes[2]);
    s->row_count = carve(&at, sizes[3]);
    s->items = carve(&at, sizes[4]);
    s->times = carve(&at, sizes[5]);
    s->padded = carve(&at, sizes[6]);
    s->scores = carve(&at, sizes[7]);
    s->bounds = carve(&at, sizes[8]);
    s->blocked = carve(&at, sizes[9]);
    s->order = carve(&at, sizes[10]);
    s->group_bounds = carve(&at, sizes[11]);
    for (uint32_t i = 0; i < count; i++) {
        const operation *o = &m->operations[i];
        s->reg[i] = o->kind == OP_CONSTANT ? (float *)(uintptr_t)o->x : space + (session ? o->kept_at : o->shared_at);
        s->aux[i] = o->aux ? space + (session ? o->kept_aux_at : o->shared_aux_at) : NULL;
    }
    run(s, 0, true);
    for (uint32_t i = 0; m->offered && i < m->items; i++) {
        if (!lsan_packed_number(m->offered, 1, i)) s->blocked[i / 64] |= (uint64_t)1 << i % 64;
    }
    if (m->items % 64) s->blocked[m->items / 64] |= ~(uint64_t)0 << m->items % 64;
    return s;
}

int lsan_state_reserve(lsan_state *state, size_t k) {
    if (k > state->model->items) k = state->model->items;
    if (k <= state->room) return 0;
    ranked *heap = realloc(state->heap, k * sizeof *heap);
    if (!heap) return -1;
    state->memory += (k - state->room) * sizeof *heap;
    state->heap = heap;
    state->room = k;
    return 0;
}

size_t lsan_state_memory(const lsan_state *state) { return state->memory; }

void lsan_state_free(lsan_state *state) {
    if (!state) return;
    free(state->blocks[0]);
    free(state->heap);
    free(state);
}

static bool is_offered(const lsan_model *m, int32_t item) {
    return !m->offered || lsan_packed_number(m->offered, 1, (uint32_t)item - 1);
}

static const float *result(const lsan_state *s) { return s->reg[s->model->operation_count - 1]; }

int lsan_encode(
    lsan_state *state, const int32_t *items, const int64_t *times, size_t count, int64_t asked, const float **hidden
) {
    lsan_state *s = state;
    const lsan_model *m = s->model;
    *hidden = NULL;
    uint32_t used = 0, bad = 0;
    for (size_t i = 0; i < count; i++) bad |= (uint32_t)items[i] - 1 >= m->items;
    if (bad) return -1;
    for (size_t i = count; i > 0 && used < m->history; i--) {
        if (!is_offered(m, items[i - 1])) continue;
        used++;
        s->items[m->history - used] = items[i - 1];
        s->times[m->history - used] = times ? times[i - 1] : -1;
    }
    if (!used) return 0;
    memmove(s->items, s->items + m->history - used, used * sizeof *s->items);
    memmove(s->times, s->times + m->history - used, used * sizeof *s->times);
    s->length = used;
    s->asked = asked;
    s->valid = 0;
    s->fresh = false;
    run(s, 0, false);
    *hidden = result(s);
    return 1;
}

int lsan_append(lsan_state *session, int32_t item, int64_t time) {
    lsan_state *s = session;
    const lsan_model *m = s->model;
    if ((uint32_t)item - 1 >= m->items) return -1;
    if (!is_offered(m, item)) return 0;
    if (s->length == m->history) {
        memmove(s->items, s->items + 1, (s->length - 1) * sizeof *s->items);
        memmove(s->times, s->times + 1, (s->length - 1) * sizeof *s->times);
        s->length--;
        s->valid = 0;
    }
    s->items[s->length] = item;
    s->times[s->length++] = time;
    s->events++;
    s->fresh = false;
    return 0;
}

int lsan_session_hidden(lsan_state *session, int64_t asked, const float **hidden) {
    lsan_state *s = session;
    const lsan_model *m = s->model;
    *hidden = NULL;
    if (!s->length) return 0;
    if (!s->fresh || (m->provisional && asked != s->asked)) {
        s->asked = asked;
        run(s, s->valid, false);
        s->valid = m->provisional ? s->length - 1 : s->length;
        s->fresh = true;
    }
    *hidden = result(s);
    return 1;
}

size_t lsan_session_length(const lsan_state *session) { return (size_t)session->events; }
