// A model that TVM made for one processor, linked in.
//
// Its functions begin with its name; sdk.cmake writes the ones below, which call them.
#include <string>

#include "adaptor/session.h"
#include "runtime/adaptor.h"

extern "C" {
int infc_model_abi(void);
std::size_t infc_model_bytes(void);
int infc_model_tensor(int, int, std::int64_t*, int*);
int infc_model_create(int, infc_model**);
int infc_model_place(void*, std::size_t, infc_model**);
int infc_model_run(infc_model*, const void* const*, void* const*);
const char* infc_model_message(const infc_model*);
void infc_model_destroy(infc_model*);
}

namespace infc {

const char* runtime_name() { return "the model, linked in"; }

// There is no runtime: what could be of another version is in the library, and asked when it opens.
std::string runtime_version() { return "0.27"; }

bool accepts(Version, Version) { return true; }

std::string accepted(Version) { return "any"; }

std::unique_ptr<Session> open(const infc_bundle& bundle, const Settings& settings) {
  if (infc_model_abi() != kModelAbi) {
    throw Error("the model that is linked in has interface " + std::to_string(infc_model_abi()) +
                ", this loader takes " + std::to_string(kModelAbi));
  }
  ModelApi api;
  api.create = infc_model_create;
  api.bytes = infc_model_bytes;
  if (std::string(setting(bundle, "threads", "any")) == "0") api.place = infc_model_place;
  api.run = infc_model_run;
  api.message = infc_model_message;
  api.destroy = infc_model_destroy;
  api.tensor = infc_model_tensor;
  return std::make_unique<TvmSession>(bundle, settings, api);
}

}  // namespace infc
