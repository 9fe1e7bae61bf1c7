#pragma once

// What the state of a service is made of when it travels or is signed: objects, inner nodes and the root record, their
// digests and their encodings (docs/protocol.md §6, §10). Plain values, any thread.
//
// The state is a set of objects, bytes under 64-bit ids. Over it stands a radix tree of fanout 16 over the id's
// nibbles, most significant first, with paths compressed: an inner node has at least two children. So the tree, and
// with it the root digest, depends on the set alone and not on its history.
//
// Invariants:
//  1. The digests of objects, inner nodes and root records have domains of their own, so none passes for another.
//  2. An object's digest binds its id; an inner node's binds its place, and of each child the place, the number and
//     bytes of the objects below it, and the digest. So a part's size is known from its verified parent before the part
//     comes.
//  3. A part has one encoding; what decodes encodes to the same bytes.

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/bytes.hpp"
#include "base/ids.hpp"
#include "crypto/digest.hpp"

namespace zz::execution::state {

using ObjectId = Strong<struct ObjectTag, std::uint64_t>;

constexpr std::size_t kObjectBytesMax = 65'536;
constexpr unsigned kFanout = 16;
constexpr unsigned kLeafDepth = 16;  // nibbles of an id

// A subtree's place: the ids that begin with the first `depth` nibbles of `prefix`. The rest of prefix is zero. An
// object's place is its id at kLeafDepth.
struct Place {
  std::uint64_t prefix = 0;
  std::uint8_t depth = 0;  // 0..kLeafDepth
  auto operator<=>(const Place&) const = default;
  [[nodiscard]] bool is_object() const { return depth == kLeafDepth; }
};

// The bits of an id that `depth` nibbles cover.
constexpr std::uint64_t prefix_mask(unsigned depth) { return depth == 0 ? 0 : ~std::uint64_t{0} << (64 - 4 * depth); }
// Nibble `depth` of an id; depth < kLeafDepth.
constexpr unsigned nibble(std::uint64_t id, unsigned depth) { return (id >> (60 - 4 * depth)) & 15; }
constexpr bool covers(const Place& place, std::uint64_t id) {
  return ((place.prefix ^ id) & prefix_mask(place.depth)) == 0;
}
constexpr Place place_of(ObjectId id) { return {id.value, kLeafDepth}; }

// What a parent says of a child.
struct Child {
  Place place;
  std::uint64_t objects = 0;  // in the subtree; 1 for an object
  std::uint64_t bytes = 0;    // of these objects
  Digest digest;
  bool operator==(const Child&) const = default;
};

// An inner node: 2..16 children in the order of their ids.
struct NodeImage {
  Place place;  // depth < kLeafDepth
  std::vector<Child> children;
  bool operator==(const NodeImage&) const = default;
};

// The root record; no child: the empty state.
struct RootImage {
  std::optional<Child> top;
  bool operator==(const RootImage&) const = default;
};

constexpr std::size_t kChildBytesMax = 1 + 8 + 8 + 8 + 32;
constexpr std::size_t kNodeBytesMax = 1 + 1 + 8 + 1 + kFanout * kChildBytesMax;
constexpr std::size_t kRootBytesMax = 1 + 1 + kChildBytesMax;

Digest object_digest(ObjectId id, ByteView bytes);
Digest node_digest(const NodeImage& node);
Digest root_digest(const RootImage& root);

Bytes encode(const NodeImage& node);
Bytes encode(const RootImage& root);
// Nothing: malformed, not in its one encoding, or impossible (a child outside its parent's place or at another's
// nibble, fewer than two children, an object above kObjectBytesMax, sums that overflow). Says nothing about digests.
std::optional<NodeImage> decode_node(ByteView bytes);
std::optional<RootImage> decode_root(ByteView bytes);

// The sums over a node's children.
struct Totals {
  std::uint64_t objects = 0;
  std::uint64_t bytes = 0;
  bool operator==(const Totals&) const = default;
};
Totals totals_of(const NodeImage& node);

// Streams a node's digest without an image of it; both give the same digest.
class NodeDigest {
 public:
  NodeDigest(const Place& place, std::size_t children);
  void add(const Child& child);
  [[nodiscard]] Digest finish() { return out_.finish(); }  // once

 private:
  crypto::DigestWriter out_;
};

}  // namespace zz::execution::state
