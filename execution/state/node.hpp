#pragma once

// Tree nodes of the object store, shared between its versions by reference counts.
//
// A leaf never changes its object: only where the bytes are (in memory, on disk, absent). An inner node changes in
// place only while one version alone holds it, or once, when an absent one is supplied. Digests are written by whoever
// claimed the node, once, and read by others after digest_state says kReady.

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

#include "execution/state/parts.hpp"

namespace zz::execution::state {

// A record on disk: its number, from 1; 0: none. Records of spilled objects live until the store closes, the others as
// long as a persisted snapshot or a version in memory needs them.
using Record = std::uint64_t;
constexpr Record kSpillBit = Record{1} << 63;

enum class DigestState : std::uint8_t { kNone, kClaimed, kReady };

constexpr std::uint32_t kNoSlot = ~std::uint32_t{0};

struct Node {
  explicit Node(const Place& place) : depth(place.depth), prefix(place.prefix) {}

  std::atomic<std::uint32_t> refs{1};
  const std::uint8_t depth;
  std::atomic<DigestState> digest_state{DigestState::kNone};
  std::atomic<bool> absent{false};
  std::atomic<bool> touched{false};  // leaf: read since the clock's hand passed
  const std::uint64_t prefix;
  Digest digest;
  std::atomic<Record> record{0};

  [[nodiscard]] Place place() const { return {prefix, depth}; }
  [[nodiscard]] bool is_leaf() const { return depth == kLeafDepth; }
  [[nodiscard]] bool digest_ready() const {
    return digest_state.load(std::memory_order_acquire) == DigestState::kReady;
  }
  [[nodiscard]] bool is_absent() const { return absent.load(std::memory_order_acquire); }
  // True for one caller, who then computes the digest.
  bool claim_digest() {
    DigestState expected = DigestState::kNone;
    return digest_state.compare_exchange_strong(expected, DigestState::kClaimed, std::memory_order_acquire);
  }
  void set_digest(const Digest& value) {
    digest = value;
    digest_state.store(DigestState::kReady, std::memory_order_release);
  }
};

struct Leaf : Node {
  Leaf(ObjectId id, std::uint32_t its_length) : Node(place_of(id)), length(its_length) {}
  std::shared_ptr<const std::uint8_t[]> bytes;  // Residency's; null: not in memory
  const std::uint32_t length;
  std::uint32_t slot = kNoSlot;  // Residency's
  [[nodiscard]] ObjectId id() const { return {prefix}; }
};

struct Inner : Node {
  using Node::Node;
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;
  std::unique_ptr<Node*[]> children;  // one reference each, in slot order; null: absent. Published by `absent`
  std::uint16_t bitmap = 0;           // of the slots that are there

  [[nodiscard]] unsigned count() const { return static_cast<unsigned>(std::popcount(bitmap)); }
  [[nodiscard]] bool has(unsigned slot) const { return (bitmap >> slot & 1) != 0; }
  // Position of a slot in children, whether it is there or not.
  [[nodiscard]] unsigned position(unsigned slot) const {
    return static_cast<unsigned>(std::popcount(static_cast<std::uint16_t>(bitmap & ((1u << slot) - 1))));
  }
};

inline Leaf* as_leaf(Node* node) { return static_cast<Leaf*>(node); }
inline const Leaf* as_leaf(const Node* node) { return static_cast<const Leaf*>(node); }
inline Inner* as_inner(Node* node) { return static_cast<Inner*>(node); }
inline const Inner* as_inner(const Node* node) { return static_cast<const Inner*>(node); }

inline std::uint64_t objects_of(const Node* node) { return node->is_leaf() ? 1 : as_inner(node)->objects; }
inline std::uint64_t bytes_of(const Node* node) {
  return node->is_leaf() ? as_leaf(node)->length : as_inner(node)->bytes;
}
// Requires digest_ready().
inline Child summary_of(const Node* node) { return {node->place(), objects_of(node), bytes_of(node), node->digest}; }

inline void add_ref(Node* node) { node->refs.fetch_add(1, std::memory_order_relaxed); }
// False: somebody is about to free it.
inline bool try_ref(Node* node) {
  std::uint32_t refs = node->refs.load(std::memory_order_relaxed);
  while (refs != 0) {
    if (node->refs.compare_exchange_weak(refs, refs + 1, std::memory_order_acquire)) return true;
  }
  return false;
}

}  // namespace zz::execution::state
