/* A compiled model: kernels, weights and a plan in one library that needs nothing but libc.
 *
 * A model is used by one thread at a time; several models may be used at the same time. Nothing is
 * allocated after infc_model_create, and nothing is printed.
 */
#ifndef INFC_MODEL_H
#define INFC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define INFC_MODEL_API __attribute__((visibility("default")))
#else
#define INFC_MODEL_API
#endif

#define INFC_MODEL_ABI 1

typedef struct infc_model infc_model;

enum {
  INFC_MODEL_OK = 0,
  INFC_MODEL_NO_MEMORY = 1, /* create: the arena, or a thread, is not to be had */
  INFC_MODEL_NO_SPACE = 2,  /* place: the memory is too small, or not aligned to 64 bytes */
  INFC_MODEL_FAILED = 3,    /* run: a kernel refused; infc_model_message says why */
  INFC_MODEL_WRONG_CPU = 4  /* create, place: the kernels use instructions that it does not have */
};

/* The version of this interface that the library was built with. */
INFC_MODEL_API int infc_model_abi(void);

/* Bytes that infc_model_place needs, and bytes of weights in the library. */
INFC_MODEL_API size_t infc_model_bytes(void);
INFC_MODEL_API size_t infc_model_weight_bytes(void);

/* The shape and type of input (0) or output (1) number `index`: returns its rank, -1 where there is
 * none; `type` is DLPack's code of the type times 256, and its bits. `shape` has room for 16. */
INFC_MODEL_API int infc_model_tensor(int output, int index, int64_t* shape, int* type);

/* Makes a model that runs on `threads` threads, the caller's among them; 0 takes one for each core. */
INFC_MODEL_API int infc_model_create(int threads, infc_model** made);

/* The same in memory of the caller's, of infc_model_bytes() bytes aligned to 64, on one thread. */
INFC_MODEL_API int infc_model_place(void* memory, size_t bytes, infc_model** made);

/* Runs the model; `inputs` and `outputs` in its order, dense, in C order, of any alignment. */
INFC_MODEL_API int infc_model_run(infc_model* model, const void* const* inputs,
                                  void* const* outputs);

/* What the last run that failed said; "" where none did. */
INFC_MODEL_API const char* infc_model_message(const infc_model* model);

INFC_MODEL_API void infc_model_destroy(infc_model* model);

#ifdef __cplusplus
}
#endif

#endif
