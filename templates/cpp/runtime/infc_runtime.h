/* What lies under every generated loader: open, run, close, error.
 *
 * The same for all models and all back ends, and internal to a loader: its symbols are hidden, so
 * that the loaders of several models can live in one process.
 */
#ifndef INFC_RUNTIME_H
#define INFC_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define INFC_OK 0
#define INFC_FAILED 1
#define INFC_TOO_SMALL 2

/* An axis of a tensor: its size, or one of these. */
#define INFC_DIM(i) (-1 - (int64_t)(i)) /* dimension i of the run */
#define INFC_UNKNOWN INT64_MIN          /* only the run tells */

typedef enum infc_dtype {
  INFC_FLOAT32,
  INFC_FLOAT64,
  INFC_FLOAT16,
  INFC_BFLOAT16,
  INFC_INT8,
  INFC_INT16,
  INFC_INT32,
  INFC_INT64,
  INFC_UINT8,
  INFC_UINT16,
  INFC_UINT32,
  INFC_UINT64,
  INFC_BOOL
} infc_dtype;

/* A dynamic dimension, and the values `run` takes for it. */
typedef struct infc_dim {
  const char* name;
  int64_t low;
  int64_t high;
} infc_dim;

/* An input or output. A `rank` of -1 is unknown, and `axes` NULL. */
typedef struct infc_tensor {
  const char* name;
  infc_dtype dtype;
  int32_t rank;
  const int64_t* axes;
} infc_tensor;

typedef struct infc_file {
  const char* name; /* relative to the folder `model` */
  const char* sha256; /* "" where the file was still to be built when this was generated */
} infc_file;

typedef struct infc_setting {
  const char* key;
  const char* value;
} infc_setting;

/* What the builder of an artifact is told of one input, for one of its profiles: the least, the
 * typical and the greatest of `count` numbers, those of its shape or those it contains. */
typedef struct infc_range {
  const char* input;
  int32_t profile;
  int32_t of_contents;
  size_t count;
  const int64_t* low;
  const int64_t* typical;
  const int64_t* high;
} infc_range;

struct infc_bundle;

/* How the artifact is built where it is to run. `files` are relative to the bundle's folder; the
 * first one is the graph, the others lie beside it. `build` is the adaptor's, and throws: what it
 * writes to `entry` is whole or not there. */
typedef struct infc_recipe {
  const infc_file* files;
  size_t file_count;
  const infc_setting* settings;
  size_t setting_count;
  int32_t profile_count;
  const infc_range* ranges;
  size_t range_count;
  void (*build)(const struct infc_bundle* bundle, const char* graph, const char* entry,
                const char* device);
} infc_recipe;

/* What a loader knows of the artifact it was generated for. */
typedef struct infc_bundle {
  const char* name;
  const char* infc_version;
  const char* runtime_version; /* that the artifact was built with */
  const char* device;
  const char* precision; /* fp32, fp16, bf16, int8 */
  const char* entry;     /* the file to open */
  const infc_file* files;
  size_t file_count;
  const infc_setting* settings; /* the back end's options */
  size_t setting_count;
  const infc_dim* dims;
  size_t dim_count;
  const infc_tensor* inputs;
  size_t input_count;
  const infc_tensor* outputs;
  size_t output_count;
  const infc_recipe* recipe; /* NULL where the bundle was compiled with its artifact */
} infc_bundle;

typedef struct infc_options {
  int32_t threads;
  const char* device;
  int32_t skip_hash_check;
  int32_t cuda_graph;
} infc_options;

/* Where an output goes. The rest is for an output whose shape only the run tells: `capacity` in
 * elements, room for the shape, and for the rank where that is unknown too. */
typedef struct infc_output {
  void* data;
  size_t capacity;
  int64_t* shape;
  int32_t* rank;
} infc_output;

typedef struct infc_model infc_model;

/* The room for the shape of an output of unknown rank. */
#define INFC_MAX_RANK 8

int infc_build(const infc_bundle* bundle, const char* path, const infc_options* options);
int infc_open(const infc_bundle* bundle, const char* path, const infc_options* options,
              infc_model** model);
int infc_run(infc_model* model, const int64_t* dims, const void* const* inputs,
             const infc_output* outputs);
void infc_close(infc_model* model);
const char* infc_error(void);
const char* infc_version(const infc_bundle* bundle);

#ifdef __cplusplus
}
#endif

#endif
