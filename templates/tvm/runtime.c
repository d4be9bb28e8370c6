/* Runs a plan: C99 with the atomics of GCC and Clang; POSIX threads unless INFC_NO_THREADS.
 *
 * INFC_NO_MALLOC leaves out infc_model_create's memory: infc_model_place is given it. With
 * INFC_FREESTANDING no header is needed but those that every compiler brings.
 *
 * The kernels are TVM's: each takes DLPack tensors packed as TVM FFI values, and asks for threads
 * through TVMBackendParallelLaunch. Sources: tvm/ffi/c_api.h, tvm/runtime/base.h, dlpack.h.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif
#include "infc_model.h"
#include "plan.h"

#ifdef INFC_FREESTANDING
/* A compiler calls these by itself: they are there without a C library, too. */
void* memcpy(void* to, const void* from, size_t bytes);
void* memset(void* to, int value, size_t bytes);
#else
#include <string.h>
#endif
#ifndef INFC_NO_MALLOC
#include <stdlib.h>
#endif

#ifndef INFC_NO_THREADS
#include <pthread.h>
#include <time.h>
#include <unistd.h>
#endif

#ifdef INFC_NO_THREADS
enum { MESSAGE_BYTES = 128, HEADER_BYTES = 192 };
#else
enum { MESSAGE_BYTES = 512, HEADER_BYTES = 1024 };
#endif
enum { ALIGNMENT = 64, TENSOR_POINTER = 7, CPU = 1, MAX_THREADS = 256 };

typedef struct {
  int32_t type;
  int32_t id;
} Device;

typedef struct {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
} Type;

typedef struct {
  void* data;
  Device device;
  int32_t rank;
  Type type;
  int64_t* shape;
  int64_t* strides;
  uint64_t offset;
} Tensor; /* DLTensor */

typedef struct {
  void* sync;
  int32_t tasks;
} Group; /* TVMParallelGroupEnv */

typedef int (*Task)(int task, Group* group, void* data);

#ifndef INFC_NO_THREADS
typedef struct {
  pthread_t thread;
  struct infc_model* model;
  int task;
} Worker;
#endif

struct infc_model {
  Tensor* tensors;
  infc_any* arguments;
  unsigned char* staging; /* of inputs and outputs that are not aligned */
  int owned;
  int threads;
  int failed;
  char message[MESSAGE_BYTES];
#ifndef INFC_NO_THREADS
  Worker* workers;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  int started;
  int stopping;
  int waiting;         /* threads that sleep, and have to be woken */
  unsigned generation; /* counts the launches */
  int left;            /* workers that are not done with this one */
  Task task;
  void* data;
#endif
};

/* What infc reckons with when it says how much memory a model takes: plan.h, infc_place_bytes. */
typedef char header_fits[sizeof(infc_model) <= HEADER_BYTES ? 1 : -1];
typedef char tensor_is[sizeof(Tensor) == (sizeof(void*) == 8 ? 48 : 40) ? 1 : -1];
typedef char any_is[sizeof(infc_any) == 16 ? 1 : -1];

#ifndef INFC_NO_THREADS
static __thread infc_model* current;
#else
static infc_model* current;
#endif

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

int infc_model_abi(void) { return INFC_MODEL_ABI; }

size_t infc_model_weight_bytes(void) { return infc_weight_bytes; }

int infc_model_tensor(int output, int index, int64_t* shape, int* type) {
  const uint8_t place = output ? INFC_OUTPUT : INFC_INPUT;
  for (size_t i = 0; i < infc_tensor_count; ++i) {
    const infc_plan_tensor* row = &infc_tensors[i];
    if (row->place != place || row->at != (uint64_t)index) continue;
    memcpy(shape, &infc_shapes[row->shape], row->rank * sizeof *shape);
    *type = row->type_code * 256 + row->bits;
    return row->rank;
  }
  return -1;
}

size_t infc_model_bytes(void) { return infc_place_bytes; }

/* What a kernel says before it returns an error; the first one counts. */
static void say(const char* kind, const char** parts, int32_t count) {
  infc_model* model = current;
  if (model == NULL || __atomic_exchange_n(&model->failed, 1, __ATOMIC_ACQ_REL)) return;
  size_t at = 0;
  for (int32_t i = -1; i < count; ++i) {
    const char* part = i < 0 ? kind : parts[i];
    if (i == 0 && at + 2 < MESSAGE_BYTES) {
      model->message[at++] = ':';
      model->message[at++] = ' ';
    }
    for (; part != NULL && *part != 0 && at + 1 < MESSAGE_BYTES; ++part) {
      model->message[at++] = *part;
    }
  }
  model->message[at] = 0;
}

/* Called by the kernels. */
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count);
void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message);
int TVMBackendParallelLaunch(Task task, void* data, int tasks);

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  say(kind, parts, count);
}

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  say(kind, &message, 1);
}

#ifdef INFC_NO_THREADS

int TVMBackendParallelLaunch(Task task, void* data, int tasks) {
  (void)tasks;
  Group group = {NULL, 1};
  return task(0, &group, data);
}

#ifndef INFC_NO_MALLOC
static int start_threads(infc_model* model, int threads) {
  (void)threads;
  model->threads = 1;
  return INFC_MODEL_OK;
}

static void stop_threads(infc_model* model) { (void)model; }
#endif

#else

enum { SPINS = 4096 }; /* some tens of microseconds: kernels follow each other faster than that */

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
  __asm__ __volatile__("yield");
#endif
}

static void work(infc_model* model, int task) {
  Group group = {NULL, model->threads};
  if (model->task(task, &group, model->data) != 0 && model->message[0] == 0) {
    say("error", NULL, 0);
  }
}

static void* serve(void* argument) {
  Worker* self = argument;
  infc_model* model = self->model;
  current = model;
  unsigned seen = 0;
  for (;;) {
    int spins = SPINS;
    while (__atomic_load_n(&model->generation, __ATOMIC_ACQUIRE) == seen && spins-- > 0) {
      pause_briefly();
    }
    if (__atomic_load_n(&model->generation, __ATOMIC_ACQUIRE) == seen) {
      pthread_mutex_lock(&model->lock);
      ++model->waiting;
      while (__atomic_load_n(&model->generation, __ATOMIC_ACQUIRE) == seen) {
        pthread_cond_wait(&model->wake, &model->lock);
      }
      --model->waiting;
      pthread_mutex_unlock(&model->lock);
    }
    seen = __atomic_load_n(&model->generation, __ATOMIC_ACQUIRE);
    if (__atomic_load_n(&model->stopping, __ATOMIC_ACQUIRE)) return NULL;
    work(model, self->task);
    __atomic_sub_fetch(&model->left, 1, __ATOMIC_ACQ_REL);
  }
}

static void begin(infc_model* model) {
  pthread_mutex_lock(&model->lock);
  __atomic_add_fetch(&model->generation, 1, __ATOMIC_ACQ_REL);
  if (model->waiting > 0) pthread_cond_broadcast(&model->wake);
  pthread_mutex_unlock(&model->lock);
}

int TVMBackendParallelLaunch(Task task, void* data, int tasks) {
  infc_model* model = current;
  (void)tasks;
  if (model->threads == 1) {
    Group group = {NULL, 1};
    return task(0, &group, data);
  }
  model->task = task;
  model->data = data;
  __atomic_store_n(&model->left, model->threads - 1, __ATOMIC_RELEASE);
  begin(model);
  work(model, 0);
  for (unsigned spins = 0; __atomic_load_n(&model->left, __ATOMIC_ACQUIRE) != 0; ++spins) {
    if (spins < SPINS) {
      pause_briefly();
    } else {
      const struct timespec moment = {0, 0};
      nanosleep(&moment, NULL); /* there are fewer cores than threads */
    }
  }
  return __atomic_load_n(&model->failed, __ATOMIC_ACQUIRE) ? -1 : 0;
}

static void stop_threads(infc_model* model) {
  if (model->workers == NULL) return;
  __atomic_store_n(&model->stopping, 1, __ATOMIC_RELEASE);
  begin(model);
  for (int i = 0; i < model->started; ++i) pthread_join(model->workers[i].thread, NULL);
  free(model->workers);
  pthread_cond_destroy(&model->wake);
  pthread_mutex_destroy(&model->lock);
}

static int start_threads(infc_model* model, int threads) {
  if (threads <= 0) threads = (int)sysconf(_SC_NPROCESSORS_ONLN);
  if (threads < 1) threads = 1;
  if (threads > MAX_THREADS) threads = MAX_THREADS;
  model->threads = threads;
  if (threads == 1) return INFC_MODEL_OK;
  model->workers = calloc((size_t)threads - 1, sizeof(Worker));
  if (model->workers == NULL) return INFC_MODEL_NO_MEMORY;
  pthread_mutex_init(&model->lock, NULL);
  pthread_cond_init(&model->wake, NULL);
  for (; model->started < threads - 1; ++model->started) {
    Worker* worker = &model->workers[model->started];
    worker->model = model;
    worker->task = model->started + 1;
    if (pthread_create(&worker->thread, NULL, serve, worker) != 0) return INFC_MODEL_NO_MEMORY;
  }
  return INFC_MODEL_OK;
}

#endif

/* What a kernel needs for a tile that is too large for the stack, a piece for each thread. */
#ifndef INFC_SCRATCH_BYTES
#define INFC_SCRATCH_BYTES 65536
#endif

#if INFC_SCRATCH_BYTES > 0
#ifdef INFC_NO_THREADS
#define PER_THREAD
#else
#define PER_THREAD __thread
#endif

static PER_THREAD unsigned char scratch[INFC_SCRATCH_BYTES] __attribute__((aligned(64)));
static PER_THREAD size_t scratch_used;

static void* take_scratch(int device, int id, uint64_t bytes, int code, int bits) {
  (void)device;
  (void)id;
  (void)code;
  (void)bits;
  if (bytes > INFC_SCRATCH_BYTES - scratch_used) {
    say("a kernel needs more scratch memory than it may have", NULL, 0);
    return NULL;
  }
  void* taken = scratch + scratch_used;
  scratch_used += aligned((size_t)bytes);
  if (scratch_used > INFC_SCRATCH_BYTES) scratch_used = INFC_SCRATCH_BYTES;
  return taken;
}

/* Kernels give back in the opposite order. */
static int give_scratch(int device, int id, void* taken) {
  (void)device;
  (void)id;
  scratch_used = (size_t)((unsigned char*)taken - scratch);
  return 0;
}
#endif

#ifdef INFC_DIVISION
/* What LLVM calls where an Arm processor cannot divide; the ABI has other names for it. */
#define DIVISION(name, type, operator)             \
  __attribute__((weak)) type name(type a, type b); \
  __attribute__((weak)) type name(type a, type b) { return a operator b; }
DIVISION(__divsi3, int32_t, /)
DIVISION(__udivsi3, uint32_t, /)
DIVISION(__modsi3, int32_t, %)
DIVISION(__umodsi3, uint32_t, %)
DIVISION(__divdi3, int64_t, /)
DIVISION(__udivdi3, uint64_t, /)
DIVISION(__moddi3, int64_t, %)
DIVISION(__umoddi3, uint64_t, %)
#endif

#ifdef INFC_CONVERSIONS
/* The same for integers of 64 bits made from floats, and the other way. */
#define CONVERSION(name, from, to)             \
  __attribute__((weak)) to name(from value);   \
  __attribute__((weak)) to name(from value) { return (to)value; }
CONVERSION(__fixsfdi, float, int64_t)
CONVERSION(__fixdfdi, double, int64_t)
CONVERSION(__fixunssfdi, float, uint64_t)
CONVERSION(__fixunsdfdi, double, uint64_t)
CONVERSION(__floatdisf, int64_t, float)
CONVERSION(__floatdidf, int64_t, double)
CONVERSION(__floatundisf, uint64_t, float)
CONVERSION(__floatundidf, uint64_t, double)
#endif

#ifdef INFC_FREESTANDING
/* Tables for exceptions, which the kernels never throw, name these. */
__attribute__((weak)) void __aeabi_unwind_cpp_pr0(void);
__attribute__((weak)) void __aeabi_unwind_cpp_pr0(void) {}
__attribute__((weak)) void __aeabi_unwind_cpp_pr1(void);
__attribute__((weak)) void __aeabi_unwind_cpp_pr1(void) {}
#endif

/* Weak symbols of the kernels, through which they call. */
int (*__TVMBackendParallelLaunch)(Task, void*, int) = TVMBackendParallelLaunch;
#if INFC_SCRATCH_BYTES > 0
void* (*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = take_scratch;
int (*__TVMBackendFreeWorkspace)(int, int, void*) = give_scratch;
#endif

int infc_model_place(void* memory, size_t bytes, infc_model** made) {
  *made = NULL;
  if (memory == NULL || bytes < infc_model_bytes() || (uintptr_t)memory % ALIGNMENT != 0) {
    return INFC_MODEL_NO_SPACE;
  }
  if (!infc_cpu_fits()) return INFC_MODEL_WRONG_CPU;
  unsigned char* at = memory;
  infc_model* model = memory;
  memset(model, 0, sizeof *model);
  at += HEADER_BYTES;
  model->tensors = (Tensor*)(void*)at;
  at += aligned(infc_tensor_count * sizeof(Tensor));
  model->arguments = (infc_any*)(void*)at;
  at += aligned(infc_most_operands * sizeof(infc_any));
  unsigned char* arena = at;
  at += aligned(infc_arena_bytes);
  model->staging = at;
  model->threads = 1;
  for (size_t i = 0; i < infc_tensor_count; ++i) {
    const infc_plan_tensor* row = &infc_tensors[i];
    Tensor* tensor = &model->tensors[i];
    memset(tensor, 0, sizeof *tensor);
    if (row->place == INFC_CONSTANT) tensor->data = (void*)(uintptr_t)(infc_weights + row->at);
    if (row->place == INFC_ARENA) tensor->data = arena + row->at;
    tensor->device.type = CPU;
    tensor->rank = row->rank;
    tensor->type.code = row->type_code;
    tensor->type.bits = row->bits;
    tensor->type.lanes = 1;
    tensor->shape = (int64_t*)(uintptr_t)&infc_shapes[row->shape]; /* DLPack's is not const */
  }
  *made = model;
  return INFC_MODEL_OK;
}

int infc_model_create(int threads, infc_model** made) {
  *made = NULL;
#ifdef INFC_NO_MALLOC
  (void)threads;
  return INFC_MODEL_NO_MEMORY;
#else
  const size_t bytes = aligned(infc_model_bytes());
  void* memory = NULL;
  if (posix_memalign(&memory, ALIGNMENT, bytes) != 0) return INFC_MODEL_NO_MEMORY;
  int status = infc_model_place(memory, bytes, made);
  if (status != INFC_MODEL_OK) {
    free(memory);
    return status;
  }
  (*made)->owned = 1;
  status = start_threads(*made, threads);
  if (status != INFC_MODEL_OK) {
    infc_model_destroy(*made);
    *made = NULL;
  }
  return status;
#endif
}

void infc_model_destroy(infc_model* model) {
  if (model == NULL) return;
#ifndef INFC_NO_MALLOC
  stop_threads(model);
  if (model->owned) free(model);
#endif
}

const char* infc_model_message(const infc_model* model) { return model->message; }

/* Where the tensors that are the caller's lie for this run: there, or, not aligned, in staging. */
static void bind(infc_model* model, const void* const* inputs, void* const* outputs) {
  unsigned char* at = model->staging;
  for (size_t i = 0; i < infc_tensor_count; ++i) {
    const infc_plan_tensor* row = &infc_tensors[i];
    if (row->place != INFC_INPUT && row->place != INFC_OUTPUT) continue;
    void* data = row->place == INFC_INPUT ? (void*)(uintptr_t)inputs[row->at] : outputs[row->at];
    if ((uintptr_t)data % ALIGNMENT != 0 || data == NULL) {
      if (row->place == INFC_INPUT && row->bytes != 0) memcpy(at, data, row->bytes);
      data = at;
    }
    at += aligned(row->bytes);
    model->tensors[i].data = data;
  }
}

static void unbind(infc_model* model, void* const* outputs) {
  for (size_t i = 0; i < infc_copy_count; ++i) {
    const infc_plan_copy* copy = &infc_copies[i];
    memcpy(model->tensors[copy->to].data, model->tensors[copy->from].data,
           infc_tensors[copy->to].bytes);
  }
  for (size_t i = 0; i < infc_tensor_count; ++i) {
    const infc_plan_tensor* row = &infc_tensors[i];
    if (row->place != INFC_OUTPUT || model->tensors[i].data == outputs[row->at]) continue;
    if (row->bytes != 0) memcpy(outputs[row->at], model->tensors[i].data, row->bytes);
  }
}

int infc_model_run(infc_model* model, const void* const* inputs, void* const* outputs) {
  infc_model* before = current;
  current = model;
  model->failed = 0;
  model->message[0] = 0;
  bind(model, inputs, outputs);
  int status = INFC_MODEL_OK;
  for (size_t i = 0; i < infc_call_count && status == INFC_MODEL_OK; ++i) {
    const infc_plan_call* call = &infc_calls[i];
    for (uint32_t k = 0; k < call->count; ++k) {
      infc_any* argument = &model->arguments[k];
      argument->type_index = TENSOR_POINTER;
      argument->padding = 0;
      argument->value.pointer = &model->tensors[infc_operands[call->operands + k]];
    }
    infc_any result = {0, 0, {0}};
    if (call->kernel(NULL, model->arguments, (int32_t)call->count, &result) != 0) {
      if (model->message[0] == 0) say(call->name, NULL, 0);
      status = INFC_MODEL_FAILED;
    }
  }
  if (status == INFC_MODEL_OK) unbind(model, outputs);
  current = before;
  return status;
}
