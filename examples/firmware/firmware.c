/* Classifies scanned digits on a microcontroller, and says over semihosting what it found.
 *
 * Prints `sample N label L predicted P logits ...`, the logits as the bits of their floats, for each
 * digit of samples.h, the accuracy, and what it took of memory. Ends with status 0, or 1 where the
 * model reports an error.
 */
#include <stdint.h>

#include "board.h"
#include "infc_digits.h"
#include "samples.h"

enum { PIXELS = 64, CLASSES = 10, GREY_MAX = 16 };

/* All memory that the model ever has. */
static unsigned char memory[INFC_DIGITS_BYTES] __attribute__((aligned(64)));
static float image[PIXELS] __attribute__((aligned(64)));
static float logits[CLASSES] __attribute__((aligned(64)));

static int best(const float* values, int count) {
  int found = 0;
  for (int i = 1; i < count; ++i) {
    if (values[i] > values[found]) found = i;
  }
  return found;
}

static void report(int sample, int predicted) {
  board_text("sample ");
  board_number((uint32_t)sample);
  board_text(" label ");
  board_number(samples[sample][0]);
  board_text(" predicted ");
  board_number((uint32_t)predicted);
  board_text(" logits");
  for (int i = 0; i < CLASSES; ++i) {
    union {
      float value;
      uint32_t bits;
    } number = {logits[i]};
    board_text(" ");
    board_hexadecimal(number.bits);
  }
  board_text("\n");
}

int main(void) {
  infc_digits* model = 0;
  int status = infc_digits_place(memory, sizeof memory - 64, &model);
  if (status != INFC_DIGITS_NO_SPACE) return 1; /* too little memory is refused */
  status = infc_digits_place(memory, sizeof memory, &model);
  if (status != INFC_DIGITS_OK) return 1;
  const void* inputs[] = {image};
  void* outputs[] = {logits};
  int right = 0;
  for (int sample = 0; sample < SAMPLES; ++sample) {
    for (int i = 0; i < PIXELS; ++i) image[i] = (float)samples[sample][1 + i] / GREY_MAX;
    if (infc_digits_run(model, inputs, outputs) != INFC_DIGITS_OK) {
      board_text(infc_digits_message(model));
      return 1;
    }
    const int predicted = best(logits, CLASSES);
    right += predicted == samples[sample][0];
    report(sample, predicted);
  }
  board_text("accuracy ");
  board_number((uint32_t)right);
  board_text("/");
  board_number(SAMPLES);
  board_text("\n");
  board_memory();
  return 0;
}
