#include "execution/state/forest.hpp"

#include <algorithm>
#include <bit>
#include <limits>

namespace zz::execution::state {
namespace {

// Nibbles that two ids have in common.
std::uint8_t common_depth(std::uint64_t a, std::uint64_t b) {
  return static_cast<std::uint8_t>(std::countl_zero(a ^ b) / 4);
}

unsigned slot_of(const Inner* inner, std::uint64_t id) { return nibble(id, inner->depth); }

}  // namespace

Forest::~Forest() {
  while (reclaim(std::numeric_limits<std::size_t>::max())) {
  }
}

// ---- nodes

Leaf* Forest::make_leaf(ObjectId id, ByteView bytes) {
  auto* const leaf = new Leaf(id, static_cast<std::uint32_t>(bytes.size()));
  residency_.admit(leaf, bytes);
  return leaf;
}

Node* Forest::make_absent(const Child& child) {
  Node* node = nullptr;
  if (child.place.is_object()) {
    node = new Leaf(ObjectId{child.place.prefix}, static_cast<std::uint32_t>(child.bytes));
  } else {
    auto* const inner = new Inner(child.place);
    inner->objects = child.objects;
    inner->bytes = child.bytes;
    node = inner;
  }
  node->set_digest(child.digest);
  node->absent.store(true, std::memory_order_release);
  residency_.add_absent();
  return node;
}

Inner* Forest::make_inner(const Place& place, const std::vector<Node*>& children) {
  auto* const inner = new Inner(place);
  inner->children = std::make_unique<Node*[]>(children.size());
  std::copy(children.begin(), children.end(), inner->children.get());
  for (const Node* child : children) {
    inner->bitmap = static_cast<std::uint16_t>(inner->bitmap | 1u << slot_of(inner, child->prefix));
    inner->objects += objects_of(child);
    inner->bytes += bytes_of(child);
  }
  return inner;
}

void Forest::fill(Inner* inner, const std::vector<Node*>& children) {
  inner->children = std::make_unique<Node*[]>(children.size());
  std::copy(children.begin(), children.end(), inner->children.get());
  for (const Node* child : children) {
    inner->bitmap = static_cast<std::uint16_t>(inner->bitmap | 1u << slot_of(inner, child->prefix));
  }
  inner->absent.store(false, std::memory_order_release);
  residency_.take_absent();
}

void Forest::drop(Node* node) {
  if (node == nullptr || node->refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (node->is_leaf()) {
    residency_.forget(as_leaf(node));
    delete as_leaf(node);
  } else {
    bury(as_inner(node));
  }
}

void Forest::bury(Inner* inner) {
  const std::lock_guard lock(graveyard_mutex_);
  graveyard_.push_back(inner);
}

bool Forest::reclaim(std::size_t nodes) {
  std::size_t freed = 0;
  while (freed < nodes) {
    Inner* inner = nullptr;
    {
      const std::lock_guard lock(graveyard_mutex_);
      if (graveyard_.empty()) return false;
      inner = graveyard_.back();
      graveyard_.pop_back();
    }
    if (inner->is_absent()) {
      residency_.take_absent();
    } else {
      for (unsigned i = 0; i < inner->count(); ++i) drop(inner->children[i]);
    }
    residency_.forget_record(inner->record.load(std::memory_order_relaxed));
    freed += 1 + inner->count();
    delete inner;
  }
  return true;
}

// ---- trees

Forest::Found Forest::find(Node* top, ObjectId id) {
  Node* node = top;
  while (node != nullptr && covers(node->place(), id.value)) {
    if (node->is_leaf()) return {as_leaf(node), nullptr};
    Inner* const inner = as_inner(node);
    if (inner->is_absent()) return {nullptr, inner};
    const unsigned slot = slot_of(inner, id.value);
    if (!inner->has(slot)) return {};
    node = inner->children[inner->position(slot)];
  }
  return {};
}

Node* Forest::at(Node* top, const Place& place) {
  Node* node = top;
  while (node != nullptr && node->depth <= place.depth && covers(node->place(), place.prefix)) {
    if (node->depth == place.depth) return node;
    Inner* const inner = as_inner(node);
    const unsigned slot = slot_of(inner, place.prefix);
    if (inner->is_absent() || !inner->has(slot)) return nullptr;
    node = inner->children[inner->position(slot)];
  }
  return nullptr;
}

Forest::Found Forest::next(Node* top, std::uint64_t from) {
  if (top == nullptr) return {};
  const std::uint64_t last = top->prefix | ~prefix_mask(top->depth);
  if (last < from) return {};
  if (top->is_leaf()) return {as_leaf(top), nullptr};
  Inner* const inner = as_inner(top);
  if (inner->is_absent()) return {nullptr, inner};
  const unsigned begin = from <= inner->prefix ? 0 : inner->position(slot_of(inner, from));
  for (unsigned i = begin; i < inner->count(); ++i) {
    const Found found = next(inner->children[i], from);
    if (found.leaf != nullptr || found.absent != nullptr) return found;
  }
  return {};
}

// The digest and the record are of what the node was.
void Forest::changed(Inner* inner) {
  inner->digest_state.store(DigestState::kNone, std::memory_order_relaxed);
  residency_.forget_record(inner->record.exchange(0, std::memory_order_relaxed));
}

// The node itself if nobody else has it, or a copy. Called from the top down: what a shared parent holds is shared too.
Inner* Forest::own(Inner* inner) {
  if (inner->refs.load(std::memory_order_acquire) == 1) {
    changed(inner);
    return inner;
  }
  auto* const copy = new Inner(inner->place());
  copy->objects = inner->objects;
  copy->bytes = inner->bytes;
  copy->bitmap = inner->bitmap;
  copy->children = std::make_unique<Node*[]>(inner->count());
  for (unsigned i = 0; i < inner->count(); ++i) {
    copy->children[i] = inner->children[i];
    add_ref(copy->children[i]);
  }
  drop(inner);
  return copy;
}

void Forest::insert_child(Inner* inner, unsigned slot, Node* child) {
  const unsigned count = inner->count();
  const unsigned position = inner->position(slot);
  auto children = std::make_unique<Node*[]>(count + 1);
  std::copy_n(inner->children.get(), position, children.get());
  children[position] = child;
  std::copy_n(inner->children.get() + position, count - position, children.get() + position + 1);
  inner->children = std::move(children);
  inner->bitmap = static_cast<std::uint16_t>(inner->bitmap | 1u << slot);
}

void Forest::remove_child(Inner* inner, unsigned slot) {
  const unsigned position = inner->position(slot);
  std::copy(inner->children.get() + position + 1, inner->children.get() + inner->count(),
            inner->children.get() + position);
  inner->bitmap = static_cast<std::uint16_t>(inner->bitmap & ~(1u << slot));
}

Node* Forest::put(Node* top, Leaf* leaf) {
  if (top == nullptr) return leaf;
  const std::uint64_t id = leaf->prefix;
  if (!covers(top->place(), id)) {
    const std::uint8_t depth = common_depth(top->prefix, id);
    if (top->prefix < id) return make_inner({id & prefix_mask(depth), depth}, {top, leaf});
    return make_inner({id & prefix_mask(depth), depth}, {leaf, top});
  }
  if (top->is_leaf()) {
    drop(top);
    return leaf;
  }
  Inner* const inner = own(as_inner(top));
  const unsigned slot = slot_of(inner, id);
  if (!inner->has(slot)) {
    insert_child(inner, slot, leaf);
    inner->objects += 1;
    inner->bytes += leaf->length;
    return inner;
  }
  Node*& child = inner->children[inner->position(slot)];
  const std::uint64_t objects = objects_of(child);
  const std::uint64_t bytes = bytes_of(child);
  child = put(child, leaf);
  inner->objects = inner->objects - objects + objects_of(child);
  inner->bytes = inner->bytes - bytes + bytes_of(child);
  return inner;
}

Node* Forest::erase(Node* top, ObjectId id) {
  if (top->is_leaf()) {
    drop(top);
    return nullptr;
  }
  Inner* const inner = own(as_inner(top));
  const unsigned slot = slot_of(inner, id.value);
  Node*& child = inner->children[inner->position(slot)];
  const std::uint64_t objects = objects_of(child);
  const std::uint64_t bytes = bytes_of(child);
  child = erase(child, id);
  inner->objects -= objects;
  inner->bytes -= bytes;
  if (child != nullptr) {
    inner->objects += objects_of(child);
    inner->bytes += bytes_of(child);
    return inner;
  }
  remove_child(inner, slot);
  if (inner->count() >= 2) return inner;
  Node* const left = inner->children[0];  // its parent would have one child: the path is compressed
  delete inner;                           // own() cleared its record
  return left;
}

// ---- digests

bool Forest::digest(Node* node, std::int64_t& budget) {
  if (node->digest_ready()) return true;
  if (budget <= 0) return false;
  if (node->is_leaf()) {
    if (!residency_.digest(as_leaf(node))) return false;
    budget -= static_cast<std::int64_t>(as_leaf(node)->length) + 128;
    return true;
  }
  Inner* const inner = as_inner(node);
  for (unsigned i = 0; i < inner->count(); ++i) {
    if (!digest(inner->children[i], budget)) return false;
  }
  if (!inner->claim_digest()) return inner->digest_ready();
  NodeDigest out(inner->place(), inner->count());
  for (unsigned i = 0; i < inner->count(); ++i) out.add(summary_of(inner->children[i]));
  inner->set_digest(out.finish());
  budget -= static_cast<std::int64_t>(64 * inner->count());
  return true;
}

NodeImage Forest::image(const Inner* inner) {
  NodeImage image;
  image.place = inner->place();
  image.children.reserve(inner->count());
  for (unsigned i = 0; i < inner->count(); ++i) image.children.push_back(summary_of(inner->children[i]));
  return image;
}

void Forest::trim(std::size_t objects, std::uint64_t above, bool& more) {
  std::vector<Leaf*> freed;
  more = residency_.trim(objects, above, freed);
  for (Leaf* const leaf : freed) {
    residency_.forget(leaf);
    delete leaf;
  }
}

}  // namespace zz::execution::state
