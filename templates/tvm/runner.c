/* Runs a model on tensors in files: what infc proves a model with where it cannot open it itself.
 *
 *   runner LIBRARY                          says what the model's inputs and outputs are
 *   runner LIBRARY THREADS FOLDER...        reads FOLDER/in0, in1, ...; writes out0, out1, ...
 *
 * With INFC_LINKED the model is linked in, and LIBRARY is not looked at. INFC_PLACE is for a model
 * that has no memory of its own.
 */
#define _POSIX_C_SOURCE 200809L
#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infc_model.h"

enum { MOST_TENSORS = 1024, MOST_AXES = 16, ALIGNMENT = 64 };

static struct {
  int (*tensor)(int, int, int64_t*, int*);
  size_t (*bytes)(void);
  int (*create)(int, infc_model**);
  int (*place)(void*, size_t, infc_model**);
  int (*run)(infc_model*, const void* const*, void* const*);
  const char* (*message)(const infc_model*);
  void (*destroy)(infc_model*);
} api;

static int fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why != NULL ? why : "?");
  return 1;
}

#ifdef INFC_LINKED
static int open_model(const char* path) {
  (void)path;
  api.tensor = infc_model_tensor;
  api.bytes = infc_model_bytes;
  api.create = infc_model_create;
  api.place = infc_model_place;
  api.run = infc_model_run;
  api.message = infc_model_message;
  api.destroy = infc_model_destroy;
  return 0;
}
#else
static void* symbol(void* library, const char* name) { return dlsym(library, name); }

static int open_model(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) return fail("the model's library cannot be opened", dlerror());
  *(void**)(void*)&api.tensor = symbol(library, "infc_model_tensor");
  *(void**)(void*)&api.bytes = symbol(library, "infc_model_bytes");
  *(void**)(void*)&api.create = symbol(library, "infc_model_create");
  *(void**)(void*)&api.place = symbol(library, "infc_model_place");
  *(void**)(void*)&api.run = symbol(library, "infc_model_run");
  *(void**)(void*)&api.message = symbol(library, "infc_model_message");
  *(void**)(void*)&api.destroy = symbol(library, "infc_model_destroy");
  if (api.tensor == NULL || api.create == NULL || api.place == NULL || api.run == NULL) {
    return fail("the model's library", "it lacks functions");
  }
  return 0;
}
#endif

static int make_model(int threads, infc_model** model) {
#ifdef INFC_PLACE
  void* memory = NULL;
  (void)threads;
  if (posix_memalign(&memory, ALIGNMENT, api.bytes()) != 0) return INFC_MODEL_NO_MEMORY;
  return api.place(memory, api.bytes(), model);
#else
  return api.create(threads, model);
#endif
}

/* The bytes of a tensor, 0 where there is none. */
static size_t bytes_of(int output, int index) {
  int64_t shape[MOST_AXES];
  int type = 0;
  const int rank = api.tensor(output, index, shape, &type);
  if (rank < 0) return 0;
  size_t bytes = (size_t)(type & 255) / 8;
  for (int i = 0; i < rank; ++i) bytes *= (size_t)shape[i];
  return bytes;
}

static void describe(void) {
  for (int output = 0; output < 2; ++output) {
    int64_t shape[MOST_AXES];
    int type = 0;
    for (int index = 0;; ++index) {
      const int rank = api.tensor(output, index, shape, &type);
      if (rank < 0) break;
      printf("%d %d", output, type);
      for (int i = 0; i < rank; ++i) printf(" %" PRId64, shape[i]);
      printf("\n");
    }
  }
}

static int transfer(const char* folder, int output, int index, void* data, size_t bytes) {
  char path[4096];
  const char* kind = output ? "out" : "in";
  if (snprintf(path, sizeof path, "%s/%s%d", folder, kind, index) >= (int)sizeof path) {
    return fail(folder, "the path is too long");
  }
  FILE* file = fopen(path, output ? "wb" : "rb");
  if (file == NULL) return fail(path, "it cannot be opened");
  const size_t done = output ? fwrite(data, 1, bytes, file) : fread(data, 1, bytes, file);
  const int closed = fclose(file);
  return done == bytes && closed == 0 ? 0 : fail(path, "it is too short, or the disk is full");
}

static int run_folder(infc_model* model, const char* folder) {
  void* tensors[2][MOST_TENSORS];
  int counts[2] = {0, 0};
  for (int output = 0; output < 2; ++output) {
    for (int index = 0; index < MOST_TENSORS; ++index) {
      int64_t shape[MOST_AXES];
      int type = 0;
      if (api.tensor(output, index, shape, &type) < 0) break;
      const size_t bytes = bytes_of(output, index);
      tensors[output][index] = malloc(bytes + 1);
      if (tensors[output][index] == NULL) return fail(folder, "there is no memory");
      if (!output && transfer(folder, 0, index, tensors[0][index], bytes) != 0) return 1;
      ++counts[output];
    }
  }
  if (api.run(model, (const void* const*)tensors[0], tensors[1]) != INFC_MODEL_OK) {
    return fail("a kernel fails", api.message(model));
  }
  for (int output = 0; output < 2; ++output) {
    for (int index = 0; index < counts[output]; ++index) {
      if (output && transfer(folder, 1, index, tensors[1][index], bytes_of(1, index)) != 0) return 1;
      free(tensors[output][index]);
    }
  }
  return 0;
}

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  if (open_model(argv[1]) != 0) return 1;
  if (argc == 2) {
    describe();
    return 0;
  }
  infc_model* model = NULL;
  const int status = make_model(atoi(argv[2]), &model);
  if (status == INFC_MODEL_WRONG_CPU) {
    return fail("the model", "the kernels use instructions that this processor does not have");
  }
  if (status != INFC_MODEL_OK) return fail("the model", "there is no memory for it");
  for (int i = 3; i < argc; ++i) {
    if (run_folder(model, argv[i]) != 0) return 1;
  }
  api.destroy(model);
  return 0;
}
