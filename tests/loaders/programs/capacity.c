/* Outputs whose size only the run tells, with too little room and then enough. */
#include <stdio.h>

#include "finder.h"

int main(int argc, char** argv) {
  const float x[8] = {0, 1, 0, 2, 3, 0, 0, 4};
  int64_t places[2 * 8];
  float values[8];
  int64_t places_shape[FINDER_OUTPUT_PLACES_RANK], values_shape[FINDER_OUTPUT_VALUES_RANK];
  finder_model* model = NULL;
  int status, i;
  if (argc != 2 || finder_load(argv[1], NULL, &model) != FINDER_OK) {
    fprintf(stderr, "%s\n", finder_last_error());
    return 1;
  }
  status = finder_run(model, 2, x, places, 3, places_shape, values, 8, values_shape);
  printf("%d %s, needs %d x %d\n", status, finder_last_error(), (int)places_shape[0],
         (int)places_shape[1]);
  status = finder_run(model, 2, x, places, 8, places_shape, values, 8, values_shape);
  printf("%d:", status);
  for (i = 0; i < 8; ++i) printf(" %d", (int)places[i]);
  for (i = 0; i < (int)values_shape[0]; ++i) printf(" %g", values[i]);
  status = finder_run(model, 2, x, places, 8, NULL, values, 8, values_shape);
  printf("\n%d %s\n", status, finder_last_error());
  finder_free(model);
  return 0;
}
