#pragma once

// EventQueue: what happens when, in virtual time. Equal times come in the order in which they were put in. Payloads are
// kept in a pool, so that the heap moves small keys only. One thread.

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "base/assert.hpp"
#include "base/ids.hpp"

namespace zz::sim {

template <class Payload>
class EventQueue {
 public:
  void push(Micros time, Payload payload) {
    std::uint32_t place = 0;
    if (free_.empty()) {
      place = static_cast<std::uint32_t>(pool_.size());
      pool_.push_back(std::move(payload));
    } else {
      place = free_.back();
      free_.pop_back();
      pool_[place] = std::move(payload);
    }
    ZZ_ASSERT(place <= kPlaceMask);
    heap_.push_back({time.value, order_++ << kPlaceBits | place});
    std::push_heap(heap_.begin(), heap_.end(), Later{});
  }

  [[nodiscard]] bool empty() const { return heap_.empty(); }
  // Requires !empty().
  [[nodiscard]] Micros next_time() const { return Micros{heap_.front().time}; }
  Payload pop() {
    ZZ_ASSERT(!heap_.empty());
    std::pop_heap(heap_.begin(), heap_.end(), Later{});
    const auto place = static_cast<std::uint32_t>(heap_.back().order_and_place & kPlaceMask);
    heap_.pop_back();
    free_.push_back(place);
    return std::move(pool_[place]);
  }

 private:
  // The order in which it was put in comes first, so that equal times never come down to the place in the pool.
  static constexpr unsigned kPlaceBits = 24;
  static constexpr std::uint64_t kPlaceMask = (std::uint64_t{1} << kPlaceBits) - 1;
  struct Key {
    std::int64_t time;
    std::uint64_t order_and_place;
  };
  struct Later {  // a type of its own, not a function pointer: the heap's loops take it inline
    bool operator()(const Key& a, const Key& b) const {
      return a.time != b.time ? a.time > b.time : a.order_and_place > b.order_and_place;
    }
  };

  std::vector<Key> heap_;
  std::vector<Payload> pool_;
  std::vector<std::uint32_t> free_;
  std::uint64_t order_ = 0;
};

}  // namespace zz::sim
