#pragma once

// BodyLog: the bodies of the replies executed last, one stream of bytes over objects (slot_layout.hpp). The last
// bytes_max of it are kept; a body whose first byte is older is gone. So what is kept depends on the appends alone.
//
// One thread, that of the store's head. The store must outlive it, and have room for what reserve() says. A full chunk
// is written when it is full, the rest by save(). Reading never needs more memory than the body.

#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "execution/slot_layout.hpp"
#include "execution/state/object_store.hpp"

namespace zz::execution {

class BodyLog {
 public:
  BodyLog(state::ObjectStore& store, std::uint64_t bytes_max) : store_(store), bytes_max_(bytes_max) {}
  BodyLog(const BodyLog&) = delete;
  BodyLog& operator=(const BodyLog&) = delete;

  // Its position; nothing when it is longer than the log or a length can say.
  std::optional<std::uint64_t> append(ByteView body);
  // The body, or the parts that are absent. Neither: it is gone.
  struct Found {
    std::optional<SharedBytes> body;
    std::vector<state::Want> missing;
  };
  [[nodiscard]] Found read(std::uint64_t position, std::uint32_t length) const;

  [[nodiscard]] std::uint64_t end() const { return end_; }
  // Before it everything is gone.
  [[nodiscard]] std::uint64_t front() const { return end_ > bytes_max_ ? end_ - bytes_max_ : 0; }

  void save();
  // As save() left it. Nothing read before stays. False: the tail is not what this end demands.
  [[nodiscard]] bool load(std::uint64_t end, const SharedBytes& tail);

  // What it may need of the store at most.
  static state::Totals reserve(std::uint64_t bytes_max);

 private:
  state::ObjectStore& store_;
  std::uint64_t bytes_max_;
  std::uint64_t end_ = 0;
  Bytes tail_;  // from the last chunk boundary to the end
};

}  // namespace zz::execution
