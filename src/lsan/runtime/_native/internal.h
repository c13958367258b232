/* What the parts of the engine share. */
#ifndef LSAN_INTERNAL_H
#define LSAN_INTERNAL_H

#include "lsan.h"

#include <math.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define LSAN_X86 1
#else
#define LSAN_X86 0
#endif

enum {
    MAX_TABLES = 64,
    MAX_DIGITS = 17,
    MAX_HASHES = 8,
    MAX_OPERATIONS = 1024,
    MAX_COLUMNS = 65536,
    MAX_HISTORY = 65536,
    BLOCK = 64, /* items in a block of code planes */
    LANES = 16, /* rows in a block of a matrix */
    SLACK = 64, /* numbers after each array that may be read but mean nothing */
    CHUNK = 32, /* blocks that the filter looks at in one go */
};

#define MAX_WORKSPACE ((uint64_t)1 << 30)

/* A matrix whose rows are multiplied with one vector. Rows stand in blocks of 16, and a block holds column after
 * column: number c of rows 16 b .. 16 b + 15 side by side. 4 bits: two columns share 16 bytes, the even one has the low
 * halves. Columns are filled up to a multiple of 4, rows to one of 16, with zeros. */
typedef enum { NUMBERS_F32, NUMBERS_F16, NUMBERS_I8, NUMBERS_I4 } number_kind;

/* Smaller code: matrices are held in float32 or 8 bits only, biases in halves and biases that are all the same like
 * others, and there are fewer ways that are faster for some models. */
#ifdef __wasm__
#define FEW_KINDS 1
#else
#define FEW_KINDS 0
#endif

typedef struct {
    uint32_t rows, columns, padded;
    number_kind kind;
    bool scale_by_row;
    size_t block_bytes;
    uint8_t *data;
    float *scales;     /* one a row or one in all; NULL for floats */
    const float *flat; /* row-major copy of a small matrix, else NULL */
} matrix;

/* A matrix B of a product x B + b, packed as the kernels want it: in float32, or in whole numbers to be multiplied with
 * rows of x that are rounded to 8 bits. Of these, a group is 4 bytes: the numbers of a few rows of B in one column. */
typedef struct {
    uint32_t k, n;
    float *data;    /* or NULL */
    float *bias;    /* or NULL */
    uint8_t *whole; /* then the rest is there too */
    float *scales;  /* one a column */
    int32_t *start; /* one a column: where the sums begin */
} packed;

typedef struct {
    uint32_t rows, offset; /* in the matrix of rows */
    uint32_t bytes;        /* of a code: 1, 2 or 4 */
    uint32_t plane;        /* first byte of a block is at 64 * plane */
    size_t scores;         /* its scores begin here among a state's */
    packed facing;         /* rows as columns; data is NULL where the matrix is multiplied as it is */
} code_table;

/* BIAS_SAME: every item has the same one, and nothing is held. */
typedef enum { BIAS_F32, BIAS_F16, BIAS_PLANE, BIAS_SAME } bias_kind;

/* Item v is at place v - 1. Block b holds planes of 64 numbers, one plane a table, then that of the biases. */
typedef struct {
    uint32_t count, slices;
    code_table tables[MAX_TABLES];
    size_t scores;   /* numbers of all tables, each table's filled up to 64 */
    uint32_t stride; /* bytes of a block */
    uint32_t blocks;
    bool narrow;         /* all codes have one byte: the filter works */
    bool sorted;         /* by the first two codes */
    uint32_t *starts;    /* of the groups (first code, second code), and the end; NULL without index */
    uint8_t *group_bias; /* largest of each group's bias numbers; zeros without a plane of biases */
    uint8_t *planes;
} code_planes;

typedef struct {
    bias_kind kind;
    bool plane; /* there is a plane of biases beside the codes */
    uint32_t plane_at, plane_rows;
    void *values;     /* V numbers for F32 and F16 */
    uint8_t *numbers; /* V numbers where the bias is quantised and there is no plane */
    float table[256]; /* what the plane's numbers stand for: itself (BIAS_PLANE) or no less */
    float largest;    /* of those that occur; BIAS_SAME: the one that all have */
} item_bias;

static inline bool lsan_half_bias(const item_bias *bias) { return !FEW_KINDS && bias->kind == BIAS_F16; }
static inline bool lsan_same_bias(const item_bias *bias) { return !FEW_KINDS && bias->kind == BIAS_SAME; }

typedef enum {
    OP_ITEMS,
    OP_ROWS,
    OP_CONSTANT,
    OP_APPEND,
    OP_LINEAR,
    OP_NORM,
    OP_SUM,
    OP_CHANNELS,
    OP_CONCAT,
    OP_CONVOLUTION,
    OP_ATTENTION,
    OP_LAST,
    OP_CIRCULANT,
    OP_GRU,
    OP_WINDOW,
    OP_UNFOLD,
    OP_MAX,
    OP_TRANSPOSE,
    OP_FLATTEN
} op_kind;

typedef enum {
    INDEX_POSITION,
    INDEX_POSITION_FROM_END,
    INDEX_CATEGORY,
    INDEX_PREVIOUS_CATEGORY,
    INDEX_HOUR,
    INDEX_GAP_BEFORE,
    INDEX_GAP_AFTER,
    INDEX_HOUR_AFTER,
    INDEX_WEEKDAY_AFTER
} index_kind;

typedef enum { ACT_NONE, ACT_RELU, ACT_GELU } activation;

/* FIXED: does not depend on the history; computed with the state. GROWING: row i depends on events up to i only (and
 * the time of the next one). TAIL: anything else. */
typedef enum { CLASS_FIXED, CLASS_GROWING, CLASS_TAIL } op_class;

/* min(by_event * T + more, capped ? H : infinity) rows. */
typedef struct {
    uint32_t by_event, more;
    bool capped;
} row_rule;

typedef struct {
    op_kind kind;
    op_class class_;
    index_kind index;
    activation act;
    bool causal, last;
    uint32_t in_count;
    const uint32_t *in;
    row_rule rule;
    uint32_t columns, max_rows;
    uint32_t number; /* heads, back, length or height */
    uint32_t window;
    uint32_t table_rows;
    int64_t of;         /* rows: the operation whose rows are counted, or -1 */
    float factor;       /* factor, scale or eps */
    packed a, b;        /* linear: a; gru: input and state; items: attention */
    const float *x, *y; /* rows, constant, channels, convolution, circulant: x; norm: weight and bias; sum: factors */
    uint64_t aux;       /* numbers of scratch */
    uint64_t shared_at, shared_aux_at, kept_at, kept_aux_at; /* in the workspace of either kind of state */
} operation;

typedef struct lsan_kernels lsan_kernels;

typedef struct ranked {
    float score;
    uint32_t item;
} ranked;

struct lsan_model {
    uint32_t items, history, width, hidden_width;
    bool timed, exclude_seen, causal, provisional;
    uint64_t held;
    void *allocated; /* list of all arrays */
    const lsan_kernels *kernels;

    uint8_t *categories; /* packed, or NULL */
    uint32_t category_count, category_bits;
    uint8_t *offered; /* packed, or NULL */
    uint32_t popular_count;
    ranked *popular;         /* items with a count, the most popular first */
    uint32_t *popular_known; /* the same items, increasing */

    bool has_codes, output_is_codes;
    matrix rows;  /* the item table's matrix */
    matrix other; /* a matrix of its own for the output */
    const matrix *output;
    packed turn; /* the matrix behind the table, for comparing items; data is NULL where there is none */
    code_planes codes;
    item_bias bias;

    operation *operations;
    uint32_t operation_count;
    uint64_t shared_size, kept_size; /* numbers in the workspace of either kind of state */
};

struct lsan_state {
    const lsan_model *model;
    bool session;
    size_t memory;
    void *blocks[4]; /* what malloc gave */
    float **reg;     /* results of the operations */
    float **aux;
    uint32_t *row_count;
    int32_t *items; /* the latest H events */
    int64_t *times;
    uint32_t length; /* of the window */
    int64_t asked;

    uint64_t events; /* of a session, so far */
    uint32_t valid;  /* rows of growing operations that are final */
    bool fresh;      /* the hidden vector is that of now */

    float *padded;     /* the hidden vector, zeros after it */
    float *scores;     /* of rows of tables */
    uint8_t *bounds;   /* [planes][256] */
    uint64_t *blocked; /* one bit an item */
    uint32_t *order;   /* groups that may matter, as found and sorted */
    uint8_t *group_bounds;
    ranked *heap;
    size_t room;
};

struct lsan_kernels {
    const char *name;
    uint32_t width;  /* numbers in a vector */
    uint32_t panel;  /* columns of a full panel */
    uint32_t height; /* rows at a time */
    uint32_t group;  /* whole numbers in a group of 4 bytes: of 8 bits each (4) or of 16 (2) */
    void (*run)(lsan_state *state, uint32_t op, uint32_t from);
    /* the vector of item place + 1 */
    void (*vector)(const lsan_model *model, uint32_t place, float *out);
    /* y[0..n-1] = x B + b for one row */
    void (*product)(const packed *b, const float *x, float *y);
    /* scores of the rows of `count` blocks from `first` on, without bias; `z` has zeros up to `padded` */
    void (*dots)(const matrix *m, uint32_t first, uint32_t count, const float *z, float *out);
    /* the smallest and the largest of x[0..n-1]; false where one of them is not finite */
    bool (*range)(const float *x, uint32_t n, float *low, float *top);
    /* lut[j] = min(255, floor((top - x[j]) * factor)) */
    void (*deficits)(const float *x, uint32_t n, float top, float factor, uint8_t *lut);
    /* Bit i of pass[b]: the sum of `start` and of the bounds of planes from..to-1 is at most `limit`, for `count` <=
     * CHUNK blocks. `rows` has the number of rows of each plane, `bounds` 256 bytes for each. */
    void (*filter)(
        const uint8_t *blocks, uint32_t stride, uint32_t count, const uint8_t *bounds, const uint16_t *rows,
        uint32_t from, uint32_t to, uint8_t start, uint8_t limit, uint64_t *pass
    );
    /* sums[i] = min(255, start + second[i] + third[numbers[i]]) for i < n <= 256, and bit i of `pass`: it is at most
     * `limit`. Arrays may be read up to a multiple of 64. */
    void (*group_sums)(
        uint8_t start, const uint8_t *second, const uint8_t *third, const uint8_t *numbers, uint32_t n, uint8_t limit,
        uint8_t *sums, uint64_t *pass
    );
};

/* Whether attention reads keys as they are, and needs no room to lay them out: where it has one query only. */
static inline bool lsan_asks_once(const operation *queries) { return !FEW_KINDS && queries->max_rows == 1; }

extern const lsan_kernels lsan_kernels_portable;
#if LSAN_X86
extern const lsan_kernels lsan_kernels_avx2, lsan_kernels_avx512;
#endif
const lsan_kernels *lsan_choose_kernels(lsan_instructions most);

/* encoder.c */
int lsan_plan(lsan_model *model); /* places of all results; -1 where they need more than MAX_WORKSPACE */

/* Bytes of a row of x of k numbers, rounded, with room for whole vectors after them. */
static inline size_t lsan_rounded_bytes(const lsan_kernels *kernels, size_t k) {
    return ((k + 3) / 4 * 4 * (4 / kernels->group) + 127) / 64 * 64;
}

static inline uint32_t lsan_rows_of(const row_rule *rule, uint32_t events, uint32_t history) {
    uint64_t rows = (uint64_t)rule->by_event * events + rule->more;
    return rule->capped && rows > history ? history : (uint32_t)rows;
}

/* Number `index` of `bits` bits each, the highest bit first. */
static inline uint32_t lsan_packed_number(const uint8_t *data, uint32_t bits, uint64_t index) {
    uint64_t bit = index * bits, value = 0;
    uint32_t skipped = (uint32_t)(bit & 7), bytes = (skipped + bits + 7) / 8;
    for (uint32_t i = 0; i < bytes; i++) value = value << 8 | data[(bit >> 3) + i];
    return (uint32_t)(value >> (8 * bytes - skipped - bits) & (((uint64_t)1 << bits) - 1));
}

static inline float lsan_half(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7FFF) << 13;
    float x;
    memcpy(&x, &bits, 4);
    x *= 0x1p112f; /* subnormal numbers too */
    return half & 0x8000 ? -x : x;
}

static inline uint32_t lsan_code(const code_planes *codes, uint32_t table, uint32_t place) {
    const code_table *t = &codes->tables[table];
    const uint8_t *plane = codes->planes + (size_t)(place / BLOCK) * codes->stride + (size_t)t->plane * BLOCK;
    uint32_t lane = place % BLOCK;
    if (t->bytes == 1) return plane[lane];
    if (t->bytes == 2) {
        uint16_t code;
        memcpy(&code, plane + 2 * lane, 2);
        return code;
    }
    uint32_t code;
    memcpy(&code, plane + 4 * lane, 4);
    return code;
}

#endif
