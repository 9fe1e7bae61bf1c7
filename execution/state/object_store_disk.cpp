// A snapshot onto the disk and back.

#include <algorithm>
#include <iterator>

#include "execution/state/object_store.hpp"
#include "execution/state/store_state.hpp"

namespace zz::execution::state {
namespace {

constexpr std::uint64_t kBatchBytes = 1 << 20;

// An inner node's record: number of children, their records, a checksum over these and the record's own number (the
// digests do not cover them, and a repair writes to them), the encoding of parts.hpp.
Digest records_sum(Record own, std::span<const Record> records) {
  crypto::DigestWriter out("zz state records");
  out.u64(own);
  for (const Record record : records) out.u64(record);
  return out.finish();
}

struct StoredInner {
  std::vector<Record> records;
  NodeImage image;
};

std::optional<StoredInner> decode_inner(Record own, ByteView bytes) {
  if (bytes.empty()) return std::nullopt;
  const std::size_t count = bytes[0];
  const std::size_t fixed = 1 + 8 * count + 32;
  if (count > kFanout || bytes.size() < fixed) return std::nullopt;
  StoredInner out;
  for (std::size_t i = 0; i < count; ++i) {
    Record record = 0;
    for (std::size_t byte = 8; byte-- > 0;) record = record << 8 | bytes[1 + 8 * i + byte];
    out.records.push_back(record);
  }
  const Digest sum = records_sum(own, out.records);
  if (!std::equal(sum.bytes.begin(), sum.bytes.end(), bytes.begin() + static_cast<std::ptrdiff_t>(fixed - 32))) {
    return std::nullopt;
  }
  auto image = decode_node(bytes.subspan(fixed));
  if (!image || image->children.size() != count) return std::nullopt;
  out.image = std::move(*image);
  return out;
}

// Records of the nodes that `tree` has and `other` has not. Shared nodes stand at the same place in both.
void difference(const Node* tree, Node* other, std::vector<Record>& out) {
  if (tree == nullptr || tree == other) return;
  Node* const same = other == nullptr ? nullptr : Forest::at(other, tree->place());
  if (tree == same) return;
  const Record record = tree->record.load(std::memory_order_relaxed);
  if (record != 0 && (record & kSpillBit) == 0) out.push_back(record);
  if (tree->is_leaf() || tree->is_absent()) return;
  const Inner* const inner = as_inner(tree);
  // Only below the counterpart, if there is one, can shared nodes be; else anywhere in `other`.
  for (unsigned i = 0; i < inner->count(); ++i) difference(inner->children[i], same != nullptr ? same : other, out);
}

std::vector<Record> sorted(std::vector<Record> records) {
  std::sort(records.begin(), records.end());
  records.erase(std::unique(records.begin(), records.end()), records.end());
  return records;
}

std::vector<Record> united(const std::vector<Record>& a, const std::vector<Record>& b) {
  std::vector<Record> out;
  std::set_union(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

std::vector<Record> without(const std::vector<Record>& a, const std::vector<Record>& b) {
  std::vector<Record> out;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(out));
  return out;
}

}  // namespace

// ---- from the disk

struct ObjectStore::State::Loader {
  State& state;
  Record next_record;
  Node* shared = nullptr;  // a tree that is loaded already

  // `whole`: all inner nodes below are there.
  Node* load(const Child& child, Record record, bool& whole) {
    if (record == 0) {  // it was not written
      whole = false;
      return state.forest().make_absent(child);
    }
    // A record belongs to one node, or it would go with either.
    if (Node* const known = shared == nullptr ? nullptr : Forest::at(shared, child.place);
        known != nullptr && known->record.load(std::memory_order_relaxed) == record && known->digest == child.digest) {
      add_ref(known);
      return known;
    }
    const bool possible = record < next_record;
    if (child.place.is_object() && possible) {
      auto* const leaf = new Leaf(ObjectId{child.place.prefix}, static_cast<std::uint32_t>(child.bytes));
      leaf->set_digest(child.digest);
      leaf->record.store(record, std::memory_order_relaxed);
      return leaf;
    }
    if (possible) {
      const std::optional<Bytes> bytes = state.forest().disk()->get(record);
      const auto stored = bytes ? decode_inner(record, *bytes) : std::nullopt;
      if (stored && stored->image.place == child.place && node_digest(stored->image) == child.digest &&
          totals_of(stored->image) == Totals{child.objects, child.bytes}) {
        return load_children(child, *stored, record, whole);
      }
      state.doomed.push_back(record);
    }
    whole = false;
    state.forest().residency().count_damaged();
    return state.forest().make_absent(child);
  }

  Node* load_children(const Child& child, const StoredInner& stored, Record record, bool& whole) {
    std::vector<Node*> children;
    bool mine = true;
    for (std::size_t i = 0; i < stored.records.size(); ++i) {
      children.push_back(load(stored.image.children[i], stored.records[i], mine));
    }
    Inner* const inner = state.forest().make_inner(child.place, children);
    inner->set_digest(child.digest);
    if (mine) {
      inner->record.store(record, std::memory_order_relaxed);
    } else {  // to be written again when what is missing is there
      state.doomed.push_back(record);
      whole = false;
    }
    return inner;
  }
};

void ObjectStore::State::load(const Manifest& manifest) {
  bool whole = true;
  next_record = manifest.next_record;
  Loader loader{*this, next_record};
  Node* top = nullptr;
  if (manifest.image.top) top = loader.load(*manifest.image.top, manifest.top, whole);
  damaged_inner = !whole;
  doomed = sorted(std::move(doomed));
  persisted = track(top, Version::Kind::kSnapshot);
  persisted->set_root();
  if (top != nullptr) add_ref(top);
  head = top;
}

// What adopt() may reuse, as what was persisted.
void ObjectStore::State::load_part(const Manifest& part) {
  if (!part.image.top) return;
  next_record = std::max(next_record, part.next_record);
  Node* const before = persisted ? persisted->top : nullptr;
  bool whole = true;
  Loader loader{*this, part.next_record, before};
  bases.push_back(track(loader.load(*part.image.top, part.top, whole), Version::Kind::kBase));
  difference(bases.back()->top, before, written);
  doomed = sorted(std::move(doomed));
  part_in_use = true;
}

Result<ObjectStore::Opened> ObjectStore::open(const StoreOptions& options) {
  Opened out;
  if (options.path.empty()) {
    out.store = std::unique_ptr<ObjectStore>(new ObjectStore(std::make_unique<State>(options, nullptr)));
    return out;
  }
  Result<Disk::Opened> disk = Disk::open(options.path);
  if (!disk) return Error{disk.error()};
  auto state = std::make_unique<State>(options, std::move(disk->disk));
  out.damage = std::move(disk->damage);
  if (disk->manifest) {
    state->load(*disk->manifest);
    out.persisted = state->persisted;
    out.label = std::move(disk->manifest->label);
  }
  if (disk->part) state->load_part(*disk->part);
  if (const std::uint64_t lost = state->forest().residency().counters().damaged; lost != 0 && out.damage.empty()) {
    out.damage = options.path + ": " + std::to_string(lost) + " damaged inner nodes; they are to be fetched again";
  }
  out.store = std::unique_ptr<ObjectStore>(new ObjectStore(std::move(state)));
  return out;
}

// ---- to the disk

Result<void> ObjectStore::begin_persist(const Snapshot& snapshot, Bytes label) {
  State& state = *state_;
  if (state.forest().disk() == nullptr) return Error{"the object store has no directory to persist to"};
  if (state.forest().disk()->failed()) return Error{state.forest().disk()->error()};
  if (!snapshot->root_ready()) return Error{"a snapshot without its root digest cannot be persisted"};
  if (label.size() > kLabelBytesMax) return Error{"the label of a persisted snapshot is too long"};
  state.persist = Persist{snapshot, std::move(label), {}, std::nullopt};
  return {};
}

bool ObjectStore::State::flush(bool sync) {
  if (!forest().disk()->commit(sync)) return false;
  for (const auto& [node, record] : assigned) {
    if (node->is_leaf()) {
      forest().residency().moved(as_leaf(node), record);
    } else {
      node->record.store(record, std::memory_order_relaxed);
    }
    written.push_back(record);
  }
  assigned.clear();
  unparted += std::exchange(unflushed, 0);
  return true;
}

ObjectStore::State::Entered ObjectStore::State::enter(Node* node, Record& record) {
  record = node->record.load(std::memory_order_relaxed);
  if (record != 0 && (record & kSpillBit) == 0) return Entered::kHave;  // and so has all below it
  if (node->is_absent()) return Entered::kMissing;
  if (!node->is_leaf()) {
    persist->stack.push_back({as_inner(node), 0, {}});
    return Entered::kPushed;
  }
  const auto bytes = forest().residency().get(as_leaf(node), Residency::After::kLeave);
  if (!bytes) return Entered::kMissing;
  record = next_record++;
  forest().disk()->put(record, bytes->view());
  assigned.emplace_back(node, record);
  unflushed += bytes->size();
  spent += bytes->size();
  return Entered::kHave;
}

// Its bytes.
std::uint64_t ObjectStore::State::put_inner(const Persist::Frame& frame, Record record) {
  const std::span<const Record> records(frame.records.data(), frame.inner->count());
  Bytes out{static_cast<std::uint8_t>(records.size())};
  for (const Record child : records) {
    for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::uint8_t>(child >> (8 * i)));
  }
  const Digest sum = records_sum(record, records);
  out.insert(out.end(), sum.bytes.begin(), sum.bytes.end());
  const Bytes image = encode(Forest::image(frame.inner));
  out.insert(out.end(), image.begin(), image.end());
  forest().disk()->put(record, out);
  return out.size();
}

// The record of what is on disk of a node and below; 0: nothing. Inner nodes that are not whole there get one for the
// time being.
Record ObjectStore::State::way_to(Node* node) {
  const Record record = node->record.load(std::memory_order_relaxed);
  if (record != 0 && (record & kSpillBit) == 0) return record;
  if (node->is_leaf() || node->is_absent()) return 0;
  Persist::Frame way{as_inner(node), 0, {}};
  bool any = false;
  for (unsigned i = 0; i < way.inner->count(); ++i) {
    way.records[i] = way_to(way.inner->children[i]);
    any = any || way.records[i] != 0;
  }
  if (!any) return 0;
  ways.push_back(next_record++);
  const Record own = ways.back();
  static_cast<void>(put_inner(way, own));
  return own;
}

// What was written of the snapshot until now counts, should this process end before the rest is.
bool ObjectStore::State::put_part() {
  Disk& disk = *forest().disk();
  Node* const top = persist->snapshot->top;
  if (top == nullptr || part_in_use) return true;
  for (const Record record : std::exchange(ways, {})) disk.remove(record);
  const Record record = way_to(top);
  if (!std::exchange(persist->parted, true)) {  // what was written before, and is not of this: gone after a restart
    std::vector<Record> come;
    difference(top, damaged_inner || !persisted ? nullptr : persisted->top, come);
    const std::vector<Record> all = united(doomed, sorted(std::move(written)));
    doomed = without(all, sorted(std::move(come)));
    written = without(all, doomed);
    disk.put_doomed(doomed);
  }
  disk.put_part({persist->snapshot->root(), persist->snapshot->image(), record, next_record, {}});
  unparted = 0;
  return flush(false);
}

// kMore also when the disk failed.
Progress ObjectStore::State::walk(std::uint64_t bytes) {
  Persist& run = *persist;
  const auto hand_up = [&](Record record) {
    if (run.stack.empty()) {
      run.top = record;
    } else {
      Persist::Frame& parent = run.stack.back();
      parent.records[parent.next++] = record;
    }
  };
  if (run.snapshot->top == nullptr) run.top = 0;
  while (!run.top) {
    if (spent >= bytes) return Progress::kMore;
    if (unflushed >= kBatchBytes && !flush(false)) return Progress::kMore;
    if (!run.stack.empty() && run.stack.back().next == run.stack.back().inner->count()) {
      const Persist::Frame frame = run.stack.back();
      run.stack.pop_back();
      const Record record = next_record++;
      const std::uint64_t size = put_inner(frame, record);
      assigned.emplace_back(frame.inner, record);
      unflushed += size;
      spent += size;
      hand_up(record);
      continue;
    }
    Node* const node = run.stack.empty() ? run.snapshot->top : run.stack.back().inner->children[run.stack.back().next];
    Record record = 0;
    const Entered entered = enter(node, record);
    if (entered == Entered::kMissing) return Progress::kMissing;
    if (entered == Entered::kHave) hand_up(record);
  }
  return Progress::kDone;
}

// The snapshot is on disk but for the manifest, which makes it the persisted one.
Result<Progress> ObjectStore::State::finish() {
  Disk& disk = *forest().disk();
  std::vector<Record> gone;
  std::vector<Record> come;
  Node* const before = persisted ? persisted->top : nullptr;
  difference(before, persist->snapshot->top, gone);
  // After damage the two may share nodes that are written again: then all of the new one counts as new.
  difference(persist->snapshot->top, damaged_inner ? nullptr : before, come);
  // Written for a persist that was abandoned, or needed by older versions in memory alone: gone after a restart. What
  // an older version lost and this one has again stays.
  const std::vector<Record> dead = sorted(forest().residency().take_dead());
  std::vector<Record> lost = united(united(doomed, sorted(std::move(gone))), sorted(std::move(written)));
  doomed = without(without(lost, sorted(std::move(come))), dead);
  written.clear();
  for (const Record record : dead) disk.remove(record);
  for (const Record record : std::exchange(ways, {})) disk.remove(record);
  disk.put_doomed(doomed);
  disk.put_manifest(
      {persist->snapshot->root(), persist->snapshot->image(), *persist->top, next_record, std::move(persist->label)});
  if (!flush(true)) return Error{disk.error()};
  persisted = std::move(persist->snapshot);
  persist.reset();
  damaged_inner = false;
  unparted = 0;
  return Progress::kDone;
}

Result<Progress> ObjectStore::persist_some(std::uint64_t bytes) {
  State& state = *state_;
  if (!state.persist) return Progress::kDone;
  if (state.forest().disk()->failed()) return Error{state.forest().disk()->error()};
  state.spent = 0;
  const Progress progress = state.walk(bytes);
  const std::uint64_t enough = progress == Progress::kMissing ? 1 : kPartBytes;
  if (!state.flush(false) || (progress != Progress::kDone && state.unparted >= enough && !state.put_part())) {
    return Error{state.forest().disk()->error()};
  }
  return progress == Progress::kDone ? state.finish() : Result<Progress>(progress);
}

std::string ObjectStore::disk_error() const {
  return state_->forest().disk() == nullptr ? std::string() : state_->forest().disk()->error();
}

}  // namespace zz::execution::state
