/* Two models in one program: `tvm_two` runs each once on the numbers 0, 0.01, 0.02 ..., and writes
 * what they answer as text; it is linked with infc_first.o and infc_second.o.
 */
#include <stdio.h>

#include "infc_first.h"
#include "infc_second.h"

enum { INPUTS = INFC_FIRST_INPUT_0_BYTES / 4, OUTPUTS = INFC_FIRST_OUTPUT_0_BYTES / 4 };

static unsigned char first_memory[INFC_FIRST_BYTES] __attribute__((aligned(64)));
static unsigned char second_memory[INFC_SECOND_BYTES] __attribute__((aligned(64)));
static float input[INPUTS];
static float first_output[OUTPUTS], second_output[OUTPUTS];

int main(void) {
  infc_first* first = NULL;
  infc_second* second = NULL;
  for (int i = 0; i < INPUTS; ++i) input[i] = (float)i / 100.0f;
  if (infc_first_bytes() != INFC_FIRST_BYTES) return 2;
  if (infc_first_weight_bytes() != INFC_FIRST_WEIGHT_BYTES) return 2;
  if (infc_first_place(first_memory, sizeof first_memory - 1, &first) != INFC_FIRST_NO_SPACE) {
    return 3;
  }
  if (infc_first_place(first_memory + 4, sizeof first_memory, &first) != INFC_FIRST_NO_SPACE) {
    return 3;
  }
  if (infc_first_place(first_memory, sizeof first_memory, &first) != INFC_FIRST_OK) return 4;
  if (infc_second_place(second_memory, sizeof second_memory, &second) != INFC_SECOND_OK) return 4;
  const void* inputs[] = {input};
  void* first_outputs[] = {first_output};
  void* second_outputs[] = {second_output};
  if (infc_first_run(first, inputs, first_outputs) != INFC_FIRST_OK) return 5;
  if (infc_second_run(second, inputs, second_outputs) != INFC_SECOND_OK) return 5;
  for (int i = 0; i < OUTPUTS; ++i) {
    printf("%.9g %.9g\n", (double)first_output[i], (double)second_output[i]);
  }
  infc_first_destroy(first);
  infc_second_destroy(second);
  return 0;
}
