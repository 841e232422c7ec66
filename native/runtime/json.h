// Reading JSON that stands in memory: strict, without allocation, never past its end.
//
// Called by: everything here that reads config.json, process.json, state.json, or a reply.
// Rule: `json_valid` first; the others give false for what is not there or of another kind.
#ifndef KYB_JSON_H
#define KYB_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum { JSON_DEPTH = 64 };  // of objects and arrays in each other; runc's files need 8

struct json {
    const char *at;
    size_t size;
};

// Whether the text is one JSON value with nothing behind it, at most JSON_DEPTH deep.
bool json_valid(struct json text);

// The value of a name in an object; of the last one where the name comes twice, as runc reads it.
bool json_member(struct json object, const char *name, struct json *value);

// Walks an array: `from` is zero first, and then kept between calls.
bool json_next(struct json array, size_t *from, struct json *item);

// A string's text with its NUL. False where it does not fit or has a NUL in it.
bool json_string(struct json value, char *text, size_t room);

// A whole number that is not negative.
bool json_number(struct json value, unsigned long long *number);

// Whether it is a string that begins so.
bool json_begins(struct json value, const char *with);

#endif
