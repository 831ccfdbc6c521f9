/* Tells libFuzzer which blocks of the compiled proxy ran. gcc calls a function in each block (-fsanitize-coverage=trace-pc)
   where libFuzzer wants counters of its own: they are here, one for each hash of a block's address. */
#include <stdint.h>

#define COUNTERS 65536

static uint8_t counters[COUNTERS];
static uintptr_t places[2 * COUNTERS]; /* address and flags of each; what they are is only ever printed */

void __sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop);
void __sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *stop);

void __sanitizer_cov_trace_pc(void) {
  uintptr_t place = (uintptr_t)__builtin_return_address(0);
  counters[(place * UINT64_C(0x9E3779B97F4A7C15)) >> 48]++;
}

/* gcc calls these for floating point; libFuzzer has none. */
void __sanitizer_cov_trace_cmpf(float a, float b) { (void)a, (void)b; }
void __sanitizer_cov_trace_cmpd(double a, double b) { (void)a, (void)b; }

void coverage_start(void) {
  __sanitizer_cov_8bit_counters_init(counters, counters + COUNTERS);
  __sanitizer_cov_pcs_init(places, places + 2 * COUNTERS);
}
