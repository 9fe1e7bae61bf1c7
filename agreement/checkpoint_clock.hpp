#pragma once

// CheckpointClock: which batches are checkpoints (docs/protocol.md §6). The same class at nodes and executors, and a
// function of the ordered content alone, so that all agree. At a checkpoint it is as it was at the beginning.

#include <cstddef>
#include <cstdint>

namespace zz::agreement {

struct CheckpointRules {
  std::uint32_t batches = 128;
  std::uint32_t requests = 10'000;
  std::uint64_t bytes = 64u << 20;  // of operations
};

class CheckpointClock {
 public:
  explicit CheckpointClock(const CheckpointRules& rules) : rules_(rules) {}

  // The next batch in order. True: it is a checkpoint.
  bool passed(std::size_t requests, std::uint64_t bytes) {
    ++batches_;
    requests_ += requests;
    bytes_ += bytes;
    const bool due = batches_ >= rules_.batches || requests_ >= rules_.requests || bytes_ >= rules_.bytes;
    if (due) reset();
    return due;
  }
  void reset() { batches_ = requests_ = bytes_ = 0; }

 private:
  CheckpointRules rules_;
  std::uint64_t batches_ = 0;  // since the last checkpoint
  std::uint64_t requests_ = 0;
  std::uint64_t bytes_ = 0;
};

}  // namespace zz::agreement
