/* What the generated model.c tells runtime.c. */
#ifndef INFC_PLAN_H
#define INFC_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum { INFC_INPUT, INFC_OUTPUT, INFC_CONSTANT, INFC_ARENA };

typedef struct {
  uint8_t place;
  uint8_t type_code; /* DLPack's */
  uint8_t bits;
  uint8_t rank;
  uint32_t shape; /* where in infc_shapes */
  uint64_t at;    /* input, output: its number; else an offset in bytes */
  uint64_t bytes;
} infc_plan_tensor;

typedef struct {
  int32_t type_index;
  uint32_t padding;
  union {
    int64_t integer;
    double number;
    void* pointer;
  } value;
} infc_any;

typedef int (*infc_kernel)(void* self, const infc_any* arguments, int32_t count, infc_any* result);

typedef struct {
  infc_kernel kernel;
  const char* name;
  uint32_t operands; /* where in infc_operands */
  uint32_t count;
} infc_plan_call;

typedef struct {
  uint32_t from;
  uint32_t to;
} infc_plan_copy;

extern const infc_plan_tensor infc_tensors[];
extern const size_t infc_tensor_count;
extern const int64_t infc_shapes[];
extern const infc_plan_call infc_calls[];
extern const size_t infc_call_count;
extern const uint32_t infc_operands[];
extern const size_t infc_most_operands;
extern const infc_plan_copy infc_copies[];
extern const size_t infc_copy_count;
extern const size_t infc_arena_bytes;
extern const size_t infc_weight_bytes;
extern const size_t infc_place_bytes; /* of all that a model takes: infc_model_bytes */
extern const unsigned char infc_weights[];

/* Whether this processor has the instructions that the kernels use. */
int infc_cpu_fits(void);

#endif
