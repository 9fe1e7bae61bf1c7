// Giving state to others and taking it from them.

#include <algorithm>

#include "execution/state/object_store.hpp"
#include "execution/state/store_state.hpp"

namespace zz::execution::state {
namespace {

constexpr std::size_t kBasesMax = 3;

}  // namespace

// ---- giving

std::optional<Part> ObjectStore::part(const Snapshot& snapshot, const Want& want) {
  if (!snapshot->root_ready()) return std::nullopt;
  if (want.kind == PartKind::kRoot) {
    if (snapshot->root() != want.digest) return std::nullopt;
    return Part{PartKind::kRoot, {}, SharedBytes(encode(snapshot->image()))};
  }
  Node* const node = Forest::at(snapshot->top, want.place);
  if (node == nullptr || node->is_absent() || node->digest != want.digest) return std::nullopt;
  if (node->is_leaf() != (want.kind == PartKind::kObject)) return std::nullopt;
  if (!node->is_leaf()) return Part{PartKind::kNode, want.place, SharedBytes(encode(Forest::image(as_inner(node))))};
  auto bytes = state_->forest().residency().get(as_leaf(node), Residency::After::kLeave);
  if (!bytes) return std::nullopt;
  return Part{PartKind::kObject, want.place, std::move(*bytes)};
}

std::vector<Part> ObjectStore::path(const Snapshot& snapshot, const PathQuery& query) {
  std::vector<Part> out;
  if (!snapshot->root_ready()) return out;
  if (query.with_root) out.push_back({PartKind::kRoot, {}, SharedBytes(encode(snapshot->image()))});
  Node* node = snapshot->top;
  while (node != nullptr && covers(node->place(), query.id.value) && !node->is_absent()) {
    if (node->is_leaf()) {
      if (auto bytes = state_->forest().residency().get(as_leaf(node), Residency::After::kLeave)) {
        out.push_back({PartKind::kObject, node->place(), std::move(*bytes)});
      }
      return out;
    }
    const Inner* const inner = as_inner(node);
    if (inner->depth >= query.below) {
      out.push_back({PartKind::kNode, inner->place(), SharedBytes(encode(Forest::image(inner)))});
    }
    const unsigned slot = nibble(query.id.value, inner->depth);
    node = inner->has(slot) ? inner->children[inner->position(slot)] : nullptr;
  }
  return out;
}

// ---- taking

// What the head was is a base from now on.
void ObjectStore::State::retire_head() {
  ++replacements;
  clean_pass = false;
  if (head == nullptr) return;
  bases.insert(bases.begin(), track(std::exchange(head, nullptr), Version::Kind::kBase));
  bases.resize(std::min(bases.size(), kBasesMax));
}

void ObjectStore::clear() {
  state_->retire_head();
  state_->root_wanted.reset();
}

void ObjectStore::adopt(const Digest& root) {
  State& state = *state_;
  state.retire_head();
  state.root_wanted = root;
  for (const auto& weak : state.versions) {
    const Snapshot version = weak.lock();
    if (!version || !version->root_ready() || version->root() != root) continue;
    revert(version);
    ++state.reused;
    return;
  }
}

// The node that a verified parent speaks of: from a base, where it is the same, or absent.
Node* ObjectStore::State::obtain(const Child& child) {
  Node* known = nullptr;
  for (const Snapshot& base : bases) {
    Node* const node = Forest::at(base->top, child.place);
    if (node == nullptr || !node->digest_ready() || node->digest != child.digest) continue;
    if (known == nullptr || known->is_absent()) known = node;
  }
  if (known == nullptr) return forest().make_absent(child);
  if (!known->is_absent()) ++reused;
  add_ref(known);
  return known;
}

ObjectStore::State::Tops ObjectStore::State::tops() const {
  Tops out{{}, {head}};
  for (const auto& weak : versions) {
    Snapshot version = weak.lock();
    if (!version) continue;
    out.nodes.push_back(version->top);
    out.held.push_back(std::move(version));
  }
  return out;
}

Refusal ObjectStore::State::supply_root(ByteView bytes) {
  if (!root_wanted) return Refusal::kNotWanted;
  if (bytes.size() > kRootBytesMax) return Refusal::kOversize;
  const std::optional<RootImage> image = decode_root(bytes);
  if (!image) return Refusal::kMalformed;
  if (root_digest(*image) != *root_wanted) return Refusal::kWrongDigest;
  root_wanted.reset();
  if (image->top) head = obtain(*image->top);
  return Refusal::kNone;
}

Refusal ObjectStore::State::supply_node(const Part& part) {
  if (part.bytes.size() > kNodeBytesMax) return Refusal::kOversize;
  if (part.place.is_object()) return Refusal::kMalformed;
  const std::optional<NodeImage> image = decode_node(part.bytes.view());
  if (!image || image->place != part.place) return Refusal::kMalformed;
  std::optional<Digest> digest;
  Refusal verdict = Refusal::kNotWanted;
  const Tops all = tops();
  for (Node* const top : all.nodes) {
    Node* const node = Forest::at(top, part.place);
    if (node == nullptr) continue;
    if (!node->is_absent()) {
      if (verdict == Refusal::kNotWanted) verdict = Refusal::kDuplicate;
      continue;
    }
    if (!digest) digest = node_digest(*image);
    Inner* const inner = as_inner(node);
    if (*digest != inner->digest) {
      if (verdict == Refusal::kNotWanted) verdict = Refusal::kWrongDigest;
      continue;
    }
    if (totals_of(*image) != Totals{inner->objects, inner->bytes}) return Refusal::kMalformed;
    std::vector<Node*> children;
    for (const Child& child : image->children) children.push_back(obtain(child));
    forest().fill(inner, children);
    verdict = Refusal::kNone;
  }
  return verdict;
}

Refusal ObjectStore::State::supply_object(const Part& part) {
  if (part.bytes.size() > kObjectBytesMax) return Refusal::kOversize;
  if (!part.place.is_object()) return Refusal::kMalformed;
  std::optional<Digest> digest;
  Refusal verdict = Refusal::kNotWanted;
  const Tops all = tops();
  for (Node* const top : all.nodes) {
    Node* const node = Forest::at(top, part.place);
    if (node == nullptr) continue;
    if (!node->is_absent()) {
      if (verdict == Refusal::kNotWanted) verdict = Refusal::kDuplicate;
      continue;
    }
    Leaf* const leaf = as_leaf(node);
    const bool longer = part.bytes.size() > leaf->length;
    if (!digest && part.bytes.size() == leaf->length) digest = object_digest(leaf->id(), part.bytes.view());
    if (part.bytes.size() != leaf->length || *digest != leaf->digest) {
      if (verdict == Refusal::kNotWanted) verdict = longer ? Refusal::kOversize : Refusal::kWrongDigest;
      continue;
    }
    forest().residency().admit(leaf, part.bytes.view());
    verdict = Refusal::kNone;
  }
  if (verdict == Refusal::kNone) make_room();
  return verdict;
}

Refusal ObjectStore::supply(const Part& part) {
  Refusal verdict = Refusal::kMalformed;
  switch (part.kind) {
    case PartKind::kRoot:
      verdict = state_->supply_root(part.bytes.view());
      break;
    case PartKind::kNode:
      verdict = state_->supply_node(part);
      break;
    case PartKind::kObject:
      verdict = state_->supply_object(part);
      break;
  }
  if (verdict == Refusal::kNone) {
    ++state_->supplied;
  } else {
    state_->refused.add(verdict);
  }
  return verdict;
}

// False: the limits are used up, and search.next says where to go on.
bool ObjectStore::State::search(const Node* node, std::uint64_t cursor, Search& search) const {
  if ((node->prefix | ~prefix_mask(node->depth)) < cursor) return true;
  if (search.visits == 0 || search.wants.size() == search.limit) {
    search.next = ObjectId{std::max(cursor, node->prefix)};
    return false;
  }
  --search.visits;
  if (node->is_absent()) {
    search.wants.push_back(want(node, ObjectId{node->prefix}));
    return true;
  }
  if (node->is_leaf()) return true;
  const Inner* const inner = as_inner(node);
  const unsigned begin = cursor <= inner->prefix ? 0 : inner->position(nibble(cursor, inner->depth));
  for (unsigned i = begin; i < inner->count(); ++i) {
    if (!this->search(inner->children[i], cursor, search)) return false;
  }
  return true;
}

ObjectStore::Missing ObjectStore::missing(ObjectId cursor, std::size_t limit, std::size_t visits) {
  State& state = *state_;
  if (state.root_wanted) return {{state.root_want({})}, std::nullopt};
  State::Search search;
  search.limit = std::max<std::size_t>(limit, 1);
  search.visits = std::max<std::size_t>(visits, 1024);
  if (state.head != nullptr) state.search(state.head, cursor.value, search);
  const bool goes_on = cursor.value == 0 || (state.clean_pass && cursor == state.pass_at);
  state.clean_pass = goes_on && search.wants.empty();
  state.pass_at = search.next.value_or(ObjectId{});
  if (state.clean_pass && !search.next) {  // complete: nothing will be looked for in them
    state.bases.clear();
    state.part_in_use = false;
  }
  return {std::move(search.wants), search.next};
}

}  // namespace zz::execution::state
