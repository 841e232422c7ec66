#include "json.h"

#include <stdint.h>
#include <string.h>

// Each of these begins at `p` and answers where it ended; NULL where it is not JSON.
static const char *value_end(const char *p, const char *end, int depth);

static const char *space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static const char *escape_end(const char *p, const char *end) {
    if (p == end) return NULL;
    if (*p != 'u') return memchr("\"\\/bfnrt", *p, 8) ? p + 1 : NULL;
    if (end - p < 5) return NULL;
    for (int i = 1; i < 5; i++)
        if (hex(p[i]) < 0) return NULL;
    return p + 5;
}

static const char *string_end(const char *p, const char *end) {
    if (p == end || *p++ != '"') return NULL;
    while (p < end) {
        unsigned char c = (unsigned char)*p++;
        if (c == '"') return p;
        if (c < 0x20) return NULL;
        if (c == '\\' && !(p = escape_end(p, end))) return NULL;
    }
    return NULL;
}

static const char *digits(const char *p, const char *end) {
    const char *first = p;
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p == first ? NULL : p;
}

static const char *number_end(const char *p, const char *end) {
    if (p < end && *p == '-') p++;
    if (p < end && *p == '0')
        p++;
    else if (!(p = digits(p, end)))
        return NULL;
    if (p < end && *p == '.' && !(p = digits(p + 1, end))) return NULL;
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-')) p++;
        p = digits(p, end);
    }
    return p;
}

static const char *word_end(const char *p, const char *end, const char *word) {
    size_t size = strlen(word);
    return (size_t)(end - p) >= size && memcmp(p, word, size) == 0 ? p + size : NULL;
}

// A name and its colon.
static const char *name_end(const char *p, const char *end) {
    if (!(p = string_end(p, end))) return NULL;
    p = space(p, end);
    return p < end && *p == ':' ? space(p + 1, end) : NULL;
}

static const char *many_end(const char *p, const char *end, int depth) {
    char close = *p == '{' ? '}' : ']';
    if (depth == JSON_DEPTH) return NULL;
    p = space(p + 1, end);
    if (p < end && *p == close) return p + 1;
    for (;;) {
        if (close == '}' && !(p = name_end(p, end))) return NULL;
        if (!(p = value_end(p, end, depth + 1))) return NULL;
        p = space(p, end);
        if (p == end) return NULL;
        if (*p == close) return p + 1;
        if (*p != ',') return NULL;
        p = space(p + 1, end);
    }
}

static const char *value_end(const char *p, const char *end, int depth) {
    if (p == end) return NULL;
    switch (*p) {
        case '{':
        case '[': return many_end(p, end, depth);
        case '"': return string_end(p, end);
        case 't': return word_end(p, end, "true");
        case 'f': return word_end(p, end, "false");
        case 'n': return word_end(p, end, "null");
        default: return number_end(p, end);
    }
}

bool json_valid(struct json text) {
    const char *end = text.at + text.size;
    const char *p = value_end(space(text.at, end), end, 0);
    return p && space(p, end) == end;
}

// Past the opening bracket and white space; NULL where the value is of another kind, or is empty.
static const char *inside(struct json many, char open) {
    const char *end = many.at + many.size, *p = space(many.at, end);
    if (p == end || *p != open) return NULL;
    p = space(p + 1, end);
    return p < end && *p != ']' && *p != '}' ? p : NULL;
}

// Past the comma; NULL after the last one.
static const char *following(const char *p, const char *end) {
    p = space(p, end);
    return p < end && *p == ',' ? space(p + 1, end) : NULL;
}

bool json_member(struct json object, const char *name, struct json *value) {
    const char *end = object.at + object.size, *p = inside(object, '{');
    bool found = false;
    while (p) {
        const char *key = p, *key_end = string_end(p, end);
        const char *from = name_end(p, end);
        if (!key_end || !from || !(p = value_end(from, end, 0))) return false;
        char text[128];
        struct json spelled = {key, (size_t)(key_end - key)};
        if (json_string(spelled, text, sizeof text) && strcmp(text, name) == 0) {
            *value = (struct json){from, (size_t)(p - from)};
            found = true;
        }
        p = following(p, end);
    }
    return found;
}

bool json_next(struct json array, size_t *from, struct json *item) {
    const char *end = array.at + array.size;
    const char *p = *from ? following(array.at + *from, end) : inside(array, '[');
    if (!p) return false;
    const char *after = value_end(p, end, 0);
    if (!after) return false;
    *item = (struct json){p, (size_t)(after - p)};
    *from = (size_t)(after - array.at);
    return true;
}

static uint32_t four(const char *p) {
    return (uint32_t)(hex(p[0]) << 12 | hex(p[1]) << 8 | hex(p[2]) << 4 | hex(p[3]));
}

// A character behind \u, with the second half of a pair; a half alone is U+FFFD, as runc reads it.
static uint32_t unicode(const char **p, const char *end) {
    uint32_t code = four(*p);
    *p += 4;
    if (code < 0xD800 || code > 0xDFFF) return code;
    if (code < 0xDC00 && end - *p >= 6 && (*p)[0] == '\\' && (*p)[1] == 'u') {
        uint32_t low = four(*p + 2);
        if (low >= 0xDC00 && low <= 0xDFFF) {
            *p += 6;
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
    }
    return 0xFFFD;
}

static size_t utf8(uint32_t code, char out[4]) {
    if (code < 0x80) return out[0] = (char)code, 1;
    size_t more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char first[] = {0, 0xC0, 0xE0, 0xF0};
    for (size_t i = more; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(first[more] | code);
    return more + 1;
}

static char plain(char escaped) {
    switch (escaped) {
        case 'b': return '\b';
        case 'f': return '\f';
        case 'n': return '\n';
        case 'r': return '\r';
        case 't': return '\t';
        default: return escaped;
    }
}

// The next character of a string as bytes; answers how many.
static size_t character(const char **p, const char *end, char out[4]) {
    out[0] = *(*p)++;
    if (out[0] != '\\') return 1;
    char kind = *(*p)++;
    if (kind == 'u') return utf8(unicode(p, end), out);
    out[0] = plain(kind);
    return 1;
}

bool json_string(struct json value, char *text, size_t room) {
    const char *end = string_end(value.at, value.at + value.size);
    if (!end || room == 0) return false;
    size_t used = 0;
    for (const char *p = value.at + 1; p < end - 1;) {
        char out[4];
        size_t size = character(&p, end, out);
        if (out[0] == '\0' || size >= room - used) return false;
        memcpy(text + used, out, size);
        used += size;
    }
    text[used] = '\0';
    return true;
}

bool json_number(struct json value, unsigned long long *number) {
    if (value.size == 0 || value.size > 18) return false;
    *number = 0;
    for (size_t i = 0; i < value.size; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') return false;
        *number = *number * 10 + (unsigned long long)(value.at[i] - '0');
    }
    return true;
}

bool json_begins(struct json value, const char *with) {
    const char *end = string_end(value.at, value.at + value.size);
    if (!end) return false;
    for (const char *p = value.at + 1; *with && p < end - 1;) {
        char out[4];
        size_t size = character(&p, end, out);
        if (strncmp(out, with, size) != 0) return false;
        with += size;
    }
    return !*with;
}
