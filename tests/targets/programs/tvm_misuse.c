/* Drives a model's library as a C program does: `tvm_misuse LIBRARY THREADS`, one float32 input.
 *
 * Prints what must hold, a line each; tests/targets/test_tvm.py reads them.
 */
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infc_model.h"

typedef int (*Create)(int, infc_model**);
typedef int (*Place)(void*, size_t, infc_model**);
typedef int (*Run)(infc_model*, const void* const*, void* const*);
typedef void (*Destroy)(infc_model*);
typedef int (*Shape)(int, int, int64_t*, int*);
typedef size_t (*Bytes)(void);

static size_t elements(Shape shape_of, int output) {
  int64_t shape[16];
  int type = 0;
  const int rank = shape_of(output, 0, shape, &type);
  size_t count = 1;
  for (int i = 0; i < rank; ++i) count *= (size_t)shape[i];
  return count;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 2;
  }
  Create create = (Create)(uintptr_t)dlsym(library, "infc_model_create");
  Place place = (Place)(uintptr_t)dlsym(library, "infc_model_place");
  Run run = (Run)(uintptr_t)dlsym(library, "infc_model_run");
  Destroy destroy = (Destroy)(uintptr_t)dlsym(library, "infc_model_destroy");
  Shape shape_of = (Shape)(uintptr_t)dlsym(library, "infc_model_tensor");
  Bytes bytes = (Bytes)(uintptr_t)dlsym(library, "infc_model_bytes");

  infc_model* model = NULL;
  printf("create %d\n", create(atoi(argv[2]), &model));
  int64_t shape[16];
  int type = 0;
  printf("no third input %d\n", shape_of(0, 2, shape, &type));
  const size_t in = elements(shape_of, 0), out = elements(shape_of, 1);
  unsigned char* memory = malloc((in + 2 * out) * sizeof(float) + 256);
  float* x = (float*)(void*)(memory + 4); /* not aligned to what the kernels want */
  float* y = x + in;
  float* z = y + out;
  for (size_t i = 0; i < in; ++i) x[i] = (float)(i % 7) - 3.0f;
  const void* inputs[] = {x};
  void *first[] = {y}, *second[] = {z};
  printf("run %d\n", run(model, inputs, first));
  const size_t before = mallinfo2().uordblks;
  int status = 0;
  for (int i = 0; i < 50; ++i) status |= run(model, inputs, second);
  printf("again %d\n", status);
  printf("allocated %zu\n", mallinfo2().uordblks - before);
  printf("same %d\n", memcmp(y, z, out * sizeof(float)) == 0);
  destroy(model);
  destroy(NULL);

  void* own = NULL;
  if (posix_memalign(&own, 64, bytes() + 64) != 0) return 2;
  printf("too small %d\n", place(own, bytes() - 1, &model));
  printf("not aligned %d\n", place((unsigned char*)own + 8, bytes(), &model));
  printf("place %d\n", place(own, bytes(), &model));
  memset(z, 0, out * sizeof(float));
  printf("run there %d\n", run(model, inputs, second));
  printf("near %d\n", memcmp(y, z, out * sizeof(float)) == 0 || atoi(argv[2]) != 1);
  destroy(model);
  free(own);
  free(memory);
  return 0;
}
