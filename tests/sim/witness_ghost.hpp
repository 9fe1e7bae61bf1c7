#pragma once

// What the parts of the witness share: who is correct, the first violation, and a table by batch number.

#include <bit>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "agreement/messages.hpp"
#include "crypto/cluster.hpp"

namespace zz::sim {

// A set of nodes or slots; bit i is number i.
using Mask = std::uint32_t;
inline Mask bit_of(NodeId node) { return node.value < 32 ? Mask{1} << node.value : 0; }
inline Mask bit_of(SlotId slot) { return slot.value < 32 ? Mask{1} << slot.value : 0; }
inline std::uint32_t size_of(Mask mask) { return static_cast<std::uint32_t>(std::popcount(mask)); }

struct Ghost {
  const crypto::ClusterFile& cluster;
  ServiceId service;
  std::uint32_t f = 1;
  std::uint32_t g = 1;
  std::uint32_t nodes = 4;
  Mask correct = 0;  // nodes that are neither Byzantine nor have lost what they promised
  Mask wrong_slots = 0;
  std::optional<std::string> violation;

  [[nodiscard]] bool is_correct(NodeId node) const { return (correct & bit_of(node)) != 0; }
  [[nodiscard]] bool is_correct(SlotId slot) const { return (wrong_slots & bit_of(slot)) == 0; }
  [[nodiscard]] NodeId primary_of(View view) const {
    return NodeId{static_cast<std::uint16_t>((service.value + view.value) % nodes)};
  }

  // The first one stays.
  void fail(std::string_view what, std::string_view where) {
    if (violation) return;
    violation = std::string(what);
    violation->append(", ").append(where);
  }
};

inline std::string at(Seq n) { return "n=" + std::to_string(n.value); }
inline std::string at(NodeId node, Seq n) { return "node " + std::to_string(node.value) + ", " + at(n); }
inline std::string at(NodeId node, View view) {
  return "node " + std::to_string(node.value) + ", view " + std::to_string(view.value);
}
inline std::string at(NodeId node, View view, Seq n) { return at(node, view) + ", " + at(n); }
inline std::string at(SlotId slot, Incarnation incarnation) {
  return "slot " + std::to_string(slot.value) + ", incarnation " + std::to_string(incarnation.value);
}
inline std::string at(ClientId client, SessionId session, RequestNumber number) {
  return "client " + std::to_string(client.value) + ", session " + std::to_string(session.value) + ", request " +
         std::to_string(number.value);
}

// A T for every n above pruned().
template <class T>
class ByNumber {
 public:
  [[nodiscard]] Seq pruned() const { return Seq{base_}; }
  [[nodiscard]] Seq last() const { return Seq{base_ + items_.size()}; }
  [[nodiscard]] T* find(Seq n) { return n.value > base_ && n <= last() ? &items_[n.value - base_ - 1] : nullptr; }
  [[nodiscard]] const T* find(Seq n) const {
    return n.value > base_ && n <= last() ? &items_[n.value - base_ - 1] : nullptr;
  }
  // Makes room up to n, which the caller has bounded. Requires n > pruned().
  T& at(Seq n) {
    if (n > last()) items_.resize(n.value - base_);
    return items_[n.value - base_ - 1];
  }
  void prune(Seq through) {
    for (; base_ < through.value; ++base_) {
      if (!items_.empty()) items_.pop_front();
    }
  }

 private:
  std::uint64_t base_ = 0;
  std::deque<T> items_;
};

// A batch of the one order: as the first correct node delivered it.
struct GhostBatch {
  Seq n;
  Digest digest;
  Digest history;
  Digest results;  // R of n, from the reference run
  Micros time;
  agreement::HeaderPtr header;
  std::vector<agreement::RequestPtr> requests;
};

}  // namespace zz::sim
