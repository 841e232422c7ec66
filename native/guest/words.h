// Arguments that are passed on as they are: no call of the driver, nor of NCCL, has more than twelve
// words, and words of the caller's stack that are read without being arguments harm nobody.
#ifndef KYB_GUEST_WORDS_H
#define KYB_GUEST_WORDS_H

#include <stdint.h>

#define WORDS uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d, uintptr_t e, uintptr_t f, \
              uintptr_t g, uintptr_t h, uintptr_t i, uintptr_t j, uintptr_t k, uintptr_t l
#define PASSED a, b, c, d, e, f, g, h, i, j, k, l
typedef int any_call(WORDS);
#endif
