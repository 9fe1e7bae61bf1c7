#include "execution/state/object_store.hpp"

#include <algorithm>

#include "execution/state/store_state.hpp"

namespace zz::execution::state {

// ---- versions

Version::Version(std::shared_ptr<Shared> shared, Node* its_top, Kind kind)
    : top(its_top), shared_(std::move(shared)), kind_(kind) {
  if (kind_ == Kind::kSnapshot) shared_->alive.fetch_add(1);
}

Version::~Version() {
  shared_->forest.drop(top);
  if (kind_ != Kind::kSnapshot) return;
  shared_->dropped.fetch_add(1);  // before it is not alive, so that the sum never shows one too few
  shared_->alive.fetch_sub(1);
}

RootImage Version::image() const {
  RootImage image;
  if (top != nullptr) image.top = summary_of(top);
  return image;
}

void Version::set_root() const {
  root_ = root_digest(image());
  ready_.store(true, std::memory_order_release);
}

Snapshot ObjectStore::State::track(Node* top, Version::Kind kind) {
  std::erase_if(versions, [](const auto& version) { return version.expired(); });
  Snapshot made = std::make_shared<const Version>(shared, top, kind);
  versions.push_back(made);
  return made;
}

// ---- the head

ObjectStore::ObjectStore(std::unique_ptr<State> state) : state_(std::move(state)) {}
ObjectStore::~ObjectStore() = default;

Want ObjectStore::State::want(const Node* node, ObjectId toward) const {
  if (!covers(node->place(), toward.value)) toward = ObjectId{node->prefix};  // next() looks beyond
  if (node->is_leaf()) return {PartKind::kObject, node->place(), as_leaf(node)->length, node->digest, toward};
  return {PartKind::kNode, node->place(), kNodeBytesMax, node->digest, toward};
}

void ObjectStore::State::make_room() {
  constexpr std::size_t kAtOnce = 8;
  bool more = true;
  while (more && forest().residency().over()) forest().trim(kAtOnce, options.memory_bytes, more);
}

ReadOutcome ObjectStore::State::read(Node* top, ObjectId id, Residency::After after) {
  const Forest::Found found = Forest::find(top, id);
  if (found.absent != nullptr) return {{Status::kMissing, want(found.absent, id)}, {}};
  if (found.leaf == nullptr) return {{Status::kNone, {}}, {}};
  if (auto bytes = forest().residency().get(found.leaf, after)) return {{Status::kDone, {}}, std::move(*bytes)};
  return {{Status::kMissing, want(found.leaf, id)}, {}};
}

ReadOutcome ObjectStore::read(ObjectId id) {
  if (state_->root_wanted) return {{Status::kMissing, state_->root_want(id)}, {}};
  ReadOutcome out = state_->read(state_->head, id, Residency::After::kKeep);
  state_->make_room();
  return out;
}

Outcome ObjectStore::write(ObjectId id, ByteView bytes) {
  State& state = *state_;
  if (bytes.size() > kObjectBytesMax) return {Status::kOversize, {}};
  if (state.root_wanted) return {Status::kMissing, state.root_want(id)};
  const Forest::Found found = Forest::find(state.head, id);
  if (found.absent != nullptr) return {Status::kMissing, state.want(found.absent, id)};
  const Totals now = totals();
  const std::uint64_t others = now.bytes - (found.leaf != nullptr ? found.leaf->length : 0);
  if (found.leaf == nullptr && now.objects >= state.options.objects_max) return {Status::kFull, {}};
  if (others > state.options.bytes_max || bytes.size() > state.options.bytes_max - others) return {Status::kFull, {}};
  state.head = state.forest().put(state.head, state.forest().make_leaf(id, bytes));
  state.make_room();
  return {};
}

Outcome ObjectStore::erase(ObjectId id) {
  State& state = *state_;
  if (state.root_wanted) return {Status::kMissing, state.root_want(id)};
  const Forest::Found found = Forest::find(state.head, id);
  if (found.absent != nullptr) return {Status::kMissing, state.want(found.absent, id)};
  if (found.leaf == nullptr) return {Status::kNone, {}};
  state.head = state.forest().erase(state.head, id);
  return {};
}

NextOutcome ObjectStore::next(ObjectId from) const {
  if (state_->root_wanted) return {{Status::kMissing, state_->root_want(from)}, {}, 0};
  const Forest::Found found = Forest::next(state_->head, from.value);
  if (found.absent != nullptr) return {{Status::kMissing, state_->want(found.absent, from)}, {}, 0};
  if (found.leaf == nullptr) return {{Status::kNone, {}}, {}, 0};
  return {{Status::kDone, {}}, found.leaf->id(), found.leaf->length};
}

Totals ObjectStore::totals() const {
  if (state_->head == nullptr) return {};
  return {objects_of(state_->head), bytes_of(state_->head)};
}

bool ObjectStore::whole() const { return !state_->root_wanted && state_->shared->forest.residency().absent() == 0; }

// ---- snapshots

std::optional<Snapshot> ObjectStore::snapshot() {
  State& state = *state_;
  if (state.root_wanted) return std::nullopt;
  if (state.shared->alive.load() + state.shared->dropped.load() >= state.options.snapshots_max) return std::nullopt;
  if (state.head != nullptr) add_ref(state.head);
  Snapshot made = state.track(state.head, Version::Kind::kSnapshot);
  // Nothing was changed since it was adopted, or since a snapshot that has its digests.
  if (made->top == nullptr || made->top->digest_ready()) made->set_root();
  return made;
}

void ObjectStore::revert(const Snapshot& to) {
  ++state_->replacements;
  if (to->top != nullptr) add_ref(to->top);
  state_->forest().drop(std::exchange(state_->head, to->top));
  state_->root_wanted.reset();
}

std::uint64_t ObjectStore::replacements() const { return state_->replacements; }

ReadOutcome ObjectStore::read(const Snapshot& snapshot, ObjectId id) {
  return state_->read(snapshot->top, id, Residency::After::kLeave);
}

Totals ObjectStore::totals(const Snapshot& snapshot) {
  if (snapshot->top == nullptr) return {};
  return {objects_of(snapshot->top), bytes_of(snapshot->top)};
}

std::optional<Digest> ObjectStore::root(const Snapshot& snapshot) {
  if (!snapshot->root_ready()) return std::nullopt;
  return snapshot->root();
}

Progress ObjectStore::digest_some(const Snapshot& snapshot, std::uint64_t bytes) {
  if (snapshot->root_ready()) return Progress::kDone;
  auto budget = static_cast<std::int64_t>(std::min<std::uint64_t>(bytes, 1ull << 40));
  if (snapshot->top != nullptr && !state_->forest().digest(snapshot->top, budget)) return Progress::kMore;
  snapshot->set_root();
  return Progress::kDone;
}

bool ObjectStore::reclaim_some(std::size_t nodes) {
  const std::unique_lock lock(state_->reclaiming, std::try_to_lock);
  if (!lock.owns_lock()) return true;
  const std::uint32_t dropped = state_->shared->dropped.load();
  if (state_->forest().reclaim(nodes)) return true;
  state_->shared->dropped.fetch_sub(dropped);  // not those dropped since, which may not be reclaimed yet
  return false;
}

bool ObjectStore::trim_some(std::size_t objects) {
  bool more = false;
  state_->forest().trim(objects, state_->forest().residency().low_water(), more);
  return more;
}

StoreCounters ObjectStore::counters() const {
  const Residency::Counters residency = state_->forest().residency().counters();
  StoreCounters out;
  out.objects_resident = residency.objects;
  out.bytes_resident = residency.bytes;
  out.absent = state_->forest().residency().absent();
  out.spilled = residency.spilled;
  out.written = residency.written;
  out.loaded = residency.loaded;
  out.damaged = residency.damaged;
  out.supplied = state_->supplied;
  out.reused = state_->reused;
  out.refused = state_->refused;
  return out;
}

}  // namespace zz::execution::state
