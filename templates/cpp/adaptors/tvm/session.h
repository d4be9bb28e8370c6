// A model that TVM compiled for one processor, behind its functions, whether they were found in a
// library that was opened or are linked in.
#ifndef INFC_TVM_SESSION_H
#define INFC_TVM_SESSION_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/adaptor.h"

struct infc_model;

namespace infc {

constexpr int kModelAbi = 1;

// infc_model.h, by name. `place` is for a model that allocates nothing; null where it does.
struct ModelApi {
  int (*create)(int, infc_model**) = nullptr;
  std::size_t (*bytes)() = nullptr;
  int (*place)(void*, std::size_t, infc_model**) = nullptr;
  int (*run)(infc_model*, const void* const*, void* const*) = nullptr;
  const char* (*message)(const infc_model*) = nullptr;
  void (*destroy)(infc_model*) = nullptr;
  int (*tensor)(int, int, std::int64_t*, int*) = nullptr;
};

class TvmSession : public Session {
 public:
  TvmSession(const infc_bundle& bundle, const Settings& settings, const ModelApi& api)
      : bundle_(bundle), api_(api) {
    if (settings.device != "CPU") throw Error("there is no device `" + settings.device + "`");
    const int status = make(settings.threads);
    if (status == kNoMemory) throw Error("there is no memory for the model, or for a thread of it");
    if (status == kWrongCpu) throw Error("the model was compiled for another processor");
    if (status != kOk) throw Error("the model cannot be made: error " + std::to_string(status));
    inputs_.resize(bundle.input_count);
    outputs_.resize(bundle.output_count);
    answers_.resize(bundle.output_count);
    for (std::size_t i = 0; i < bundle.output_count; ++i) describe(i);
  }
  ~TvmSession() override {
    if (model_ != nullptr) api_.destroy(model_);
  }

  void run(const Input* inputs, Output* outputs) override {
    for (std::size_t i = 0; i < bundle_.input_count; ++i) inputs_[i] = inputs[i].data;
    for (std::size_t i = 0; i < bundle_.output_count; ++i) {
      Answer& answer = answers_[i];
      if (outputs[i].known) {
        outputs_[i] = outputs[i].data;
      } else {
        answer.memory.resize(answer.bytes);
        outputs_[i] = answer.memory.data();
      }
    }
    if (api_.run(model_, inputs_.data(), outputs_.data()) != kOk) {
      throw Error(std::string("a kernel of the model fails: ") + api_.message(model_));
    }
    for (std::size_t i = 0; i < bundle_.output_count; ++i) {
      const Answer& answer = answers_[i];
      if (!outputs[i].known) {
        outputs[i].deliver(answer.shape.data(), answer.shape.size(), answer.memory.data());
      }
    }
  }

 private:
  static constexpr int kMaxRank = 16;
  static constexpr std::size_t kAlignment = 64;
  enum Status { kOk = 0, kNoMemory = 1, kWrongCpu = 4 };

  struct Answer {
    std::vector<std::int64_t> shape;
    std::size_t bytes = 0;
    std::vector<unsigned char> memory;  // where the caller's is not known before the run
  };

  int make(int threads) {
    if (api_.place == nullptr) return api_.create(threads, &model_);
    memory_.resize(api_.bytes() + kAlignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.data());
    const std::size_t gap = (kAlignment - address % kAlignment) % kAlignment;
    return api_.place(memory_.data() + gap, memory_.size() - gap, &model_);
  }

  void describe(std::size_t output) {
    std::int64_t shape[kMaxRank];
    int type = 0;
    const int rank = api_.tensor(1, static_cast<int>(output), shape, &type);
    if (rank < 0) {
      api_.destroy(model_);
      throw Error("the model's library has fewer outputs than the bundle");
    }
    Answer& answer = answers_[output];
    answer.shape.assign(shape, shape + rank);
    answer.bytes = item_bytes(bundle_.outputs[output].dtype);
    for (const std::int64_t axis : answer.shape) answer.bytes *= static_cast<std::size_t>(axis);
  }

  const infc_bundle& bundle_;
  ModelApi api_;
  std::vector<unsigned char> memory_;  // of a model that allocates nothing
  infc_model* model_ = nullptr;
  std::vector<const void*> inputs_;
  std::vector<void*> outputs_;
  std::vector<Answer> answers_;
};

}  // namespace infc

#endif
