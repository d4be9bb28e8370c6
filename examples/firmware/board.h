/* What the firmware has of the board: a way to tell things, and how much memory is in use. */
#ifndef BOARD_H
#define BOARD_H

#include <stdint.h>

void board_text(const char* text);
void board_number(uint32_t number);
void board_hexadecimal(uint32_t number);

/* Tells the bytes of flash, of memory that is written, and of the deepest stack so far. */
void board_memory(void);

#endif
