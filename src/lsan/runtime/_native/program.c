/* The operations of the encoder. */
#include "reader.h"

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
    TRY(lsan_get_tensor(r, object, name, 1, &t));
    REQUIRE(t->count == size, "%s should have %llu numbers", name, (unsigned long long)size);
    TRY(*x = lsan_floats(r, t));
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
    TRY(lsan_get_word(r, token, "op", op_names, &kind));
    r->where = op_names[kind];
    o->kind = (op_kind)kind;
    o->of = -1;

    uint32_t in;
    const json *j = &r->manifest;
    TRY(lsan_get(r, token, "in", &in));
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
    uint32_t *inputs = lsan_hold(r, o->in_count, sizeof *inputs);
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
        TRY(lsan_get_float(r, token, "factor", &o->factor));
        o->rule = (row_rule){.by_event = 1};
        TRY(set_columns(r, o, m->width));
        if (x) {
            REQUIRE(m->has_codes, "items in context need a table of codes");
            REQUIRE(
                is_events(&x->rule) && !x->rule.capped && x->columns == m->width,
                "the context should have a row of the width for each event"
            );
            TRY(lsan_get_tensor(r, token, "attention", 2, &t));
            REQUIRE(t->dims[0] == m->width && t->dims[1] == m->width, "attention should be a square of the width");
            TRY(lsan_pack(r, &o->a, t, m->width, m->width, 0, 1, m->width));
            o->aux = (uint64_t)m->codes.count * m->width * 2 + m->codes.count + SLACK;
        } else {
            all_fixed = false;
        }
        break;
    case OP_ROWS:
        TRY(lsan_get_word(r, token, "index", index_names, &word));
        TRY(lsan_get_tensor(r, token, "table", 2, &t));
        o->index = (index_kind)word;
        o->rule = (row_rule){.by_event = 1};
        if (json_get(j, token, "of") != 0) {
            TRY(lsan_get_integer(r, token, "of", 0, number, &whole));
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
        TRY(set_columns(r, o, t->dims[1]) && (o->x = lsan_floats(r, t)));
        by_row = o->index != INDEX_POSITION_FROM_END;
        causal = by_row;
        break;
    case OP_CONSTANT:
        TRY(lsan_get_tensor(r, token, "tensor", 2, &t));
        REQUIRE(t->dims[0] <= INT32_MAX, "too many rows");
        o->rule = fixed_rows(t->dims[0]);
        TRY(set_columns(r, o, t->dims[1]) && (o->x = lsan_floats(r, t)));
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
        TRY(lsan_get_tensor(r, token, "weight", 2, &t) && lsan_get_bool(r, token, "transposed", &transposed));
        int64_t out = (int64_t)t->dims[transposed];
        TRY(lsan_get_integer(r, token, "begin", 0, transposed ? 0 : out - 1, &begin));
        TRY(lsan_get_integer(r, token, "end", transposed ? out : begin + 1, out, &end));
        TRY(lsan_get_word(r, token, "activation", activation_names, &word));
        o->act = (activation)word;
        REQUIRE(t->dims[!transposed] == x->columns, "%.*s does not fit %u columns", TENSOR(t), x->columns);
        TRY(set_columns(r, o, (uint64_t)(end - begin)));
        uint64_t across = t->dims[1];
        if (json_get(&r->manifest, token, "input_bits") != 0) {
            TRY(lsan_get_integer(r, token, "input_bits", 8, 8, &whole));
            REQUIRE(t->bits && !transposed, "input_bits: %.*s is not quantised, or transposed", TENSOR(t));
            TRY(lsan_pack_whole(r, &o->a, t, x->columns, o->columns, (uint32_t)begin));
            o->aux = lsan_rounded_bytes(m->kernels, x->columns) / 4 * m->kernels->height;
        } else {
            TRY(transposed ? lsan_pack(r, &o->a, t, x->columns, o->columns, 0, across, 1)
                           : lsan_pack(r, &o->a, t, x->columns, o->columns, (uint64_t)begin * across, 1, across));
        }
        if (!lsan_is_null(r, token, "bias")) {
            TRY(lsan_get_tensor(r, token, "bias", 1, &u));
            REQUIRE(u->count == (uint64_t)out, "bias should have %lld numbers", (long long)out);
            TRY(lsan_pack_bias(r, &o->a, u, (uint32_t)begin));
        }
        o->rule = x->rule;
        break;
    }
    case OP_NORM:
        TRY(get_vector(r, token, "weight", x->columns, &o->x) && get_vector(r, token, "bias", x->columns, &o->y));
        TRY(lsan_get_float(r, token, "eps", &o->factor));
        REQUIRE(o->factor > 0, "eps is not positive");
        o->rule = x->rule;
        o->columns = x->columns;
        break;
    case OP_SUM: {
        uint32_t list;
        TRY(lsan_get(r, token, "factors", &list));
        REQUIRE(
            j->tokens[list].kind == JSON_ARRAY && j->tokens[list].length == o->in_count,
            "factors should be as many as in"
        );
        float *factors = lsan_hold(r, o->in_count, sizeof *factors);
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
        TRY(lsan_get_tensor(r, token, "kernel", 2, &t) && lsan_get_bool(r, token, "last", &o->last));
        REQUIRE(
            t->dims[0] <= x->columns && x->columns % t->dims[0] == 0, "heads of the kernel do not divide the columns"
        );
        REQUIRE(t->dims[1] <= MAX_HISTORY, "the window is too long");
        TRY(lsan_get_integer(r, token, "back", 0, (int64_t)t->dims[1] - 1, &whole));
        o->window = (uint32_t)t->dims[1];
        o->number = (uint32_t)whole;
        o->columns = x->columns;
        float *kernel = lsan_hold(r, (uint64_t)o->window * o->columns, sizeof *kernel);
        TRY(kernel);
        for (uint32_t c = 0; c < o->columns; c++) {
            uint64_t head = c / (x->columns / t->dims[0]);
            for (uint32_t i = 0; i < o->window; i++)
                kernel[(size_t)i * o->columns + c] = lsan_value(t, head * o->window + i);
        }
        o->x = kernel;
        o->rule = o->last ? fixed_rows(1) : x->rule;
        causal = o->number == o->window - 1;
        by_row = causal && !o->last;
        break;
    }
    case OP_ATTENTION: {
        TRY(lsan_get_integer(r, token, "heads", 1, MAX_COLUMNS, &whole));
        TRY(lsan_get_bool(r, token, "causal", &o->causal) && lsan_get_float(r, token, "scale", &o->factor));
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
        TRY(lsan_get_tensor(r, token, "kernel", 1, &t) && lsan_get_bool(r, token, "last", &o->last) &&
            (o->x = lsan_floats(r, t)));
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
        TRY(lsan_get_tensor(r, token, "input", 2, &t) && lsan_get_tensor(r, token, "state", 2, &u));
        TRY(lsan_get_tensor(r, token, "input_bias", 1, &first) && lsan_get_tensor(r, token, "state_bias", 1, &second));
        uint64_t size = u->dims[1];
        TRY(set_columns(r, o, size));
        REQUIRE(
            t->dims[0] == 3 * size && t->dims[1] == x->columns && u->dims[0] == 3 * size && first->count == 3 * size &&
                second->count == 3 * size,
            "shapes of the parameters differ"
        );
        TRY(lsan_pack(r, &o->a, t, x->columns, 3 * o->columns, 0, 1, x->columns) && lsan_pack_bias(r, &o->a, first, 0));
        TRY(lsan_pack(r, &o->b, u, o->columns, 3 * o->columns, 0, 1, o->columns) && lsan_pack_bias(r, &o->b, second, 0)
        );
        o->rule = x->rule;
        o->aux = (uint64_t)o->columns * (3 * m->kernels->height + 4);
        break;
    }
    case OP_WINDOW:
        TRY(lsan_get_integer(r, token, "length", 1, MAX_HISTORY, &whole));
        o->rule = fixed_rows((uint64_t)whole);
        o->columns = x->columns;
        by_row = causal = false;
        break;
    case OP_UNFOLD:
        TRY(lsan_get_integer(r, token, "height", 1, MAX_COLUMNS, &whole));
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

bool lsan_read_program(reader *r) {
    lsan_model *m = r->model;
    const json *j = &r->manifest;
    uint32_t program;
    TRY(lsan_get(r, 0, "program", &program));
    REQUIRE(
        j->tokens[program].kind == JSON_ARRAY && j->tokens[program].length >= 1 &&
            j->tokens[program].length <= MAX_OPERATIONS,
        "the program is not a list of 1 to %d operations", MAX_OPERATIONS
    );
    m->operation_count = j->tokens[program].length;
    TRY(m->operations = lsan_hold(r, m->operation_count, sizeof *m->operations));
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
