/* JSON as a row of tokens; strict, bounded, without recursion deeper than JSON_DEPTH. */
#ifndef LSAN_JSON_H
#define LSAN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_DEPTH = 32, JSON_TOKENS = 1 << 20 };

typedef enum { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_kind;

typedef struct {
    uint32_t begin;  /* of the text; strings are decoded in place */
    uint32_t length; /* of the text; of arrays and objects, how many values */
    uint32_t next;   /* the token after this value */
    json_kind kind;
} json_token;

typedef struct {
    char *text;
    uint32_t size;
    json_token *tokens;
    uint32_t count;
} json;

/* 0, or -1 where the text is not JSON or there is no memory. The text is copied. */
int json_parse(json *document, const uint8_t *text, size_t size);
void json_free(json *document);

/* The value of a name in an object: its token, 0 where it is absent (token 0 is the document), -1 where it is there
 * twice. */
int64_t json_get(const json *document, uint32_t object, const char *name);
bool json_is(const json *document, uint32_t token, const char *text);
/* A whole number without fraction and exponent. */
bool json_integer(const json *document, uint32_t token, int64_t *value);
/* A finite number. */
bool json_real(const json *document, uint32_t token, double *value);

#endif
