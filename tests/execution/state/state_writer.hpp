#pragma once

// The states that state_writer persists.

#include "tests/execution/state/store_test_model.hpp"

namespace zz::execution::state::testing {

inline Bytes label_of(std::uint64_t round) {
  const std::string text = std::to_string(round);
  return {text.begin(), text.end()};
}
inline std::uint64_t round_of(const Bytes& label) { return std::stoull(std::string(label.begin(), label.end())); }

inline void advance(Model& model, std::uint64_t seed, std::uint64_t round, ObjectStore* store) {
  Prng prng(seed * 1'000'003 + round);
  for (int i = 0; i < 40; ++i) {
    const std::uint64_t id = random_id(prng);
    if (prng.below(4) == 0) {
      model.erase(id);
      if (store != nullptr) static_cast<void>(store->erase(ObjectId{id}));
    } else {
      Bytes bytes = random_bytes(prng, 9'000);
      if (store != nullptr) static_cast<void>(store->write(ObjectId{id}, bytes));
      model[id] = std::move(bytes);
    }
  }
}

}  // namespace zz::execution::state::testing
