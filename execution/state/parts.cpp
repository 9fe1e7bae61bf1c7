#include "execution/state/parts.hpp"

#include <limits>

namespace zz::execution::state {
namespace {

constexpr std::uint8_t kFormat = 1;

void add_child(crypto::DigestWriter& out, const Child& child) {
  out.u64(child.place.depth).u64(child.place.prefix).u64(child.objects).u64(child.bytes).digest(child.digest);
}

class Writer {
 public:
  explicit Writer(std::size_t reserve) { out_.reserve(reserve); }
  void u8(std::uint8_t value) { out_.push_back(value); }
  void u64(std::uint64_t value) {
    for (int i = 0; i < 8; ++i) out_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  }
  void child(const Child& child) {
    u8(child.place.depth);
    u64(child.place.prefix);
    if (!child.place.is_object()) u64(child.objects);
    u64(child.bytes);
    out_.insert(out_.end(), child.digest.bytes.begin(), child.digest.bytes.end());
  }
  Bytes take() { return std::move(out_); }

 private:
  Bytes out_;
};

class Reader {
 public:
  explicit Reader(ByteView bytes) : left_(bytes) {}
  bool u8(std::uint8_t& value) {
    if (left_.empty()) return false;
    value = left_[0];
    left_ = left_.subspan(1);
    return true;
  }
  bool u64(std::uint64_t& value) {
    if (left_.size() < 8) return false;
    value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | left_[static_cast<std::size_t>(i)];
    left_ = left_.subspan(8);
    return true;
  }
  bool digest(Digest& value) {
    if (left_.size() < value.bytes.size()) return false;
    std::copy_n(left_.begin(), value.bytes.size(), value.bytes.begin());
    left_ = left_.subspan(value.bytes.size());
    return true;
  }
  bool place(Place& value) {
    return u8(value.depth) && value.depth <= kLeafDepth && u64(value.prefix) &&
           (value.prefix & ~prefix_mask(value.depth)) == 0;
  }
  bool child(Child& value) {
    value.objects = 1;
    if (!place(value.place)) return false;
    if (!value.place.is_object() && (!u64(value.objects) || value.objects < 2)) return false;
    if (!u64(value.bytes) || !digest(value.digest)) return false;
    // objects * kObjectBytesMax without overflow
    return value.bytes / kObjectBytesMax < value.objects ||
           (value.bytes / kObjectBytesMax == value.objects && value.bytes % kObjectBytesMax == 0);
  }
  [[nodiscard]] bool done() const { return left_.empty(); }

 private:
  ByteView left_;
};

bool add_checked(std::uint64_t& sum, std::uint64_t more) {
  if (more > std::numeric_limits<std::uint64_t>::max() - sum) return false;
  sum += more;
  return true;
}

}  // namespace

Digest object_digest(ObjectId id, ByteView bytes) {
  crypto::DigestWriter out("zz state object");
  return out.id(id).bytes(bytes).finish();
}

NodeDigest::NodeDigest(const Place& place, std::size_t children) : out_("zz state node") {
  out_.u64(place.depth).u64(place.prefix).u64(children);
}

void NodeDigest::add(const Child& child) { add_child(out_, child); }

Digest node_digest(const NodeImage& node) {
  NodeDigest out(node.place, node.children.size());
  for (const Child& child : node.children) out.add(child);
  return out.finish();
}

Digest root_digest(const RootImage& root) {
  crypto::DigestWriter out("zz state root");
  out.u64(root.top ? 1 : 0);
  if (root.top) add_child(out, *root.top);
  return out.finish();
}

Totals totals_of(const NodeImage& node) {
  Totals totals;
  for (const Child& child : node.children) {
    totals.objects += child.objects;
    totals.bytes += child.bytes;
  }
  return totals;
}

Bytes encode(const NodeImage& node) {
  Writer out(kNodeBytesMax);
  out.u8(kFormat);
  out.u8(node.place.depth);
  out.u64(node.place.prefix);
  out.u8(static_cast<std::uint8_t>(node.children.size()));
  for (const Child& child : node.children) out.child(child);
  return out.take();
}

Bytes encode(const RootImage& root) {
  Writer out(kRootBytesMax);
  out.u8(kFormat);
  out.u8(root.top ? 1 : 0);
  if (root.top) out.child(*root.top);
  return out.take();
}

std::optional<NodeImage> decode_node(ByteView bytes) {
  if (bytes.size() > kNodeBytesMax) return std::nullopt;
  Reader in(bytes);
  std::uint8_t format = 0;
  std::uint8_t count = 0;
  NodeImage node;
  if (!in.u8(format) || format != kFormat || !in.place(node.place) || node.place.is_object()) return std::nullopt;
  if (!in.u8(count) || count < 2 || count > kFanout) return std::nullopt;
  node.children.resize(count);
  Totals totals;
  int last = -1;
  for (Child& child : node.children) {
    if (!in.child(child)) return std::nullopt;
    if (child.place.depth <= node.place.depth || !covers(node.place, child.place.prefix)) return std::nullopt;
    const int slot = static_cast<int>(nibble(child.place.prefix, node.place.depth));
    if (slot <= last) return std::nullopt;
    last = slot;
    if (!add_checked(totals.objects, child.objects) || !add_checked(totals.bytes, child.bytes)) return std::nullopt;
  }
  if (!in.done()) return std::nullopt;
  return node;
}

std::optional<RootImage> decode_root(ByteView bytes) {
  if (bytes.size() > kRootBytesMax) return std::nullopt;
  Reader in(bytes);
  std::uint8_t format = 0;
  std::uint8_t has_top = 0;
  RootImage root;
  if (!in.u8(format) || format != kFormat || !in.u8(has_top) || has_top > 1) return std::nullopt;
  if (has_top == 1) {
    root.top.emplace();
    if (!in.child(*root.top)) return std::nullopt;
  }
  if (!in.done()) return std::nullopt;
  return root;
}

}  // namespace zz::execution::state
