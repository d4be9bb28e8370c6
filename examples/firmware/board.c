/* Start of a Cortex-M4, M7 or M33 with FPU, and Arm's semihosting: no C library, no vendor's code.
 *
 * Sources: ARMv7-M Architecture Reference Manual, B1.5 and B3.2.20, as in ARMv8-M; Arm's
 * semihosting, version 2.
 */
#include "board.h"

extern uint32_t flash_start[], flash_end[], data_source[], data_start[], data_end[];
extern uint32_t bss_start[], bss_end[], stack_bottom[], stack_top[];

int main(void);
void reset(void);

enum { SYS_WRITE0 = 0x04, SYS_EXIT_EXTENDED = 0x20, APPLICATION_EXIT = 0x20026 };
enum { UNUSED = 0x5AA5C33C }; /* what the stack holds where it never was */

static int32_t semihost(int32_t operation, const void* argument) {
  register int32_t r0 __asm__("r0") = operation;
  register const void* r1 __asm__("r1") = argument;
  __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

static void leave(uint32_t status) {
  const uint32_t block[] = {APPLICATION_EXIT, status};
  semihost(SYS_EXIT_EXTENDED, block);
  for (;;) {
  }
}

static void fault(void) {
  board_text("fault\n");
  leave(3);
}

__attribute__((section(".vectors"), used)) static const void* const vectors[16] = {
    stack_top, (const void*)reset, (const void*)fault, (const void*)fault,
    (const void*)fault, (const void*)fault, (const void*)fault,
};

__attribute__((used)) static void start(void) {
  const uint32_t* from = data_source;
  for (uint32_t* to = data_start; to < data_end; ++to) *to = *from++;
  for (uint32_t* to = bss_start; to < bss_end; ++to) *to = 0;
  uint32_t* here = (uint32_t*)__builtin_frame_address(0) - 64;
  for (uint32_t* to = stack_bottom; to < here; ++to) *to = UNUSED;
  leave((uint32_t)main());
}

/* The FPU is off after a reset, and the compiler may use it anywhere: no C before that. */
__attribute__((naked)) void reset(void) {
  __asm__ volatile(
      "ldr r0, =0xE000ED88\n" /* CPACR: full access to coprocessors 10 and 11 */
      "ldr r1, [r0]\n"
      "orr r1, r1, #(0xF << 20)\n"
      "str r1, [r0]\n"
      "dsb\n"
      "isb\n"
      "b start\n");
}

void board_text(const char* text) { semihost(SYS_WRITE0, text); }

void board_number(uint32_t number) {
  char digits[11];
  char* at = digits + sizeof digits - 1;
  *at = 0;
  do {
    *--at = (char)('0' + number % 10);
    number /= 10;
  } while (number != 0);
  board_text(at);
}

void board_hexadecimal(uint32_t number) {
  char digits[9];
  for (int i = 0; i < 8; ++i) digits[i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
  digits[8] = 0;
  board_text(digits);
}

static uint32_t bytes(const uint32_t* from, const uint32_t* to) {
  return (uint32_t)((uintptr_t)to - (uintptr_t)from);
}

void board_memory(void) {
  const uint32_t* used = stack_bottom;
  while (used < stack_top && *used == UNUSED) ++used;
  board_text("flash ");
  board_number(bytes(flash_start, flash_end) + bytes(data_start, data_end));
  board_text(" bytes, RAM ");
  board_number(bytes(data_start, bss_end));
  board_text(" bytes, stack ");
  board_number(bytes(used, stack_top));
  board_text(" bytes\n");
}
