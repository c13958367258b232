/* What a file says of its items. */
#include "reader.h"

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
    TRY(lsan_get(r, table, "rows", &rows) && lsan_get(r, table, "offsets", &offsets) &&
        lsan_get(r, table, "codes", &source));
    REQUIRE(
        j->tokens[rows].kind == JSON_ARRAY && j->tokens[offsets].kind == JSON_ARRAY && j->tokens[rows].length >= 1 &&
            j->tokens[rows].length <= MAX_TABLES && j->tokens[offsets].length == j->tokens[rows].length,
        "table: rows and offsets are not lists of the same length from 1 to %d", MAX_TABLES
    );
    codes->count = j->tokens[rows].length;
    TRY(lsan_get_integer(r, table, "slices", 1, MAX_TABLES, &slices));
    codes->slices = (uint32_t)slices;
    REQUIRE(codes->slices == 1 || codes->slices == codes->count, "table: slices is neither 1 nor the number of tables");
    REQUIRE(weight->dims[1] * codes->slices == m->width, "table: tensor %.*s does not fit the width", TENSOR(weight));
    REQUIRE(weight->dims[0] < (uint64_t)1 << 31, "tensor %.*s is too large", TENSOR(weight));
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
        REQUIRE(codes->scores <= MAX_WORKSPACE / 4, "the program needs more than 1 GiB to run");
    }
    if (scored && !lsan_same_bias(&m->bias) && (codes->narrow || m->bias.kind == BIAS_PLANE)) {
        m->bias.plane = true;
        m->bias.plane_at = plane++;
    }
    codes->stride = plane * BLOCK;
    codes->blocks = (m->items - 1) / BLOCK + 1;
    TRY(codes->planes = lsan_hold(r, codes->blocks, codes->stride));

    enum { PACKED, PAIRS, DIGITS, HASH };
    static const char *const sources[] = {"packed", "pairs", "digits", "hash", NULL};
    TRY(lsan_get_word(r, source, "from", sources, &from));
    const uint8_t *data = NULL, *pairs = NULL;
    int64_t bits = 0, paired = 0, pair_count = 0;
    uint32_t most = from == DIGITS ? MAX_DIGITS : from == HASH ? MAX_HASHES : MAX_TABLES;
    REQUIRE(codes->count <= most, "codes: more than %u tables", most);
    if (from != HASH) {
        TRY(lsan_get_integer(r, source, "bits", 1, 32, &bits));
        uint64_t numbers = (uint64_t)m->items * (from == DIGITS ? 1 : codes->count);
        if (from == PAIRS) {
            REQUIRE(codes->count % 2 == 0, "codes: pairs of an odd number of tables");
            TRY(lsan_get_integer(r, source, "paired", 0, m->items, &paired));
            TRY(lsan_get_integer(r, source, "pairs", 1, 65536, &pair_count));
            TRY(lsan_get_whole(r, "codes.pairs", (uint64_t)pair_count * codes->count, (uint32_t)bits, &pairs));
            numbers -= (uint64_t)paired * (codes->count / 2);
        }
        TRY(lsan_get_whole(r, from == DIGITS ? "numbers" : "codes", numbers, (uint32_t)bits, &data));
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
            TRY(lsan_pack(
                r, &t->facing, weight, (uint32_t)weight->dims[1], t->rows, t->offset * weight->dims[1], 1,
                weight->dims[1]
            ));
        }
    }
    return true;
}

static bool all_the_same(const tensor *t) {
    for (uint64_t i = 1; i < t->count; i++) {
        if (lsan_value(t, i) != lsan_value(t, 0)) return false;
    }
    return true;
}

static bool read_bias(reader *r, tensor *t) {
    lsan_model *m = r->model;
    item_bias *bias = &m->bias;
    REQUIRE(t->count == m->items, "tensor %.*s should have a number for each item", TENSOR(t));
    bias->kind = t->bits ? BIAS_PLANE : !FEW_KINDS && t->type == TYPE_F16 ? BIAS_F16 : BIAS_F32;
    if (t->scale_count > 1) return lsan_fail(r, "tensor %.*s should have one scale", TENSOR(t));
    if (!FEW_KINDS && all_the_same(t)) {
        bias->kind = BIAS_SAME;
        bias->largest = lsan_value(t, 0);
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
        if (!plane) TRY(bias->numbers = lsan_hold(r, m->items, 1));
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
    bool halves = lsan_half_bias(bias);
    TRY(bias->values = lsan_hold(r, m->items, halves ? 2 : 4));
    float least = INFINITY, most = -INFINITY;
    for (uint32_t i = 0; i < m->items; i++) {
        float x = lsan_value(t, i);
        if (halves) ((uint16_t *)bias->values)[i] = u16_at(t->data + 2 * (size_t)i);
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
        float x = lsan_value(t, i);
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
    TRY(codes->starts = lsan_hold(r, (uint64_t)groups + 1, sizeof *codes->starts));
    TRY(codes->group_bias = lsan_hold(r, groups, 1));
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
    TRY(lsan_get(r, 0, "table", &table) && lsan_get(r, 0, "output", &output));
    TRY(lsan_get_word(r, table, "kind", kinds, &kind) && lsan_get_tensor(r, table, "weight", 2, &weight));
    TRY(lsan_get_word(r, output, "kind", outputs, &way) && lsan_get_tensor(r, output, "bias", 1, &bias));
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
    if (json_get(&r->manifest, table, "turn") != 0) {
        TRY(lsan_get_tensor(r, table, "turn", 2, &other));
        REQUIRE(other->dims[0] == m->width && other->dims[1] <= MAX_COLUMNS, "table: turn does not fit the width");
        TRY(lsan_pack(r, &m->turn, other, m->width, (uint32_t)other->dims[1], 0, other->dims[1], 1));
    }
    TRY(lsan_hold_matrix(r, &m->rows, weight, m->has_codes && weight->count <= 1 << 18));
    m->hidden_width = m->width;
    if (way == 1) {
        TRY(lsan_get_tensor(r, output, "weight", 2, &other));
        REQUIRE(other->dims[0] == m->items, "output: %.*s does not have a row for each item", TENSOR(other));
        TRY(lsan_hold_matrix(r, &m->other, other, false));
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
    TRY(lsan_get_integer(r, 0, "popular", 0, m->items, &listed));
    TRY(lsan_get_integer(r, 0, "popular_bits", 1, 31, &bits));
    uint32_t n = (uint32_t)listed, item_bits = 0;
    while (m->items >> item_bits) item_bits++;
    TRY(lsan_get_whole(r, "popularity.items", n, item_bits, &items));
    TRY(lsan_get_whole(r, "popularity.counts", n, (uint32_t)bits, &counts));
    uint32_t *known;
    ranked *order;
    TRY((known = lsan_hold(r, n, sizeof *known)) && (order = lsan_hold(r, n, sizeof *order)));
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
    TRY(lsan_get_integer(r, 0, "categories", 0, INT32_MAX - 2, &categories));
    m->category_count = (uint32_t)categories;
    if (categories > 0) {
        while (categories >> m->category_bits) m->category_bits++;
        TRY(lsan_get_whole(r, "categories", m->items, m->category_bits, &data));
        uint64_t bytes = ((uint64_t)m->items * m->category_bits + 7) / 8;
        TRY(m->categories = lsan_hold(r, bytes, 1));
        memcpy(m->categories, data, (size_t)bytes);
        for (uint32_t i = 0; i < m->items; i++) {
            REQUIRE(
                lsan_packed_number(data, m->category_bits, i) <= m->category_count,
                "categories: that of item %u is too large", i + 1
            );
        }
    } else {
        REQUIRE(!lsan_find_named(r, "categories"), "there are no categories, but a tensor of them");
    }
    if (lsan_find_named(r, "offered")) {
        TRY(lsan_get_whole(r, "offered", m->items, 1, &data));
        TRY(m->offered = lsan_hold(r, ((uint64_t)m->items + 7) / 8, 1));
        memcpy(m->offered, data, ((size_t)m->items + 7) / 8);
    }
    return true;
}

bool lsan_read_items(reader *r) {
    return read_categories_and_offered(r) && read_popularity(r) && read_table_and_output(r);
}
