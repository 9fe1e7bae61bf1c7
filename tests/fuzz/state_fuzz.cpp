// libFuzzer target: any bytes that a source of state gives are refused, or are an inner node or a root record in its
// one encoding; and none is both. Seeds: corpus/state.

#include "base/assert.hpp"
#include "execution/state/parts.hpp"

using namespace zz::execution::state;  // NOLINT: a program of one function

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const zz::ByteView bytes(data, size);
  const auto same = [&](const zz::Bytes& again) { return zz::as_text(again) == zz::as_text(bytes); };
  const auto node = decode_node(bytes);
  const auto root = decode_root(bytes);
  ZZ_ASSERT(!node || !root);
  if (root) ZZ_ASSERT(same(encode(*root)));
  if (!node) return 0;
  ZZ_ASSERT(same(encode(*node)));
  ZZ_ASSERT(node->children.size() >= 2 && node->children.size() <= kFanout);
  const Totals totals = totals_of(*node);
  ZZ_ASSERT(totals.objects >= node->children.size());
  for (const Child& child : node->children) {
    ZZ_ASSERT(covers(node->place, child.place.prefix) && child.place.depth > node->place.depth);
    ZZ_ASSERT(child.objects <= totals.objects && child.bytes <= totals.bytes);
    ZZ_ASSERT(!child.place.is_object() || child.bytes <= kObjectBytesMax);
  }
  return 0;
}
