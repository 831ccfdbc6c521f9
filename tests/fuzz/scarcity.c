/* Preloaded: has one allocation of the proxy's own C code, or of libnghttp2, fail. All others are as ever. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

static long left = -1; /* allocations that succeed until one does not; below zero none fails any more */

void fail_after(long count) { left = count; }
long successes_left(void) { return left; }

static int fails(void *caller) {
  Dl_info info;
  if (left < 0 || !dladdr(caller, &info) || info.dli_fname == NULL) return 0;
  if (!strstr(info.dli_fname, "/proxy/") && !strstr(info.dli_fname, "_shim-") && !strstr(info.dli_fname, "libnghttp2")) return 0;
  return left-- == 0;
}

void *malloc(size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size); }
void *calloc(size_t n, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t size) { return fails(__builtin_return_address(0)) ? NULL : __libc_realloc(p, size); }
