#include "json.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    json *document;
    uint32_t at, room;
} parser;

static int64_t new_token(parser *p, json_kind kind, uint32_t begin) {
    json *d = p->document;
    if (d->count == p->room) {
        if (p->room >= JSON_TOKENS) return -1;
        uint32_t room = p->room ? 2 * p->room : 64;
        json_token *tokens = realloc(d->tokens, room * sizeof *tokens);
        if (!tokens) return -1;
        d->tokens = tokens;
        p->room = room;
    }
    d->tokens[d->count] = (json_token){.kind = kind, .begin = begin, .length = 0, .next = d->count + 1};
    return d->count++;
}

static void skip_space(parser *p) {
    const json *d = p->document;
    while (p->at < d->size &&
           (d->text[p->at] == ' ' || d->text[p->at] == '\t' || d->text[p->at] == '\n' || d->text[p->at] == '\r')) {
        p->at++;
    }
}

static int hexadecimal(parser *p, uint32_t *value) {
    const json *d = p->document;
    if (d->size - p->at < 4) return -1;
    *value = 0;
    for (int i = 0; i < 4; i++) {
        char c = d->text[p->at++];
        uint32_t digit;
        if (c >= '0' && c <= '9') digit = (uint32_t)(c - '0');
        else if (c >= 'a' && c <= 'f') digit = (uint32_t)(c - 'a' + 10);
        else if (c >= 'A' && c <= 'F') digit = (uint32_t)(c - 'A' + 10);
        else return -1;
        *value = *value * 16 + digit;
    }
    return 0;
}

static uint32_t put_utf8(char *out, uint32_t code) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 63));
        out[2] = (char)(0x80 | (code & 63));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 63));
    out[2] = (char)(0x80 | (code >> 6 & 63));
    out[3] = (char)(0x80 | (code & 63));
    return 4;
}

/* The number of bytes of the UTF-8 character at `text`, 0 where it is none. */
static uint32_t utf8_length(const uint8_t *text, uint32_t left) {
    uint32_t length, code, least;
    if (text[0] < 0x80) return 1;
    if (text[0] >= 0xC2 && text[0] < 0xE0) length = 2, code = text[0] & 31u, least = 0x80;
    else if (text[0] >= 0xE0 && text[0] < 0xF0) length = 3, code = text[0] & 15u, least = 0x800;
    else if (text[0] >= 0xF0 && text[0] < 0xF5) length = 4, code = text[0] & 7u, least = 0x10000;
    else return 0;
    if (left < length) return 0;
    for (uint32_t i = 1; i < length; i++) {
        if ((text[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | (text[i] & 63u);
    }
    if (code < least || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return 0;
    return length;
}

/* After the opening quotation mark. Writing never overtakes reading. */
static int parse_string(parser *p) {
    json *d = p->document;
    int64_t token = new_token(p, JSON_STRING, p->at);
    if (token < 0) return -1;
    uint32_t out = p->at;
    for (;;) {
        if (p->at >= d->size) return -1;
        uint8_t c = (uint8_t)d->text[p->at];
        if (c == '"') {
            p->at++;
            d->tokens[token].length = out - d->tokens[token].begin;
            return 0;
        }
        if (c < 0x20) return -1;
        if (c != '\\') {
            uint32_t length = utf8_length((const uint8_t *)d->text + p->at, d->size - p->at);
            if (!length) return -1;
            memmove(d->text + out, d->text + p->at, length);
            out += length;
            p->at += length;
            continue;
        }
        p->at++;
        if (p->at >= d->size) return -1;
        char escaped = d->text[p->at++];
        uint32_t code, low;
        switch (escaped) {
        case '"':
        case '\\':
        case '/': d->text[out++] = escaped; break;
        case 'b': d->text[out++] = '\b'; break;
        case 'f': d->text[out++] = '\f'; break;
        case 'n': d->text[out++] = '\n'; break;
        case 'r': d->text[out++] = '\r'; break;
        case 't': d->text[out++] = '\t'; break;
        case 'u':
            if (hexadecimal(p, &code)) return -1;
            if (code >= 0xDC00 && code < 0xE000) return -1;
            if (code >= 0xD800 && code < 0xDC00) {
                if (d->size - p->at < 6 || d->text[p->at] != '\\' || d->text[p->at + 1] != 'u') return -1;
                p->at += 2;
                if (hexadecimal(p, &low) || low < 0xDC00 || low >= 0xE000) return -1;
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
            out += put_utf8(d->text + out, code);
            break;
        default: return -1;
        }
    }
}

static bool is_digit(const parser *p) {
    return p->at < p->document->size && p->document->text[p->at] >= '0' && p->document->text[p->at] <= '9';
}

static bool accept(parser *p, char c) {
    if (p->at < p->document->size && p->document->text[p->at] == c) {
        p->at++;
        return true;
    }
    return false;
}

static int parse_number(parser *p) {
    uint32_t begin = p->at;
    accept(p, '-');
    if (!accept(p, '0')) {
        if (!is_digit(p)) return -1;
        while (is_digit(p)) p->at++;
    }
    if (accept(p, '.')) {
        if (!is_digit(p)) return -1;
        while (is_digit(p)) p->at++;
    }
    if (accept(p, 'e') || accept(p, 'E')) {
        if (!accept(p, '+')) accept(p, '-');
        if (!is_digit(p)) return -1;
        while (is_digit(p)) p->at++;
    }
    int64_t token = new_token(p, JSON_NUMBER, begin);
    if (token < 0) return -1;
    p->document->tokens[token].length = p->at - begin;
    return 0;
}

static int parse_word(parser *p, const char *word, json_kind kind) {
    uint32_t length = (uint32_t)strlen(word);
    if (p->document->size - p->at < length || memcmp(p->document->text + p->at, word, length) != 0) return -1;
    if (new_token(p, kind, p->at) < 0) return -1;
    p->at += length;
    return 0;
}

static int parse_value(parser *p, int depth) {
    json *d = p->document;
    skip_space(p);
    if (p->at >= d->size || depth > JSON_DEPTH) return -1;
    char c = d->text[p->at];
    if (c == 'n') return parse_word(p, "null", JSON_NULL);
    if (c == 't') return parse_word(p, "true", JSON_TRUE);
    if (c == 'f') return parse_word(p, "false", JSON_FALSE);
    if (c == '"') {
        p->at++;
        return parse_string(p);
    }
    if (c != '{' && c != '[') return parse_number(p);
    bool object = c == '{';
    int64_t token = new_token(p, object ? JSON_OBJECT : JSON_ARRAY, p->at++);
    if (token < 0) return -1;
    skip_space(p);
    if (!accept(p, object ? '}' : ']')) {
        for (;;) {
            if (object) {
                skip_space(p);
                if (!accept(p, '"') || parse_string(p)) return -1;
                skip_space(p);
                if (!accept(p, ':')) return -1;
            }
            if (parse_value(p, depth + 1)) return -1;
            d->tokens[token].length++;
            skip_space(p);
            if (accept(p, ',')) continue;
            if (accept(p, object ? '}' : ']')) break;
            return -1;
        }
    }
    d->tokens[token].next = d->count;
    return 0;
}

int json_parse(json *document, const uint8_t *text, size_t size) {
    memset(document, 0, sizeof *document);
    if (size == 0 || size > UINT32_MAX / 2) return -1;
    document->text = malloc(size);
    if (!document->text) return -1;
    memcpy(document->text, text, size);
    document->size = (uint32_t)size;
    parser p = {.document = document};
    if (parse_value(&p, 0) == 0) {
        skip_space(&p);
        if (p.at == document->size) return 0;
    }
    json_free(document);
    return -1;
}

void json_free(json *document) {
    free(document->text);
    free(document->tokens);
    memset(document, 0, sizeof *document);
}

bool json_is(const json *document, uint32_t token, const char *text) {
    const json_token *t = &document->tokens[token];
    size_t length = strlen(text);
    return t->kind == JSON_STRING && t->length == length && memcmp(document->text + t->begin, text, length) == 0;
}

int64_t json_get(const json *document, uint32_t object, const char *name) {
    const json_token *o = &document->tokens[object];
    if (o->kind != JSON_OBJECT) return 0;
    int64_t found = 0;
    for (uint32_t key = object + 1; key < o->next; key = document->tokens[key + 1].next) {
        if (json_is(document, key, name)) {
            if (found) return -1;
            found = key + 1;
        }
    }
    return found;
}

bool json_integer(const json *document, uint32_t token, int64_t *value) {
    const json_token *t = &document->tokens[token];
    if (t->kind != JSON_NUMBER) return false;
    const char *text = document->text + t->begin;
    uint32_t at = text[0] == '-';
    uint64_t whole = 0;
    for (; at < t->length; at++) {
        if (text[at] < '0' || text[at] > '9') return false;
        uint64_t digit = (uint64_t)(text[at] - '0');
        if (whole > (INT64_MAX - digit) / 10) return false;
        whole = whole * 10 + digit;
    }
    *value = text[0] == '-' ? -(int64_t)whole : (int64_t)whole;
    return true;
}

static double power_of_ten(int exponent) {
    double power = 1, base = 10;
    for (; exponent; exponent >>= 1, base *= base) {
        if (exponent & 1) power *= base;
    }
    return power;
}

bool json_real(const json *document, uint32_t token, double *value) {
    const json_token *t = &document->tokens[token];
    if (t->kind != JSON_NUMBER) return false;
    const char *text = document->text + t->begin;
    uint32_t at = text[0] == '-';
    uint64_t digits = 0;
    int exponent = 0;
    bool fraction = false;
    for (; at < t->length && text[at] != 'e' && text[at] != 'E'; at++) {
        if (text[at] == '.') {
            fraction = true;
            continue;
        }
        if (digits < (UINT64_MAX - 9) / 10) {
            digits = digits * 10 + (uint64_t)(text[at] - '0');
            exponent -= fraction;
        } else {
            exponent += !fraction;
        }
        if (exponent > 100000 || exponent < -100000) return false;
    }
    if (at < t->length) {
        at++;
        bool negative = text[at] == '-';
        if (negative || text[at] == '+') at++;
        int written = 0;
        for (; at < t->length; at++) {
            if (written < 100000) written = written * 10 + (text[at] - '0');
        }
        exponent += negative ? -written : written;
    }
    double x = (double)digits;
    if (digits == 0) x = 0;
    else if (exponent > 330) return false;
    else if (exponent < -400) x = 0;
    else if (exponent < -300) x = x / power_of_ten(300) / power_of_ten(-exponent - 300);
    else if (exponent < 0) x /= power_of_ten(-exponent);
    else if (exponent > 300) x = x * power_of_ten(300) * power_of_ten(exponent - 300);
    else x *= power_of_ten(exponent);
    if (!(x < 1.7e308)) return false;
    *value = text[0] == '-' ? -x : x;
    return true;
}
