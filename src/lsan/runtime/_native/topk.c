/* Scores of items, and the best of them.
 *
 * The score of an item with codes is ((S_1[c_1] + S_2[c_2]) + ...) + bias in float32, whatever the method; that of
 * another is the kernel's sum (kernels.inc, dots_of) + bias. A method that leaves items out does so by bounds that are
 * no less than those sums, rounding included.
 */
#include "internal.h"

typedef struct {
    lsan_state *state;
    const lsan_model *model;
    const uint8_t *allowed;
    ranked *heap; /* the worst of the best is first */
    size_t k, size;
    float seed; /* the k-th best score is no less */
    /* bounds: an item's deficit is how much it is below the sum of the largest parts, in steps */
    uint32_t planes;
    const float *parts[MAX_TABLES + 1];
    uint16_t rows[MAX_TABLES + 1];
    float tops[MAX_TABLES + 1];
    double total, bottom, margin, factor; /* total, bottom: sums of the largest and of the smallest parts */
    uint8_t limit;
} search;

static bool worse(ranked a, ranked b) { return a.score < b.score || (a.score == b.score && a.item > b.item); }

static void sink(ranked *heap, size_t size, ranked x) {
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < size; at = child) {
        if (child + 1 < size && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], x)) break;
        heap[at] = heap[child];
    }
    heap[at] = x;
}

static float threshold(const search *q) {
    return q->size == q->k && q->heap[0].score > q->seed ? q->heap[0].score : q->seed;
}

/* Numbers that are none are never taken. */
static void take(search *q, uint32_t place, float score) {
    if (!(score >= q->seed) || (q->allowed && !q->allowed[place])) return;
    if (q->state->blocked[place / 64] >> place % 64 & 1) return;
    ranked x = {.score = score, .item = place + 1};
    if (q->size < q->k) {
        size_t at = q->size++;
        for (; at > 0 && worse(x, q->heap[(at - 1) / 2]); at = (at - 1) / 2) q->heap[at] = q->heap[(at - 1) / 2];
        q->heap[at] = x;
    } else if (worse(q->heap[0], x)) {
        sink(q->heap, q->k, x);
    }
}

static float bias_of(const lsan_model *m, uint32_t place) {
    const item_bias *bias = &m->bias;
    if (bias->kind == BIAS_F32) return ((const float *)bias->values)[place];
    if (lsan_half_bias(bias)) return lsan_half(((const uint16_t *)bias->values)[place]);
    if (lsan_same_bias(bias)) return bias->largest;
    if (!bias->plane) return bias->table[bias->numbers[place]];
    const uint8_t *block = m->codes.planes + (size_t)(place / BLOCK) * m->codes.stride;
    return bias->table[block[(size_t)bias->plane_at * BLOCK + place % BLOCK]];
}

/* For narrow codes. */
static float score_of(const lsan_model *m, const float *scores, uint32_t place) {
    const code_table *t = m->codes.tables;
    const uint8_t *code = m->codes.planes + (size_t)(place / BLOCK) * m->codes.stride + place % BLOCK;
    float sum = scores[t[0].scores + code[0]];
    for (uint32_t n = 1; n < m->codes.count; n++) sum += scores[t[n].scores + code[n * BLOCK]];
    return sum + bias_of(m, place);
}

/* The scores of rows of tables, as `score_of` wants them. */
static void score_tables(lsan_state *s, const float *hidden) {
    const lsan_model *m = s->model;
    size_t part = m->rows.columns;
    for (uint32_t n = 0; n < m->codes.count; n++) {
        const code_table *t = &m->codes.tables[n];
        const float *z = hidden + (m->codes.slices > 1 ? n * part : 0);
        float *out = s->scores + t->scores;
        if (t->facing.data) {
            m->kernels->product(&t->facing, z, out);
            continue;
        }
        if (n == 0 || m->codes.slices > 1) {
            memcpy(s->padded, z, part * sizeof *z);
            for (size_t c = part; c < m->rows.padded; c++) s->padded[c] = 0;
        }
        uint32_t end = t->offset + t->rows;
        for (uint32_t row = t->offset; row < end;) {
            float block[LANES];
            m->kernels->dots(&m->rows, row / LANES, 1, s->padded, block);
            do *out++ = block[row % LANES];
            while (++row < end && row % LANES);
        }
    }
}

/* Sums of a block's parts where the codes are narrow: some items at a time, whose sums stay in registers. */
static void sum_narrow(const code_planes *codes, const uint8_t *planes, const float *scores, float *out) {
    enum { TOGETHER = 8 };
    for (int i = 0; i < BLOCK; i += TOGETHER) {
        const float *s = scores + codes->tables[0].scores;
        float sums[TOGETHER];
        for (int j = 0; j < TOGETHER; j++) sums[j] = s[planes[i + j]];
        for (uint32_t n = 1; n < codes->count; n++) {
            const uint8_t *plane = planes + (size_t)n * BLOCK + i;
            s = scores + codes->tables[n].scores;
            for (int j = 0; j < TOGETHER; j++) sums[j] += s[plane[j]];
        }
        for (int j = 0; j < TOGETHER; j++) out[i + j] = sums[j];
    }
}

/* The same for codes of one, two and four bytes. */
static void sum_wide(const code_planes *codes, const uint8_t *planes, const float *scores, float *out) {
    for (int i = 0; i < BLOCK; i++) out[i] = 0;
    for (uint32_t n = 0; n < codes->count; n++) {
        const code_table *t = &codes->tables[n];
        const float *s = scores + t->scores;
        const uint8_t *plane = planes + (size_t)t->plane * BLOCK;
        const uint16_t *two = (const uint16_t *)(const void *)plane;
        const uint32_t *four = (const uint32_t *)(const void *)plane;
        if (t->bytes == 1)
            for (int i = 0; i < BLOCK; i++) out[i] += s[plane[i]];
        else if (t->bytes == 2)
            for (int i = 0; i < BLOCK; i++) out[i] += s[two[i]];
        else
            for (int i = 0; i < BLOCK; i++) out[i] += s[four[i]];
    }
}

static void score_block(const lsan_model *m, const float *scores, uint32_t block, float *out) {
    const code_planes *codes = &m->codes;
    const uint8_t *planes = codes->planes + (size_t)block * codes->stride;
    (codes->narrow ? sum_narrow : sum_wide)(codes, planes, scores, out);
    uint32_t first = block * BLOCK, count = m->items - first < BLOCK ? m->items - first : BLOCK;
    if (m->bias.kind == BIAS_PLANE) {
        const uint8_t *plane = m->bias.plane ? planes + (size_t)m->bias.plane_at * BLOCK : m->bias.numbers + first;
        for (uint32_t i = 0; i < count; i++) out[i] += m->bias.table[plane[i]];
    } else if (lsan_same_bias(&m->bias)) {
        for (int i = 0; i < BLOCK; i++) out[i] += m->bias.largest;
    } else {
        for (uint32_t i = 0; i < count; i++) out[i] += bias_of(m, first + i);
    }
}

static void offer_block(search *q, uint32_t first, uint32_t count, const float *scores) {
    float least = threshold(q);
    for (uint32_t i = 0; i < count; i += 16) {
        uint32_t end = count - i < 16 ? count : i + 16, any = 0;
        for (uint32_t j = i; j < end; j++) any |= scores[j] >= least;
        if (!any) continue;
        for (uint32_t j = i; j < end; j++) {
            if (scores[j] >= least) {
                take(q, first + j, scores[j]);
                least = threshold(q);
            }
        }
    }
}

static void plain(search *q) {
    const lsan_model *m = q->model;
    for (uint32_t b = 0; b < m->codes.blocks; b++) {
        float scores[BLOCK];
        score_block(m, q->state->scores, b, scores);
        offer_block(q, b * BLOCK, m->items - b * BLOCK < BLOCK ? m->items - b * BLOCK : BLOCK, scores);
    }
}

enum { DENSE = 16 }; /* blocks of a matrix at a time */

/* Scores of items from `first` on; gives how many. */
static uint32_t score_dense(const lsan_model *m, const float *z, uint32_t first, float *out) {
    uint32_t left = (m->items - first + LANES - 1) / LANES, blocks = left < DENSE ? left : DENSE;
    uint32_t count = m->items - first < blocks * LANES ? m->items - first : blocks * LANES;
    m->kernels->dots(m->output, first / LANES, blocks, z, out);
    const item_bias *bias = &m->bias;
    if (bias->kind == BIAS_F32) {
        const float *b = (const float *)bias->values + first;
        for (uint32_t i = 0; i < count; i++) out[i] += b[i];
    } else if (lsan_half_bias(bias)) {
        const uint16_t *b = (const uint16_t *)bias->values + first;
        for (uint32_t i = 0; i < count; i++) out[i] += lsan_half(b[i]);
    } else if (lsan_same_bias(bias)) {
        for (uint32_t i = 0; i < count; i++) out[i] += bias->largest;
    } else {
        for (uint32_t i = 0; i < count; i++) out[i] += bias->table[bias->numbers[first + i]];
    }
    return count;
}

static const float *pad(lsan_state *s, const float *hidden) {
    uint32_t columns = s->model->output->columns;
    memcpy(s->padded, hidden, columns * sizeof *hidden);
    for (uint32_t c = columns; c < s->model->output->padded; c++) s->padded[c] = 0;
    return s->padded;
}

static void dense(search *q, const float *hidden) {
    const float *z = pad(q->state, hidden);
    float scores[DENSE * LANES];
    for (uint32_t first = 0, count; first < q->model->items; first += count) {
        count = score_dense(q->model, z, first, scores);
        offer_block(q, first, count, scores);
    }
}

/* The largest sum of deficits with which an item can still be among the best. */
static void set_limit(search *q) {
    double steps = (q->total - (double)threshold(q) + q->margin) * q->factor * (1 + 1e-6);
    q->limit = steps < 0 ? 0 : steps < 254 ? (uint8_t)steps : 254;
}

/* What bounds are made of. False where numbers are not finite. */
static bool set_parts(search *q) {
    const lsan_model *m = q->model;
    double same = lsan_same_bias(&m->bias) ? (double)m->bias.largest : 0, size = fabs(same);
    q->planes = m->codes.count + m->bias.plane;
    q->total = q->bottom = same;
    for (uint32_t n = 0; n < q->planes; n++) {
        bool bias = n == m->codes.count;
        q->rows[n] = (uint16_t)(bias ? m->bias.plane_rows : m->codes.tables[n].rows);
        q->parts[n] = bias ? m->bias.table : q->state->scores + m->codes.tables[n].scores;
        float low, top;
        if (!m->kernels->range(q->parts[n], q->rows[n], &low, &top)) return false;
        if (bias) top = m->bias.largest;
        q->tops[n] = top;
        q->total += (double)top;
        q->bottom += (double)low;
        size += fabs((double)top) > fabs((double)low) ? fabs((double)top) : fabs((double)low);
    }
    q->margin = (q->planes + 2) * 1.5e-7 * size;
    return true;
}

/* Bounds for the threshold of now: deficits of 255 steps and more are beyond it. False where they cannot be told. */
static bool set_bounds(search *q) {
    double least = (double)threshold(q);
    if (!(least > q->bottom)) least = q->bottom;
    double reach = q->total - least + q->margin;
    if (!(reach >= 0 && reach < 1e30)) return false;
    q->factor = reach > 1e-30 ? 254 / reach * (1 - 2e-6) : 0;
    if (q->factor > 1e30) q->factor = 1e30;
    for (uint32_t n = 0; n < q->planes; n++) {
        q->model->kernels->deficits(
            q->parts[n], q->rows[n], q->tops[n], (float)q->factor, q->state->bounds + (size_t)n * 256
        );
    }
    set_limit(q);
    return true;
}

/* Exact scores of what the filter let through, of the items begin..end-1. */
static void scan(search *q, uint32_t begin, uint32_t end, uint32_t from, uint8_t start) {
    const lsan_model *m = q->model;
    uint64_t pass[CHUNK];
    uint32_t last = (end - 1) / BLOCK;
    for (uint32_t b = begin / BLOCK; b <= last; b += CHUNK) {
        uint32_t count = last + 1 - b < CHUNK ? last + 1 - b : CHUNK;
        m->kernels->filter(
            m->codes.planes + (size_t)b * m->codes.stride, m->codes.stride, count, q->state->bounds, q->rows, from,
            q->planes, start, q->limit, pass
        );
        bool taken = false;
        for (uint32_t i = 0; i < count; i++) {
            uint64_t bits = pass[i] & ~q->state->blocked[b + i];
            if (!bits) continue;
            uint32_t first = (b + i) * BLOCK;
            if (first < begin) bits &= ~(uint64_t)0 << (begin - first);
            if (end - first < BLOCK) bits &= ((uint64_t)1 << (end - first)) - 1;
            for (; bits; bits &= bits - 1) {
                uint32_t place = first + (uint32_t)__builtin_ctzll(bits);
                take(q, place, score_of(m, q->state->scores, place));
                taken = true;
            }
        }
        if (taken) {
            set_limit(q);
            if (from == 0 && q->limit < 100 && q->limit > 0) set_bounds(q);
        }
    }
}

/* A first threshold, from blocks here and there. */
static void sample(search *q) {
    const lsan_model *m = q->model;
    uint64_t blocks = m->codes.blocks, wanted = (blocks < 1024 ? 8 : 32) + 4 * (q->k / BLOCK);
    if (wanted > blocks) wanted = blocks;
    for (uint64_t i = 0; i < wanted; i++) {
        float scores[BLOCK];
        uint32_t b = (uint32_t)(i * blocks / wanted);
        score_block(m, q->state->scores, b, scores);
        offer_block(q, b * BLOCK, m->items - b * BLOCK < BLOCK ? m->items - b * BLOCK : BLOCK, scores);
    }
    if (q->size == q->k) q->seed = q->heap[0].score;
    q->size = 0;
}

static bool filtered(search *q) {
    if (!set_bounds(q)) return false;
    scan(q, 0, q->model->items, 0, 0);
    return true;
}

/* Groups by their bounds, best first, until the rest is below the threshold. False where bounds do not tell groups
 * apart: then what was found is a threshold only. */
static bool indexed(search *q) {
    lsan_state *s = q->state;
    const lsan_model *m = q->model;
    const code_planes *codes = &m->codes;
    uint32_t first_rows = codes->tables[0].rows, second_rows = codes->tables[1].rows, found = 0;
    uint32_t counts[257] = {0};
    if (!set_bounds(q)) return false;
    const uint8_t *third = s->bounds + (size_t)codes->count * 256;
    for (uint32_t a = 0; a < first_rows; a++) {
        uint64_t pass[4];
        uint32_t base = a * second_rows;
        if (s->bounds[a] > q->limit) continue;
        m->kernels->group_sums(
            s->bounds[a], s->bounds + 256, third, codes->group_bias + base, second_rows, q->limit,
            s->group_bounds + base, pass
        );
        for (uint32_t w = 0; w * 64 < second_rows; w++) {
            for (uint64_t bits = pass[w]; bits; bits &= bits - 1) {
                uint32_t group = base + w * 64 + (uint32_t)__builtin_ctzll(bits);
                if (codes->starts[group] == codes->starts[group + 1]) continue;
                s->order[found++] = group;
                counts[s->group_bounds[group] + 1]++;
            }
        }
    }
    for (int i = 1; i < 257; i++) counts[i] += counts[i - 1];
    uint32_t *sorted = s->order + (size_t)first_rows * second_rows;
    for (uint32_t i = 0; i < found; i++) sorted[counts[s->group_bounds[s->order[i]]]++] = s->order[i];

    search then = *q; /* the scale of the groups' bounds */
    uint64_t visited = 0;
    for (uint32_t i = 0; i < found; i++) {
        uint32_t group = sorted[i];
        then.size = q->size;
        set_limit(&then);
        if (s->group_bounds[group] > then.limit) return true;
        if (i + 8 < found) {
            uint32_t next = codes->starts[sorted[i + 8]] / BLOCK;
            const uint8_t *block = codes->planes + (size_t)next * codes->stride + 2 * BLOCK;
            for (uint32_t n = 2; n < q->planes; n++, block += BLOCK) __builtin_prefetch(block);
        }
        uint32_t a = group / second_rows, b = group % second_rows, start = s->bounds[a] + (uint32_t)s->bounds[256 + b];
        uint32_t begin = codes->starts[group], end = codes->starts[group + 1];
        if (start <= q->limit) scan(q, begin, end, 2, (uint8_t)start);
        visited += end - begin;
        if (q->limit < 100 && q->limit > 0) set_bounds(q);
        if (visited > m->items / 4) {
            if (q->size == q->k) q->seed = threshold(q);
            q->size = 0;
            return false;
        }
    }
    return true;
}

static void rank_popular(search *q) {
    const lsan_model *m = q->model;
    for (uint32_t i = 0; i < m->popular_count && q->size < q->k; i++)
        take(q, m->popular[i].item - 1, m->popular[i].score);
    uint32_t next = 0;
    for (uint32_t item = 1; item <= m->items && q->size < q->k; item++) {
        while (next < m->popular_count && m->popular_known[next] < item) next++;
        if (next == m->popular_count || m->popular_known[next] != item) take(q, item - 1, 0);
    }
}

enum { PLAIN_BELOW = 2048, INDEX_FROM = 1 << 20 };

static void rank_codes(search *q, const float *hidden, lsan_method method) {
    const lsan_model *m = q->model;
    score_tables(q->state, hidden);
    if (method == LSAN_CHOOSE) {
        method = m->items < PLAIN_BELOW || q->k > m->items / 32 ? LSAN_PLAIN
                 : m->items < INDEX_FROM                        ? LSAN_FILTER
                                                                : LSAN_INDEX;
    }
    if (method == LSAN_INDEX && !m->codes.starts) method = LSAN_FILTER;
    if (method == LSAN_PLAIN || !m->codes.narrow || !set_parts(q)) {
        plain(q);
        return;
    }
    sample(q);
    if (method == LSAN_INDEX && indexed(q)) return;
    if (!filtered(q)) plain(q);
}

static void block_items(lsan_state *s, const lsan_wishes *wishes, bool block) {
    const lsan_model *m = s->model;
    for (size_t i = 0; i < wishes->excluded_count; i++) {
        uint32_t place = (uint32_t)wishes->excluded[i] - 1;
        if (place >= m->items) continue;
        uint64_t bit = (uint64_t)1 << place % 64;
        if (block) s->blocked[place / 64] |= bit;
        else if (!m->offered || lsan_packed_number(m->offered, 1, place)) s->blocked[place / 64] &= ~bit;
    }
}

size_t
lsan_rank(lsan_state *state, const float *hidden, size_t k, const lsan_wishes *wishes, int32_t *items, float *scores) {
    static const lsan_wishes none;
    if (!wishes) wishes = &none;
    search q = {
        .state = state,
        .model = state->model,
        .allowed = wishes->allowed,
        .heap = state->heap,
        .k = k < state->room ? k : state->room,
        .seed = -INFINITY,
    };
    if (q.k == 0) return 0;
    block_items(state, wishes, true);
    if (!hidden) rank_popular(&q);
    else if (!q.model->output_is_codes) dense(&q, hidden);
    else rank_codes(&q, hidden, wishes->method);
    block_items(state, wishes, false);
    size_t found = q.size;
    for (size_t left = found; left > 0; left--) {
        ranked worst = q.heap[0];
        sink(q.heap, left - 1, q.heap[left - 1]);
        items[left - 1] = (int32_t)worst.item;
        scores[left - 1] = worst.score;
    }
    return found;
}

void lsan_scores(lsan_state *state, const float *hidden, float *scores) {
    const lsan_model *m = state->model;
    if (!hidden) {
        memset(scores, 0, m->items * sizeof *scores);
        for (uint32_t i = 0; i < m->popular_count; i++) scores[m->popular[i].item - 1] = m->popular[i].score;
    } else if (m->output_is_codes) {
        score_tables(state, hidden);
        for (uint32_t b = 0; b < m->codes.blocks; b++) {
            float block[BLOCK];
            score_block(m, state->scores, b, block);
            uint32_t left = m->items - b * BLOCK;
            memcpy(scores + (size_t)b * BLOCK, block, (left < BLOCK ? left : BLOCK) * sizeof *scores);
        }
    } else {
        const float *z = pad(state, hidden);
        for (uint32_t first = 0, count; first < m->items; first += count) {
            float block[DENSE * LANES];
            count = score_dense(m, z, first, block);
            memcpy(scores + first, block, count * sizeof *scores);
        }
    }
}
