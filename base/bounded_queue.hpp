#pragma once

// BoundedQueue<T>: a FIFO that answers "full" instead of growing. One thread.

#include <cstddef>
#include <deque>
#include <utility>

#include "base/assert.hpp"

namespace zz {

template <class T>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t capacity) : capacity_(capacity) { ZZ_ASSERT(capacity > 0); }

  // False, and `item` dropped, when full.
  [[nodiscard]] bool push(T item) {
    if (full()) return false;
    items_.push_back(std::move(item));
    return true;
  }
  // Requires !empty().
  [[nodiscard]] T pop() {
    ZZ_ASSERT(!empty());
    T item = std::move(items_.front());
    items_.pop_front();
    return item;
  }
  [[nodiscard]] const T& front() const {
    ZZ_ASSERT(!empty());
    return items_.front();
  }
  [[nodiscard]] bool empty() const { return items_.empty(); }
  [[nodiscard]] bool full() const { return items_.size() >= capacity_; }
  [[nodiscard]] std::size_t size() const { return items_.size(); }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }

 private:
  std::size_t capacity_;
  std::deque<T> items_;
};

}  // namespace zz
